"""Two versions of one UID: what is the same, what only looks different, what differs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from ingester.compare import CompareRequest, compare
from ingester.errors import Reject
from ingester.model import Outcome, Verdict
from tests.factory import encoded, instance
from tests.unit.dicom import raw
from tests.unit.dicom.raw import el, explicit, item

DUPLICATE = Verdict(Outcome.DUPLICATE)
VARIANT = Verdict(Outcome.VARIANT)


def verdict(tmp_path: Path, new: bytes, old: bytes) -> Verdict:
    (tmp_path / "new").write_bytes(new)
    (tmp_path / "old").write_bytes(old)
    request = CompareRequest(str(tmp_path / "new"), str(tmp_path / "old"))
    return compare(pickle.loads(pickle.dumps(request)))


def large(**overrides: Any) -> Dataset:
    code = Dataset()
    code.CodeValue = "T1"
    code.PixelPaddingValue = 5
    ds = instance(rows=400, columns=400, PixelSpacing=[0.5, 0.25], **overrides)
    ds.ProcedureCodeSequence = [code]
    ds.FrameTimeVector = [1.5, 2]
    ds.RealWorldValueFirstValueMapped = 3
    ds.DoubleFloatRealWorldValueFirstValueMapped = 2.5
    ds.add_new(0x00281203, "OW", bytes(range(200)))
    return ds


SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


@pytest.mark.parametrize("one", SYNTAXES)
@pytest.mark.parametrize("other", SYNTAXES)
def test_uncompressed_encodings_of_the_same_values_are_duplicates(
    tmp_path: Path, one: str, other: str
) -> None:
    def made(syntax: str) -> bytes:
        ds = large()
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = swapped(ds.PixelData)
            ds[0x00281203].value = swapped(ds[0x00281203].value)
        return encoded(ds, syntax)

    assert verdict(tmp_path, made(one), made(other)) == DUPLICATE


def swapped(words: bytes) -> bytes:
    out = bytearray(words)
    out[::2], out[1::2] = words[1::2], words[::2]
    return bytes(out)


def test_file_meta_group_lengths_and_padding_do_not_count(tmp_path: Path) -> None:
    plain = raw.part10(explicit() + el(0x00200010, b"SH", b"1"))
    padded = raw.part10(
        el(0x00080000, b"UL", b"\1\0\0\0")
        + explicit(name=b"Doe^Jane  ")
        + el(0x00200010, b"SH", b"1 ")
        + el(0xFFFCFFFC, b"OB", bytes(64))
        + bytes(10),
        group_length=0,
    )
    assert verdict(tmp_path, padded, plain) == DUPLICATE
    assert verdict(tmp_path, explicit() + el(0x00200010, b"SH", b"1"), plain) == DUPLICATE


def test_text_is_compared_decoded(tmp_path: Path) -> None:
    one = el(0x00080005, b"CS", b"ISO_IR 100") + explicit(name="Äbc".encode("latin_1") + b" ")
    other = el(0x00080005, b"CS", b"ISO_IR 192") + explicit(name="Äbc".encode())
    assert verdict(tmp_path, raw.part10(one), raw.part10(other)) == DUPLICATE


def test_numbers_as_text_are_compared_as_numbers(tmp_path: Path) -> None:
    one = explicit() + el(0x00280030, b"DS", b"0.50\\1 ")
    other = explicit() + el(0x00280030, b"DS", b"0.5\\1.0 ")
    assert verdict(tmp_path, raw.part10(one), raw.part10(other)) == DUPLICATE


def test_any_differing_value_is_a_conflict_that_names_it(tmp_path: Path) -> None:
    new = encoded(instance(PatientName="Other^Name", SliceThickness=2))
    found = verdict(tmp_path, new, encoded(instance()))
    assert found == Verdict(Outcome.CONFLICT, ("PatientName", "SliceThickness"))


def test_differing_pixels_are_told(tmp_path: Path) -> None:
    ds = instance(rows=400, columns=400)
    other = instance(rows=400, columns=400)
    other.PixelData = ds.PixelData[:-1] + b"\x7f"
    found = verdict(tmp_path, encoded(ds), encoded(other))
    assert found == Verdict(Outcome.CONFLICT, ("PixelData",), pixels_differ=True)


def test_differences_inside_sequences_and_private_elements_are_found(tmp_path: Path) -> None:
    def made(code: bytes, private: bytes, table: bytes) -> bytes:
        sequence = el(0x00081032, b"SQ", item(el(0x00080100, b"SH", code)))
        block = el(0x00090010, b"LO", b"ACME") + el(0x00091001, b"LO", private)
        return raw.part10(sequence + block + explicit() + el(0x00281201, b"OW", table))

    same = made(b"T1", b"ab", bytes(100))
    assert verdict(tmp_path, same, same) == DUPLICATE
    found = verdict(tmp_path, made(b"T2", b"cd", bytes(99) + b"\1"), same)
    assert found.differs == (
        "ProcedureCodeSequence",
        "0009,1001",
        "RedPaletteColorLookupTableData",
    )
    assert not found.pixels_differ


def test_the_same_header_with_pixels_in_another_syntax_is_a_variant(tmp_path: Path) -> None:
    native = instance(BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=bytes(256))
    squeezed = instance(BitsAllocated=8, BitsStored=8, HighBit=7)
    squeezed.PixelData = encapsulate([b"\0" * 90])
    squeezed["PixelData"].is_undefined_length = True
    rle, jpeg = encoded(squeezed, RLELossless), encoded(squeezed, JPEGBaseline8Bit)
    assert verdict(tmp_path, rle, encoded(native)) == VARIANT
    assert verdict(tmp_path, jpeg, rle) == VARIANT
    assert verdict(tmp_path, rle, rle) == DUPLICATE
    native.PatientName = "Else"
    found = verdict(tmp_path, rle, encoded(native))
    assert found.outcome is Outcome.CONFLICT
    assert "PatientName" in found.differs


def test_fragments_may_be_cut_differently(tmp_path: Path) -> None:
    def made(*parts: bytes) -> bytes:
        pixels = el(0x7FE00010, b"OB", length=raw.UNDEFINED) + item(b"")
        return raw.part10(
            explicit() + pixels + b"".join(item(part) for part in parts) + raw.SEQUENCE_END,
            raw.JPEG,
        )

    assert verdict(tmp_path, made(b"abcd", b"efgh"), made(b"abcdefgh")) == DUPLICATE
    found = verdict(tmp_path, made(b"abcd"), made(b"abce"))
    assert found == Verdict(Outcome.CONFLICT, ("PixelData",), pixels_differ=True)


def test_a_damaged_stored_file_is_told_by_the_error(tmp_path: Path) -> None:
    with pytest.raises(Reject):
        verdict(tmp_path, encoded(instance()), encoded(instance())[:-20])
    with pytest.raises(FileNotFoundError):
        compare(CompareRequest(str(tmp_path / "new"), str(tmp_path / "gone")))
