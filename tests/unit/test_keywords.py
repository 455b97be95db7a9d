"""A keyword becomes a column with one type, and its mistakes are explained."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from pydicom._dicom_dict import DicomDictionary

from ingester.errors import Fatal
from ingester.keywords import column, snake_case

_BINARY = {"SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "NONE"}


def computed(keyword: str, text: str) -> Any:
    """Return what SQLite keeps in a column of this keyword for a header's JSON value."""
    found = column(keyword)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t (attributes TEXT, value {found.type})")
        connection.execute("INSERT INTO t (attributes) VALUES (?)", (f'{{"{keyword}":{text}}}',))
        connection.execute(f"UPDATE t SET value = {found.expression.replace('{}', 'attributes')}")
        return connection.execute("SELECT value FROM t").fetchone()[0]


@pytest.mark.parametrize(
    ("keyword", "text", "value"),
    [
        ("AcquisitionNumber", "3", 3),  # IS
        ("AcquisitionNumber", "1.5", None),
        ("AcquisitionNumber", '"first"', None),
        ("AcquisitionNumber", "[1,2]", None),
        ("AcquisitionNumber", "null", None),
        ("SliceThickness", "1.25", 1.25),  # DS
        ("SliceThickness", "2", 2.0),
        ("SliceThickness", '"thin"', None),
        ("BitsStored", "12", 12),  # US
        ("SmallestImagePixelValue", "-1", -1),  # US or SS
        ("ReferencePixelX0", "-7", -7),  # SL
        ("SelectorUVValue", "[18446744073709551615]", "[18446744073709551615]"),  # UV, 1-n
        ("DiffusionBValue", "1000.0", 1000.0),  # FD
        ("TableHeight", "-0.0", 0.0),
        ("AcquisitionDate", '"2024-02-29"', "2024-02-29"),  # DA
        ("AcquisitionDate", '"20240231"', None),
        ("AcquisitionTime", '"10:15:30.500000"', "10:15:30.500000"),  # TM
        ("AcquisitionTime", '"1015"', None),
        ("AcquisitionDateTime", '"2024-01-31T10:15:30.500000+01:00"',
         "2024-01-31T10:15:30.500000+01:00"),  # DT
        ("AcquisitionDateTime", '"2024-01-31"', "2024-01-31"),
        ("AcquisitionDateTime", '"2024-01-31+01:00"', "2024-01-31+01:00"),
        ("AcquisitionDateTime", '"2024-01"', "2024-01"),
        ("AcquisitionDateTime", '"2024"', "2024"),
        ("AcquisitionDateTime", '"2024-01-01:00"', "2024-01-01:00"),
        ("AcquisitionDateTime", '"20241399101530"', None),
        ("AcquisitionDateTime", '"yesterday"', None),
        ("OperatorsName", '["A^B","C^D"]', '["A^B","C^D"]'),  # PN, 1-n
        ("PatientBirthName", '"Yamada^Tarou=山田^太郎"', "Yamada^Tarou=山田^太郎"),  # PN
        ("PatientPosition", '"HFS"', "HFS"),  # CS
        ("ImageType", '["ORIGINAL"]', '["ORIGINAL"]'),  # CS, 2-n
        ("PatientAge", '"042Y"', "042Y"),  # AS
        ("FrameIncrementPointer", '["00181063"]', '["00181063"]'),  # AT, 1-n
        ("DimensionIndexPointer", '"00209057"', "00209057"),  # AT
        ("IrradiationEventUID", '["1.2.3"]', '["1.2.3"]'),  # UI, 1-n
        ("SynchronizationFrameOfReferenceUID", '"1.2.3"', "1.2.3"),  # UI
        ("PixelSpacing", "[0.5,0.5]", "[0.5,0.5]"),  # DS, 2
        ("ImageComments", '"a\\\\b"', "a\\b"),  # LT
        ("RetrieveURL", '"https://x.example/1"', "https://x.example/1"),  # UR
        ("SourceApplicationEntityTitle", '"CT1"', "CT1"),  # AE, group 0002
    ],
)  # fmt: skip
def test_every_value_representation_has_a_type(keyword: str, text: str, value: Any) -> None:
    found = computed(keyword, text)
    assert found == value
    assert type(found) is type(value)


def test_an_integer_beyond_sqlites_is_null() -> None:
    assert computed("FileOffsetInContainer", "18446744073709551615") is None
    assert computed("FileOffsetInContainer", "9223372036854775807") == 2**63 - 1


def test_every_attribute_of_the_dictionary_has_a_column_or_a_reason() -> None:
    names: set[str] = set()
    with closing(sqlite3.connect(":memory:")) as connection:
        for vr, _, _, _, keyword in DicomDictionary.values():
            if not keyword:
                continue
            if _BINARY & set(vr.split(" or ")):
                with pytest.raises(Fatal, match="sequence or binary"):
                    column(keyword)
                continue
            found = column(keyword)
            assert found.name not in names
            names.add(found.name)
            expression = found.expression.replace("{}", "?1")
            answer = connection.execute(f"SELECT {expression}", (json.dumps({keyword: None}),))
            assert answer.fetchone() == (None,)
    assert len(names) > 3000


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("SliceThicknes", "did you mean SliceThickness?"),
        ("slice_thickness", "did you mean SliceThickness?"),
        ("Slice Thickness", "did you mean SliceThickness?"),
        ("kvp", "did you mean KVP?"),
        ("(0018,0050)", "write SliceThickness"),
        ("00180050", "write SliceThickness"),
        ("OverlayRows", "repeating group"),
        ("PixelData", "OB or OW"),
        ("LUTData", "US or OW"),
        ("ReferencedImageSequence", "SQ"),
        ("", "PS3.6"),
        ("Xyzzy", "PS3.6"),
    ],
)
def test_what_has_no_column_is_explained(written: str, advice: str) -> None:
    with pytest.raises(Fatal) as refused:
        column(written)
    assert advice in str(refused.value)


def test_column_names_are_the_keywords_in_snake_case() -> None:
    names = ["SOPInstanceUID", "KVP", "PatientID", "XRayTubeCurrent", "EchoTime", "CTDIvol"]
    assert [snake_case(each) for each in names] == [
        "sop_instance_uid", "kvp", "patient_id", "x_ray_tube_current", "echo_time", "ctdi_vol",
    ]  # fmt: skip
