"""One study, from a CD and over the network: the same, or else plainly not the same."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UltrasoundMultiFrameImageStorage,
)

from tests.factory import drop, encoded, instance, uid
from tests.media import burn
from tests.stories.conftest import Command, Service
from tests.waiting import until

ROOT = Path(__file__).parents[2]
SLICES = 4
OBJECTS = SLICES + 1
HEAD = "It says it is an object that is stored already (the same SOP Instance UID), but "


def slice_of(number: int, **overrides: str) -> Dataset:
    """A CT slice as a modality makes it: ordered, with private elements of its own."""
    ds = instance(1, 1, 1, number)
    step = Dataset()
    step.ScheduledProcedureStepID = "S1"
    ds.RequestAttributesSequence = [step]
    ds.SliceLocation = f"{number}.50"
    ds.InstanceCreationTime = "101530"
    block = ds.private_block(0x0029, "ACME CT 1.0", create=True)
    block.add_new(0x01, "DS", "0.50")
    block.add_new(0x02, "OB", bytes(range(100)))
    inside = Dataset()
    inside.private_block(0x0029, "ACME CT 1.0", create=True).add_new(0x03, "LO", "kernel")
    block.add_new(0x04, "SQ", [inside])
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return ds


def study(**overrides: str) -> list[Dataset]:
    """A series of slices, and a loop of twelve frames."""
    loop = instance(1, 1, 2, 1, frames=12, sop_class=UltrasoundMultiFrameImageStorage)
    loop.FrameTime = "40"
    for keyword, value in overrides.items():
        setattr(loop, keyword, value)
    return [slice_of(number, **overrides) for number in range(1, SLICES + 1)] + [loop]


def write(folder: Path, objects: list[Dataset], syntax: str) -> Path:
    for number, ds in enumerate(objects, start=1):
        drop(folder / f"IMG{number:03d}", encoded(ds, syntax))
    return folder


def port_of(service: Service) -> str:
    (receiver,) = until(service.status)["receivers"]
    return str(receiver["port"])


def send(service: Service, folder: Path, *options: str) -> None:
    """Send a folder by a program of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pynetdicom", "storescu", "-r", "-cx", "-aet", "CT1", *options,
         "127.0.0.1", port_of(service), str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def from_the_network(command: Command, objects: list[Dataset], outcomes: dict[str, int]) -> None:
    folder = command.root / "modality"
    shutil.rmtree(folder, ignore_errors=True)
    write(folder, objects, ImplicitVRLittleEndian)
    with command.service() as service:
        send(service, folder, "-xi")
        service.await_outcomes(outcomes)
    syntaxes = "SELECT DISTINCT transfer_syntax_uid FROM instances WHERE source = 'CT1'"
    assert set(command.rows(syntaxes)) <= {ImplicitVRLittleEndian}


def cd_of(command: Command, objects: list[Dataset], name: str = "CD_4711") -> Path:
    """Burn a CD: explicit VR, a DICOMDIR, a viewer."""
    return burn(command.root / "media" / name, objects)


FOREIGN = {"foreign": 3, "unpacked": 1}


def test_first_from_a_cd_then_over_the_network(command: Command) -> None:
    cd_of(command, study()).rename(command.spool / "CD_4711")
    counts = command.once()
    assert counts["archived"] == OBJECTS
    assert command.rows("SELECT DISTINCT transfer_syntax_uid FROM instances") == [
        ExplicitVRLittleEndian
    ]
    from_the_network(command, study(), {"archived": OBJECTS, "duplicate": OBJECTS, **FOREIGN})
    assert command.rows("SELECT count(*) FROM problems") == [0]
    assert command.rows("SELECT count(*), count(DISTINCT sop_instance_uid) FROM instances") == [
        (OBJECTS, OBJECTS)
    ]
    command.verify()


def test_first_over_the_network_then_from_a_cd(command: Command) -> None:
    from_the_network(command, study(), {"archived": OBJECTS})
    cd_of(command, study()).rename(command.spool / "CD_4711")
    again = command.once()
    assert (again["arrived"], again["duplicate"]) == (OBJECTS + 4, OBJECTS)
    assert "conflict" not in again
    # And once more by hand.
    command.run("import", cd_of(command, study(), "CD_4712"))
    assert command.rows("SELECT count(*) FROM problems") == [0]
    command.verify()


def test_first_over_the_network_then_from_a_cd_of_another_patient(command: Command) -> None:
    from_the_network(command, study(), {"archived": OBJECTS})
    objects = command.rows("SELECT path, sha256 FROM instances")
    cd = cd_of(command, study(PatientName="Other^Person"))
    said = command.run("import", cd, exit_code=1)
    assert "conflict" in said
    told = command.rows("SELECT message FROM problems WHERE kind = 'conflict'")
    assert len(told) == OBJECTS
    for each in told:
        assert each.startswith(f"{HEAD}names another patient (PatientName differs). ")
    shown = command.json("show", uid(1, 1, 1, 1))
    assert [each["version"] for each in shown["instances"]] == ["current", "conflict"]
    assert HEAD + "names another patient" in shown["history"][1]["explanation"]
    assert "another patient" in re.sub(r"\s+", " ", command.run("show", uid(1, 1, 1, 1)))
    details = command.rows("SELECT detail FROM arrivals WHERE outcome = 'conflict'")
    assert len(details) == OBJECTS
    for each in map(json.loads, details):
        assert (each["differs"], each["pixels_differ"]) == (["PatientName"], False)
        assert (each["patient_differs"], each["study_differs"]) == (True, False)
    # Both are kept, and the first ones are untouched.
    assert command.rows("SELECT count(*) FROM instances WHERE version = 'conflict'") == [OBJECTS]
    assert set(objects) <= set(command.rows("SELECT path, sha256 FROM instances"))
    assert not any("Other" in str(row) for row in command.rows("SELECT message FROM problems"))
    command.verify()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("InstanceCreationTime", "101531"), ("SeriesDescription", "Portal venous, edited")],
)
def test_a_modality_that_sends_again_with_one_value_changed(
    command: Command, keyword: str, value: str
) -> None:
    from_the_network(command, study(), {"archived": OBJECTS})
    resent = [slice_of(1, **{keyword: value})]
    from_the_network(command, resent, {"archived": OBJECTS, "conflict": 1})
    (message,) = command.rows("SELECT message FROM problems WHERE kind = 'conflict'")
    assert message.startswith(f"{HEAD}differs in {keyword}. Both are kept")
    command.verify()


def test_the_query_of_the_documentation_shows_both_values(command: Command) -> None:
    drop(command.spool / "a", slice_of(1))
    command.once()
    drop(command.spool / "b", slice_of(1, SeriesDescription="Edited", PatientName="Other^Person"))
    command.once(exit_code=1)
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    rows = command.json("sql", query)
    assert [(row["version"], row["name"], row["says"]) for row in rows] == [
        ("current", "PatientName", "Family1^Given1"),
        ("conflict", "PatientName", "Other^Person"),
        ("current", "SeriesDescription", "Portal venous"),
        ("conflict", "SeriesDescription", "Edited"),
    ]


# -- one UID from eight associations at once ---------------------------------------------


def at_once(service: Service, root: Path, make: Callable[[int], Dataset]) -> None:
    """Send one object from each of eight programs at the same time."""
    folders = [
        write(root / str(number), [make(number)], ImplicitVRLittleEndian) for number in range(8)
    ]
    senders = [Thread(target=send, args=(service, folder)) for folder in folders]
    for each in senders:
        each.start()
    for each in senders:
        each.join()


def test_eight_associations_send_the_same_object(command: Command) -> None:
    with command.service() as service:
        at_once(service, command.root / "same", lambda _: slice_of(1))
        service.await_outcomes({"archived": 1, "duplicate": 7})
    assert command.rows("SELECT version FROM instances") == ["current"]
    command.verify()


def test_eight_associations_send_eight_objects_of_one_uid(command: Command) -> None:
    with command.service() as service:
        at_once(service, command.root / "other", lambda n: slice_of(1, PatientID=f"P{n}"))
        service.await_outcomes({"archived": 1, "conflict": 7})
    versions = command.rows("SELECT version FROM instances ORDER BY instance_id")
    assert versions == ["current"] + ["conflict"] * 7
    assert command.rows("SELECT count(DISTINCT sha256) FROM instances") == [8]
    ids = command.rows("SELECT json_extract(attributes, '$.PatientID') FROM headers ORDER BY 1")
    assert ids == [f"P{n}" for n in range(8)]
    command.verify()
