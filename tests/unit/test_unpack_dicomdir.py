"""A DICOMDIR: what it names is text, whatever it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.config import IGNORE
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from ingester.model import Reason
from ingester.unpack import Reference, read_dicomdir
from tests.factory import uid


def record(file_id: object, sop_instance_uid: str | None = None, in_use: int = 0xFFFF) -> Dataset:
    ds = Dataset()
    ds.OffsetOfTheNextDirectoryRecord = 0
    ds.RecordInUseFlag = in_use
    ds.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    ds.DirectoryRecordType = "IMAGE"
    if file_id is not None:
        ds.add(DataElement(0x00041500, "CS", file_id, validation_mode=IGNORE))
    if sop_instance_uid is not None:
        ds.add_new(0x00041511, "UI", sop_instance_uid)
    return ds


def dicomdir(path: Path, *records: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    ds = Dataset()
    ds.FileSetID = "CD"
    ds.DirectoryRecordSequence = list(records)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax  # type: ignore[assignment]  # a str is a UID's value
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid(1)  # type: ignore[assignment]  # as above
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_records_are_listed_in_order_in_every_encoding(tmp_path: Path, syntax: str) -> None:
    path = dicomdir(
        tmp_path / "DICOMDIR",
        record(None),
        record(["A", "IM2"], uid(1, 1, 1, 2)),
        record("IM1", uid(1, 1, 1, 1)),
        record("OLD", uid(9), in_use=0),
        record("IM1", uid(1, 1, 1, 1)),
        syntax=syntax,
    )
    assert read_dicomdir(str(path)).references == (
        Reference("A/IM2", uid(1, 1, 1, 2), "IMAGE"),
        Reference("IM1", uid(1, 1, 1, 1), "IMAGE"),
    )


def test_a_file_id_that_points_elsewhere_is_only_text(tmp_path: Path) -> None:
    path = dicomdir(
        tmp_path / "DICOMDIR", record(["..", "secret"]), record("/etc/passwd"), record("IM\n1")
    )
    listing = read_dicomdir(str(path))
    assert [each.file_id for each in listing.references] == ["../secret", "/etc/passwd", "IM\\n1"]


def test_a_directory_without_records_names_nothing(tmp_path: Path) -> None:
    assert read_dicomdir(str(dicomdir(tmp_path / "DICOMDIR"))).references == ()


def test_a_real_one_names_its_neighbours() -> None:
    found = get_testdata_file("DICOMDIR")
    assert isinstance(found, str)
    beside = Path(found).parent
    listing = read_dicomdir(found)
    names = [str(each.relative_to(beside)) for each in beside.rglob("*") if each.is_file()]
    assert len(listing.references) == 31
    assert {each.file_id for each in listing.references} <= set(names)


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-reordered"])
def test_what_is_named_is_described_without_a_word_about_the_patient(name: str) -> None:
    found = get_testdata_file(name)
    assert isinstance(found, str)
    described = {each.file_id: each.what for each in read_dicomdir(found).references}
    assert described["77654033/CR1/6154"] == "IMAGE CR, series 1, number 1"
    assert described["98892003/MR700/4678"] == "IMAGE MR, series 700, number 6"
    assert all(what.startswith("IMAGE C") or " MR, series" in what for what in described.values())


def test_offsets_that_run_in_a_circle_and_odd_values_describe_nothing(tmp_path: Path) -> None:
    series = record(None)
    series.DirectoryRecordType = "SERIES"
    series.OffsetOfReferencedLowerLevelDirectoryEntity = 1
    odd = record("IM1", uid(1))
    odd.add(DataElement(0x00200013, "LO", "Meyer^Anna"))
    path = dicomdir(tmp_path / "DICOMDIR", series, odd)
    whole = path.read_bytes()
    offset = whole.index(b"\x04\0\0\x14UL")  # of the first record: its item begins 8 before
    circle = whole.replace(b"\x04\0\x20\x14UL\x04\0\1\0\0\0", (
        b"\x04\0\x20\x14UL\x04\0" + (offset - 8).to_bytes(4, "little")
    ))  # fmt: skip
    assert circle != whole
    path.write_bytes(circle)
    assert [each.what for each in read_dicomdir(str(path)).references] == ["IMAGE"]


def test_records_nested_without_end_are_refused(tmp_path: Path) -> None:
    path = dicomdir(tmp_path / "DICOMDIR")
    whole = path.read_bytes()
    sequence = b"\x04\0\x20\x12SQ\0\0"
    deeper = sequence + b"\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    path.write_bytes(whole[: whole.index(sequence)] + deeper * 20_000)
    refusal = read_dicomdir(str(path)).refusal
    assert refusal is not None
    assert refusal.reason is Reason.MALFORMED


def test_bytes_that_are_no_dicomdir_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "DICOMDIR"
    path.write_bytes(b"not DICOM at all" * 20)
    refusal = read_dicomdir(str(path)).refusal
    assert refusal is not None
    assert refusal.reason is Reason.MALFORMED
