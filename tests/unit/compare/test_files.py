"""Two versions of one UID: what is the same, what only looks different, what differs."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
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

from ingester.compare import CannotCompare, CompareRequest, compare
from ingester.errors import Reject
from ingester.model import Outcome, Verdict
from ingester.prepare import Limits
from tests.factory import encoded, instance
from tests.site import digest
from tests.unit.dicom import raw
from tests.unit.dicom.raw import el, explicit, im, implicit, item

DUPLICATE = Verdict(Outcome.DUPLICATE)
VARIANT = Verdict(Outcome.VARIANT)


def conflict(
    *differs: str,
    pixels_differ: bool | None = False,
    patient_differs: bool = False,
    study_differs: bool = False,
) -> Verdict:
    return Verdict(Outcome.CONFLICT, differs, pixels_differ, patient_differs, study_differs)


def verdict(tmp_path: Path, new: bytes, old: bytes, **request: Any) -> Verdict:
    """Compare both ways: which of them came first never matters."""
    (tmp_path / "new").write_bytes(new)
    (tmp_path / "old").write_bytes(old)
    found = asked(tmp_path / "new", tmp_path / "old", **request)
    swapped = {f"old_{key}".replace("old_old_", ""): value for key, value in request.items()}
    assert asked(tmp_path / "old", tmp_path / "new", **swapped) == found
    return found


def asked(new: Path, old: Path, **request: Any) -> Verdict:
    question = CompareRequest(str(new), str(old), **request)
    return compare(pickle.loads(pickle.dumps(question)))


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


# -- what does not count -----------------------------------------------------------------


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


def test_lengths_of_sequences_and_items_do_not_count(tmp_path: Path) -> None:
    code = el(0x00080100, b"SH", b"T1")
    one = el(0x00081032, b"SQ", item(code) + item())
    other = raw.open_sequence(0x00081032, raw.open_item(code), item())
    assert (
        verdict(tmp_path, raw.part10(one + explicit()), raw.part10(other + explicit())) == DUPLICATE
    )


#: (VR, a value, the same one written otherwise)
SAME = [
    (b"LO", b"abc", b"abc "),
    (b"LO", b" abc", b"abc"),
    (b"LO", b"a\\b ", b"a \\b"),
    (b"UI", b"1.2.3\0", b"1.2.3"),
    (b"UI", b"1.2.3 ", b"1.2.3\0"),
    (b"LT", b"a line ", b"a line"),
    (b"DS", b"1.50", b"1.5 "),
    (b"DS", b"0.50\\1 ", b"+.5\\1.0e0"),
    (b"IS", b"007 ", b"7 "),
    (b"PN", b"Doe^Jane", b"Doe^Jane^^^"),
    (b"PN", b"Doe^Jane==", b"Doe^Jane"),
    (b"OB", b"\1\2\3", b"\1\2\3\0"),
    (b"LO", b"", b"  "),
]


@pytest.mark.parametrize(("vr", "one", "other"), SAME)
def test_padding_and_the_writing_of_numbers_and_names_do_not_count(
    tmp_path: Path, vr: bytes, one: bytes, other: bytes
) -> None:
    def made(value: bytes) -> bytes:
        private = el(0x00090010, b"LO", b"ACME") + el(0x00091001, vr, value)
        inside = el(0x00081115, b"SQ", item(private))
        return raw.part10(inside + private + explicit())

    assert verdict(tmp_path, made(one), made(other)) == DUPLICATE


#: (VR, a value, another one that looks alike)
OTHER = [
    (b"LT", b" a", b"a "),
    (b"LT", b"a\\ b", b"a\\b "),
    (b"UC", b"a\\ b", b"a\\b "),
    (b"CS", b"AB", b"ab"),
    (b"LO", b"a\\", b"a "),
    (b"LO", b"a  b", b"a b "),
    (b"DS", b"1.5 ", b"1.51"),
    (b"DS", b"9007199254740993", b"9007199254740992"),
    (b"DS", b"1,5 ", b"1.5 "),
    (b"DS", b"nan ", b"NaN "),
    (b"PN", b"Doe^Jane", b"doe^jane"),
    (b"PN", b"^Jane ", b"Jane"),
    (b"DA", b"20240101", b"2024.01.01"),
    (b"TM", b"101530", b"101530.000"),
    (b"OB", b"\1\0\0\0", b"\1\0"),
    (b"OB", b"\1\2", b"\1\2\0\0"),
    (b"FL", b"\0\0\0\0", b"\0\0\0\x80"),
    (b"AT", b"\x10\0\x20\0", b"\x20\0\x10\0"),
]


@pytest.mark.parametrize(("vr", "one", "other"), OTHER)
def test_what_only_looks_alike_differs(tmp_path: Path, vr: bytes, one: bytes, other: bytes) -> None:
    def made(value: bytes) -> bytes:
        return raw.part10(explicit() + el(0x00290010, b"LO", b"ACME") + el(0x00291001, vr, value))

    assert verdict(tmp_path, made(one), made(other)) == conflict("ACME:0029xx01")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"ISO_IR 100", "Äbc".encode("latin_1")), (b"ISO_IR 192", "Äbc".encode())),
        ((b"", b"Abc"), (b"ISO_IR 192", b"Abc")),
        ((b"ISO_IR 6", b"Abc"), (b"", b"Abc")),
        ((b"\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B^"), (b"ISO_IR 192", "山田".encode())),
    ],
)
def test_text_is_compared_decoded(
    tmp_path: Path, one: tuple[bytes, bytes], other: tuple[bytes, bytes]
) -> None:
    def made(character_set: bytes, name: bytes) -> bytes:
        head = el(0x00080005, b"CS", raw.even(character_set)) if character_set else b""
        return raw.part10(head + explicit(name=raw.even(name)))

    assert verdict(tmp_path, made(*one), made(*other)) == DUPLICATE


def test_what_no_character_set_explains_must_be_the_same_bytes(tmp_path: Path) -> None:
    def made(character_set: bytes, name: bytes) -> bytes:
        return raw.part10(el(0x00080005, b"CS", character_set) + explicit(name=name))

    # Neither byte exists in Latin alphabet No. 3: both would be shown as the same sign.
    one, other = made(b"ISO_IR 109", b"A\xa5"), made(b"ISO_IR 109", b"A\xae")
    assert verdict(tmp_path, one, one) == DUPLICATE
    assert verdict(tmp_path, one, other) == conflict("PatientName", patient_differs=True)
    # The same bytes in another set are other text.
    latin, greek = made(b"ISO_IR 100", b"A\xe1"), made(b"ISO_IR 126", b"A\xe1")
    assert verdict(tmp_path, latin, greek) == conflict("PatientName", patient_differs=True)


def test_a_character_set_by_configuration_counts_for_the_file_it_was_made_for(
    tmp_path: Path,
) -> None:
    silent = raw.part10(explicit(name=b"M\xfcller"))
    told = raw.part10(
        el(0x00080005, b"CS", b"ISO_IR 192") + explicit(name="Müller".encode() + b" ")
    )
    assert verdict(tmp_path, silent, told, character_set="ISO_IR 100") == DUPLICATE
    found = verdict(tmp_path, silent, told, old_character_set="ISO_IR 100")
    assert found == conflict("PatientName", patient_differs=True)


def test_private_elements_meet_by_their_creator_not_by_its_block(tmp_path: Path) -> None:
    def made(first: bytes, second: bytes, *elements: bytes) -> bytes:
        creators = el(0x00290010, b"LO", first) + el(0x00290011, b"LO", second)
        return raw.part10(explicit() + creators + b"".join(elements))

    one = made(b"ACME", b"OTHR", el(0x00291001, b"LO", b"aa"), el(0x00291101, b"LO", b"bb"))
    other = made(b"OTHR", b"ACME", el(0x00291001, b"LO", b"bb"), el(0x00291101, b"LO", b"aa"))
    assert verdict(tmp_path, one, other) == DUPLICATE
    third = made(b"ACME", b"OTHR", el(0x00291001, b"LO", b"bb"), el(0x00291101, b"LO", b"aa"))
    assert verdict(tmp_path, third, one) == conflict("ACME:0029xx01", "OTHR:0029xx01")


def test_an_empty_private_creator_is_none_and_another_one_is_told(tmp_path: Path) -> None:
    plain = explicit()
    empty = raw.part10(plain + el(0x00290010, b"LO"))
    assert verdict(tmp_path, raw.part10(plain), empty) == DUPLICATE
    idle = raw.part10(plain + el(0x00290010, b"LO", b"ACME"))
    assert verdict(tmp_path, raw.part10(plain), idle) == conflict("00290010")


def test_who_writes_more_than_a_creator_may_have_is_not_quoted(tmp_path: Path) -> None:
    def made(value: bytes) -> bytes:
        creator = el(0x00290010, b"LO", b"x" * 200)
        return raw.part10(explicit() + creator + el(0x00291001, b"LO", value))

    assert verdict(tmp_path, made(b"aa"), made(b"bb")) == conflict("00291001")


# -- value representations that differ ---------------------------------------------------

CREATOR = (0x00290010, b"LO", b"ACME")


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        (b"US", struct.pack("<40H", *range(40))),
        (b"US", b"\1\2"),
        (b"FD", struct.pack("<d", 2.5)),
        (b"LO", b"text"),
        (b"LT", b"a long text " * 10),
        (b"DS", b"1.5\\2.5 "),
        (b"OB", bytes(range(100))),
        (b"OB", b"\xfe\xff\x00\xe0\0\0\0\0" * 9),
        (b"AT", b"\x10\0\x20\0"),
    ],
)
def test_what_an_implicit_file_knows_no_vr_for_is_the_same(
    tmp_path: Path, vr: bytes, value: bytes
) -> None:
    with_vr = raw.part10(explicit() + el(*CREATOR) + el(0x00291001, vr, value))
    without = raw.part10(
        implicit() + im(CREATOR[0], CREATOR[2]) + im(0x00291001, value), raw.IMPLICIT
    )
    unknown = raw.part10(explicit() + el(*CREATOR) + el(0x00291001, b"UN", value))
    assert verdict(tmp_path, with_vr, without) == DUPLICATE
    assert verdict(tmp_path, unknown, without) == DUPLICATE
    assert verdict(tmp_path, unknown, with_vr) == DUPLICATE


def test_a_private_sequence_in_implicit_encoding_is_one_all_the_same(tmp_path: Path) -> None:
    inside = el(0x00290010, b"LO", b"ACME") + el(0x00291002, b"LO", b"ab")
    inner = im(0x00290010, b"ACME") + im(0x00291002, b"ab")
    one = raw.part10(explicit() + el(*CREATOR) + el(0x00291001, b"SQ", item(inside)))
    other = raw.part10(
        implicit() + im(CREATOR[0], CREATOR[2]) + im(0x00291001, item(inner)), raw.IMPLICIT
    )
    assert verdict(tmp_path, one, other) == DUPLICATE
    changed = raw.part10(
        implicit() + im(CREATOR[0], CREATOR[2]) + im(0x00291001, item(inner.replace(b"ab", b"ac"))),
        raw.IMPLICIT,
    )
    assert verdict(tmp_path, one, changed) == conflict("ACME:0029xx01/ACME:0029xx02")


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ((b"US", b"\1\0"), (b"SS", b"\1\0"), True),
        ((b"US", b"\1\x80"), (b"SS", b"\1\x80"), False),
        ((b"UL", b"\0\0\x80\x3f"), (b"FL", b"\0\0\x80\x3f"), False),
        ((b"US", b"AB"), (b"CS", b"AB"), False),
        ((b"OB", b"AB"), (b"CS", b"AB"), True),
        ((b"OB", b"AB"), (b"CS", b"AC"), False),
        ((b"SH", b"a "), (b"LO", b"a"), True),
        ((b"LO", b""), (b"SQ", b""), True),
        ((b"LO", b"ab"), (b"SQ", item()), False),
    ],
)
def test_the_vr_itself_may_be_wrong_but_not_the_value(
    tmp_path: Path, one: tuple[bytes, bytes], other: tuple[bytes, bytes], is_same: bool
) -> None:
    def made(vr: bytes, value: bytes) -> bytes:
        return raw.part10(explicit() + el(*CREATOR) + el(0x00291001, vr, value))

    expected = DUPLICATE if is_same else conflict("ACME:0029xx01")
    assert verdict(tmp_path, made(*one), made(*other)) == expected


@pytest.mark.parametrize("own", [b"OB", b"OW"])
def test_big_endian_words_are_turned_by_their_own_vr(tmp_path: Path, own: bytes) -> None:
    pixels = bytes(range(256)) * 2
    little = explicit() + el(0x7FE00010, b"OW", pixels)
    content = pixels if own == b"OB" else swapped(pixels)
    big = explicit(">") + el(0x7FE00010, own, content, order=">")
    assert verdict(tmp_path, raw.part10(little), raw.part10(big, raw.BIG)) == DUPLICATE


# -- conflicts and their names -----------------------------------------------------------


def test_any_differing_value_is_a_conflict_that_names_it(tmp_path: Path) -> None:
    new = encoded(instance(PatientName="Other^Name", SliceThickness=2))
    found = verdict(tmp_path, new, encoded(instance()))
    assert found == conflict("PatientName", "SliceThickness", patient_differs=True)


def changed(keyword: str, value: str) -> bytes:
    ds = instance()
    setattr(ds, keyword, value)
    return encoded(ds)


def test_another_patient_and_another_study_are_told_apart_from_the_rest(tmp_path: Path) -> None:
    old = encoded(instance())
    for keyword, value in [
        ("PatientID", "X"),
        ("IssuerOfPatientID", "X"),
        ("PatientBirthDate", "19710101"),
    ]:
        found = verdict(tmp_path, changed(keyword, value), old)
        assert found == conflict(keyword, patient_differs=True)
    for keyword, value in [
        ("StudyInstanceUID", "1.2.3"),
        ("StudyID", "X"),
        ("StudyDate", "20230101"),
        ("StudyTime", "1015"),
        ("AccessionNumber", "X"),
    ]:
        found = verdict(tmp_path, changed(keyword, value), old)
        assert found == conflict(keyword, study_differs=True)
    for keyword, value in [("PatientSex", "F"), ("StudyDescription", "X"), ("SeriesNumber", "9")]:
        assert verdict(tmp_path, changed(keyword, value), old) == conflict(keyword)
    inside = instance()
    inside.ReferencedPatientSequence = [instance()]
    other = instance()
    other.ReferencedPatientSequence = [instance(PatientName="Other")]
    found = verdict(tmp_path, encoded(inside), encoded(other))
    assert found == conflict("ReferencedPatientSequence/PatientName")


def test_an_element_more_or_less_or_empty_is_told(tmp_path: Path) -> None:
    absent, empty, there = (
        encoded(instance(PatientComments=value)) for value in (None, "", "rather tall")
    )
    expected = conflict("PatientComments")
    assert verdict(tmp_path, absent, empty) == expected
    assert verdict(tmp_path, absent, there) == expected
    assert verdict(tmp_path, empty, there) == expected


def test_differences_inside_sequences_are_told_by_their_path(tmp_path: Path) -> None:
    def made(*codes: str, scheme: str = "S") -> bytes:
        ds = instance()
        ds.RequestAttributesSequence = [Dataset()]
        step = ds.RequestAttributesSequence[0]
        step.ScheduledProcedureStepID = codes[0]
        step.ScheduledProtocolCodeSequence = [Dataset() for _ in codes]
        for code, each in zip(codes, step.ScheduledProtocolCodeSequence, strict=True):
            each.CodeValue, each.CodingSchemeDesignator = code, scheme
        return encoded(ds)

    step = "RequestAttributesSequence/ScheduledProcedureStepID"
    codes = "RequestAttributesSequence/ScheduledProtocolCodeSequence"
    old = made("1", "2")
    assert verdict(tmp_path, made("1", "2"), old) == DUPLICATE
    assert verdict(tmp_path, made("1", "3"), old) == conflict(f"{codes}/CodeValue")
    assert verdict(tmp_path, made("1"), old) == conflict(codes)
    found = verdict(tmp_path, made("5", "6", scheme="T"), old)
    assert found == conflict(f"{codes}/CodeValue", f"{codes}/CodingSchemeDesignator", step)


def test_every_value_of_a_tag_that_stands_twice_counts(tmp_path: Path) -> None:
    def made(*comments: bytes) -> bytes:
        twice = b"".join(el(0x00104000, b"LT", each) for each in comments)
        return raw.part10(explicit() + twice)

    old = made(b"aa", b"bb")
    assert verdict(tmp_path, made(b"aa", b"bb"), old) == DUPLICATE
    assert verdict(tmp_path, made(b"aa", b"cc"), old) == conflict("PatientComments")
    assert verdict(tmp_path, made(b"aa"), old) == conflict("PatientComments")


def test_no_more_names_are_told_than_anybody_reads(tmp_path: Path) -> None:
    def made(value: bytes, name: bytes) -> bytes:
        many = b"".join(el(0x00080100 + 2 * each, b"UN", value) for each in range(1, 300))
        return raw.part10(many + explicit(name=name))

    found = verdict(tmp_path, made(b"aa", b"Doe "), made(b"bb", b"Roe "))
    assert len(found.differs) == 64
    assert "PatientName" not in found.differs
    assert found.patient_differs


def test_differing_pixels_are_told(tmp_path: Path) -> None:
    ds = instance(rows=400, columns=400)
    other = instance(rows=400, columns=400)
    other.PixelData = ds.PixelData[:-1] + b"\x7f"
    found = verdict(tmp_path, encoded(ds), encoded(other))
    assert found == conflict("PixelData", pixels_differ=True)
    other.PixelData = ds.PixelData[:200_000] + b"\x7f" + ds.PixelData[200_001:]
    found = verdict(tmp_path, encoded(ds), encoded(other))
    assert found == conflict("PixelData", pixels_differ=True)
    found = verdict(tmp_path, encoded(ds), encoded(instance(rows=400, columns=400, PixelData=None)))
    assert found == conflict("PixelData", pixels_differ=True)


# -- pixels in another transfer syntax ---------------------------------------------------


def colour(syntax: str = ExplicitVRLittleEndian, **overrides: Any) -> bytes:
    """Return a colour image; its pixels are a stand-in where they are compressed."""
    ds = instance(BitsAllocated=8, BitsStored=8, HighBit=7, SamplesPerPixel=3)
    ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 0
    ds.PixelData = bytes(768)
    if syntax != ExplicitVRLittleEndian:
        ds.PixelData = encapsulate([bytes(90)])
        ds["PixelData"].is_undefined_length = True
    for keyword, value in overrides.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return encoded(ds, syntax)


def test_the_same_header_with_pixels_in_another_syntax_is_a_variant(tmp_path: Path) -> None:
    native, rle, jpeg = colour(), colour(RLELossless), colour(JPEGBaseline8Bit)
    assert verdict(tmp_path, rle, native) == VARIANT
    assert verdict(tmp_path, jpeg, rle) == VARIANT
    assert verdict(tmp_path, rle, rle) == DUPLICATE


def test_what_an_encoding_forces_upon_the_header_is_part_of_it(tmp_path: Path) -> None:
    ycbcr = colour(JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    assert verdict(tmp_path, ycbcr, colour()) == VARIANT
    assert verdict(tmp_path, colour(RLELossless, PlanarConfiguration=1), colour()) == VARIANT
    assert verdict(tmp_path, colour(RLELossless, PlanarConfiguration=None), colour()) == VARIANT
    # Not so where the pixels are written the same way, or would look otherwise.
    found = verdict(tmp_path, colour(PlanarConfiguration=1), colour())
    assert found == conflict("PlanarConfiguration")
    found = verdict(
        tmp_path, colour(RLELossless, PhotometricInterpretation="MONOCHROME1"), colour()
    )
    assert found == conflict("PhotometricInterpretation", pixels_differ=None)


def test_another_header_is_a_conflict_whatever_the_pixels_are(tmp_path: Path) -> None:
    found = verdict(tmp_path, colour(RLELossless, PatientName="Else"), colour())
    assert found == conflict("PatientName", pixels_differ=None, patient_differs=True)
    lossy = colour(
        JPEGBaseline8Bit, LossyImageCompression="01", LossyImageCompressionMethod="ISO_10918_1"
    )
    found = verdict(tmp_path, lossy, colour())
    assert found == conflict(
        "LossyImageCompression", "LossyImageCompressionMethod", pixels_differ=None
    )


def test_pixels_that_only_one_of_them_has_are_no_variant(tmp_path: Path) -> None:
    expected = conflict("PixelData", pixels_differ=True)
    without = colour(RLELossless, PixelData=None)
    assert verdict(tmp_path, without, colour()) == expected
    empty = instance(BitsAllocated=8, BitsStored=8, HighBit=7, SamplesPerPixel=3)
    empty.PhotometricInterpretation, empty.PlanarConfiguration = "RGB", 0
    empty.PixelData = b""
    assert verdict(tmp_path, colour(RLELossless), encoded(empty)) == expected


def test_an_icon_may_be_compressed_with_its_image(tmp_path: Path) -> None:
    def made(syntax: str, icon: bytes, name: str = "A") -> bytes:
        inside = Dataset()
        inside.PhotometricInterpretation, inside.PixelData = name, icon
        inside["PixelData"].VR = "OB"
        inside["PixelData"].is_undefined_length = icon.startswith(b"\xfe\xff")
        return colour(syntax, IconImageSequence=[inside])

    plain, squeezed = bytes(64), encapsulate([bytes(20)])
    native = made(ExplicitVRLittleEndian, plain)
    assert verdict(tmp_path, made(RLELossless, squeezed), native) == VARIANT
    assert verdict(tmp_path, made(RLELossless, plain), native) == VARIANT
    found = verdict(tmp_path, made(RLELossless, b"\1" + plain[1:]), native)
    assert found == conflict("IconImageSequence/PixelData", pixels_differ=None)


def test_fragments_may_be_cut_differently(tmp_path: Path) -> None:
    def made(*parts: bytes) -> bytes:
        pixels = el(0x7FE00010, b"OB", length=raw.UNDEFINED) + item(b"")
        return raw.part10(
            explicit() + pixels + b"".join(item(part) for part in parts) + raw.SEQUENCE_END,
            raw.JPEG,
        )

    assert verdict(tmp_path, made(b"abcd", b"efgh"), made(b"abcdefgh")) == DUPLICATE
    found = verdict(tmp_path, made(b"abcd"), made(b"abce"))
    assert found == conflict("PixelData", pixels_differ=True)


# -- stored files that cannot be compared ------------------------------------------------


def is_lost(new: Path, old: Path, **request: Any) -> bool:
    with pytest.raises(CannotCompare) as raised:
        asked(new, old, **request)
    return pickle.loads(pickle.dumps(raised.value)).is_lost is raised.value.is_lost is True


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_bytes(encoded(instance(SeriesNumber=2)))
    old.write_bytes(encoded(instance()))
    return new, old


def test_a_stored_file_that_is_not_what_was_archived_is_no_witness(pair: tuple[Path, Path]) -> None:
    new, old = pair
    sha256 = digest(old)
    assert asked(new, old, old_sha256=sha256) == conflict("SeriesNumber")
    old.write_bytes(new.read_bytes())
    assert asked(new, old) == DUPLICATE
    assert is_lost(new, old, old_sha256=sha256)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.rename(path.with_name("aside"))
    make(path)


@pytest.mark.parametrize(
    "harm",
    [
        lambda old: old.unlink(),
        lambda old: os.truncate(old, 200),
        lambda old: old.write_bytes(b"not an image"),
        lambda old: instead(old, Path.mkdir),
        lambda old: instead(old, os.mkfifo),
        lambda old: instead(old, lambda path: path.symlink_to("aside")),
    ],
)
def test_a_stored_file_that_is_gone_or_damaged_is_told(
    pair: tuple[Path, Path], harm: Callable[[Path], object]
) -> None:
    new, old = pair
    sha256 = digest(old)
    harm(old)
    assert is_lost(new, old)
    assert is_lost(new, old, old_sha256=sha256)


def test_a_stored_file_beyond_limits_that_were_lowered_since_is_not_lost(
    pair: tuple[Path, Path],
) -> None:
    new, old = pair
    old.write_bytes(encoded(large()))
    with pytest.raises(CannotCompare) as raised:
        asked(new, old, old_sha256=digest(old), limits=Limits(nesting=0))
    assert not raised.value.is_lost


def test_a_new_file_that_is_no_longer_what_was_read_is_told_by_the_error(
    pair: tuple[Path, Path],
) -> None:
    new, old = pair
    new.write_bytes(new.read_bytes()[:-20])
    with pytest.raises(Reject):
        asked(new, old)
    new.unlink()
    with pytest.raises(FileNotFoundError):
        asked(new, old)


# -- hostile files -----------------------------------------------------------------------


def test_the_deepest_nesting_that_is_allowed_can_be_compared(tmp_path: Path) -> None:
    def made(code: bytes) -> bytes:
        nested = el(0x00080100, b"SH", code)
        for _ in range(128):
            nested = raw.open_sequence(0x00081115, raw.open_item(nested))
        return raw.part10(nested + explicit())

    limits = Limits(nesting=1000)
    (tmp_path / "new").write_bytes(made(b"aa"))
    (tmp_path / "old").write_bytes(made(b"bb"))
    found = asked(tmp_path / "new", tmp_path / "old", limits=limits)
    assert found == conflict("/".join(["ReferencedSeriesSequence"] * 128 + ["CodeValue"]))


def test_sequences_and_values_in_places_where_nobody_expects_them(tmp_path: Path) -> None:
    for tag in (0x00280004, 0x00280006, 0x00080005, 0x00290010, 0x7FE00010):
        odd = raw.part10(
            el(0x00080005, b"SQ", item(el(0x00080100, b"SH", b"aa")))
            + explicit()
            + el(tag, b"SQ", item(el(0x00080100, b"SH", b"aa"))),
            raw.JPEG,
        )
        plain = raw.part10(explicit() + el(tag, b"UN", b"aa"))
        assert verdict(tmp_path, odd, odd) == DUPLICATE
        assert verdict(tmp_path, odd, plain).outcome is Outcome.CONFLICT
