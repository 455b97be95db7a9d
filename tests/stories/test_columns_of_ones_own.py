"""`[index] columns`: an attribute that is asked for often gets a column of its own."""

from __future__ import annotations

import subprocess
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundMultiFrameImageStorage

from tests.factory import drop, instance, uid
from tests.stories.conftest import Command

KEYWORDS = [
    "SliceThickness", "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime",
    "AcquisitionDateTime", "OperatorsName", "PatientPosition", "PixelSpacing", "DiffusionBValue",
    "FrameIncrementPointer", "IrradiationEventUID", "MediaStorageSOPInstanceUID",
    # Columns already, of `instances` and of what is above it.
    "Rows", "Modality", "StudyDate", "PatientName",
]  # fmt: skip
COLUMNS = (
    "slice_thickness, acquisition_number, acquisition_date, acquisition_time,"
    " acquisition_date_time, operators_name, patient_position, pixel_spacing, diffusion_b_value,"
    " frame_increment_pointer, irradiation_event_uid, media_storage_sop_instance_uid, rows,"
    " modality, study_date, patient_name"
)
SAID: dict[str, Any] = {
    "SliceThickness": "1.5", "AcquisitionNumber": "3", "AcquisitionDate": "20240131",
    "AcquisitionTime": "101530.25", "AcquisitionDateTime": "20240131101530+0100",
    "OperatorsName": ["A^B", "C^D"], "PatientPosition": "HFS", "PixelSpacing": ["0.5", "0.25"],
    "DiffusionBValue": 1000.0, "FrameIncrementPointer": 0x00181063,
    "IrradiationEventUID": "1.2.3",
}  # fmt: skip


def said_of(patient: int) -> tuple[object, ...]:
    return (
        1.5, 3, "2024-01-31", "10:15:30.250000", "2024-01-31T10:15:30+01:00", '["A^B","C^D"]',
        "HFS", "[0.5,0.25]", 1000.0, '["00181063"]', '["1.2.3"]', uid(patient, 1, 1, 1), 16, "US",
        "2024-01-01", f"Family{patient}^Given{patient}",
    )  # fmt: skip


def cine(patient: int) -> Dataset:
    return instance(
        patient, frames=3, Modality="US", FrameTime="40",
        sop_class=UltrasoundMultiFrameImageStorage, **SAID,
    )  # fmt: skip


def test_columns_are_filled_taken_out_added_again_and_kept_by_a_rebuild(command: Command) -> None:
    drop(command.spool / "a", cine(1))
    command.once()
    command.configure(index={"columns": KEYWORDS})
    drop(command.spool / "b", cine(2))
    command.once()
    query = f"SELECT {COLUMNS} FROM images ORDER BY instance_id"
    assert command.rows(query) == [said_of(1), said_of(2)]
    (plan,) = {
        row[-1] for row in command.rows(
            "EXPLAIN QUERY PLAN SELECT path FROM instances WHERE slice_thickness = 1.5"
        )
    }  # fmt: skip
    assert "instances_by_slice_thickness" in plan
    # Taken out, nothing that somebody asks breaks; added again, nothing is to be done.
    command.configure(index={"columns": ["KVP"]})
    drop(command.spool / "c", cine(3))
    command.once()
    assert command.rows(query) == [said_of(1), said_of(2), said_of(3)]
    command.configure(index={"columns": KEYWORDS})
    command.once()
    before = command.rows("SELECT * FROM images ORDER BY instance_id")
    command.run("rebuild")
    assert command.rows(query) == [said_of(1), said_of(2), said_of(3)]
    assert command.rows("SELECT * FROM images ORDER BY instance_id") == before
    command.verify()
    # Without the old index the file's keywords are what is known.
    (command.archive / "index.db").unlink()
    for aside in command.archive.glob("index.db.*"):
        aside.unlink()
    command.run("rebuild")
    assert command.rows(query) == [said_of(1), said_of(2), said_of(3)]
    command.once()  # makes the pictures again
    command.verify()


def test_a_word_that_is_no_keyword_stops_every_command_with_the_nearest(command: Command) -> None:
    command.configure(index={"columns": ["KVP", "SliceThicknes"]})
    for arguments in (["run", "--once"], ["status"], ["find", "x"]):
        done = subprocess.run(
            command.arguments(*arguments), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "[index] columns (no. 2) = 'SliceThicknes'" in done.stderr
        assert "did you mean SliceThickness?" in done.stderr
        assert "Traceback" not in done.stderr
    command.configure(index={"columns": ["KVP", "SliceThickness"]})
    drop(command.spool / "a", instance())
    assert command.once()["archived"] == 1
    command.verify()
