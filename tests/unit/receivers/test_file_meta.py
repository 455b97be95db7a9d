from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ingester.receivers.file_meta import HEAD_BYTES, Identity, identify, preamble_and_meta
from tests import factory

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def data_set(ds: Dataset, syntax: str) -> bytes:
    raw = factory.encoded(ds, syntax)
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


@pytest.mark.parametrize("title", ["CT1", "", "A\\B", "\x1b[2J", "ÜBER", "SIXTEEN_CHARS_OK"])
def test_file_meta_is_read_by_pydicom(title: str) -> None:
    raw = preamble_and_meta(
        sop_class_uid="1.2.3",
        sop_instance_uid="1.2.34",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        calling_ae_title=title,
        receiving_ae_title="INGESTER",
    )
    ds = dcmread(BytesIO(raw + data_set(factory.instance(), ExplicitVRLittleEndian)))
    assert ds.PatientID == "P0001"
    assert ds.file_meta.MediaStorageSOPInstanceUID == "1.2.34"
    sender = ds.file_meta.SendingApplicationEntityTitle
    assert sender == ds.file_meta.SourceApplicationEntityTitle
    if title.isascii() and title.isprintable() and "\\" not in title:
        assert (sender or "") == title


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("declared", SYNTAXES)
def test_identity_in_every_encoding(syntax: str, declared: str) -> None:
    language = Dataset()
    language.CodeValue = "de"
    ds = factory.instance(LanguageCodeSequence=[language], SpecificCharacterSet="ISO_IR 100")
    ds["LanguageCodeSequence"].is_undefined_length = True
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = ds.PixelData[::-1]
    head = data_set(ds, syntax)
    found = identify(head, declared, is_all=True)
    if DeflatedExplicitVRLittleEndian in (syntax, declared) and syntax != declared:
        assert found.sop_instance_uid is None
    else:
        assert found == Identity(ds.SOPClassUID, ds.SOPInstanceUID)


def test_an_identity_behind_a_long_beginning_is_left_open() -> None:
    long = b"\x08\0\x06\0SQ\0\0" + (2 * HEAD_BYTES).to_bytes(4, "little")
    assert identify(long + bytes(HEAD_BYTES), ExplicitVRLittleEndian, is_all=False).is_open
    assert not identify(long + bytes(99), ExplicitVRLittleEndian, is_all=True).is_open


@pytest.mark.parametrize("depth", [1, 64, 20_000])
def test_nesting_is_walked_not_recursed(depth: int) -> None:
    opening = b"\x08\0\x06\0SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    assert identify(opening * depth, ExplicitVRLittleEndian, is_all=True).sop_class_uid is None


@pytest.mark.parametrize("junk", [b"", b"\0", b"\xff" * 300, bytes(300), b"%PDF-1.7 " * 40])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_junk_has_no_identity(junk: bytes, syntax: str) -> None:
    assert identify(junk, syntax, is_all=True).sop_instance_uid is None
