"""UIDs: what may become part of a path, and what never does."""

from __future__ import annotations

import pytest

from ingester.dicom.uid import UnsafeUid, is_well_formed, validated_uid


@pytest.mark.parametrize(
    ("raw", "uid"),
    [
        (b"1.2.840", "1.2.840"),
        (b"1.2.840\0", "1.2.840"),
        ("1.2.840  \0", "1.2.840"),
        (b"0", "0"),
        (b"1" * 64, "1" * 64),
        (b"1.02.3", "1.02.3"),
        (b"", None),
        (b" \0", None),
        (None, None),
    ],
)
def test_padding_goes_and_emptiness_is_none(raw: bytes | str | None, uid: str | None) -> None:
    assert validated_uid(raw) == uid


@pytest.mark.parametrize(
    "raw",
    [
        "../../etc/cron.d/x", "1.2/3", "1.2\n", "1.2\x003", ".", "..", ".1", "1.", " 1.2",
        "1" * 65, "1.2\\1.3", "１.２", "1.2\u202e3", "1٢3", "index.db", "a", "-1", "1.2\r",
    ],
)  # fmt: skip
def test_everything_else_is_unsafe(raw: str) -> None:
    with pytest.raises(UnsafeUid):
        validated_uid(raw)
    with pytest.raises(UnsafeUid):
        validated_uid(raw.encode())


def test_style_is_told_apart_from_safety() -> None:
    assert is_well_formed("1.2.840.0")
    assert not is_well_formed("1.02")
    assert not is_well_formed("1..2")
    assert not is_well_formed("12")
