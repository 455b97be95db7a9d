"""The recorded header, where the file is lost: what it can tell, and what it cannot."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ingester.compare import HeaderRequest, compare_headers
from ingester.dicom.header import read_header
from ingester.model import Outcome, Verdict
from tests.factory import encoded, instance

DUPLICATE = Verdict(Outcome.DUPLICATE)
VARIANT = Verdict(Outcome.VARIANT)
#: Nothing differs, but not everything could be compared.
UNKNOWN = Verdict(Outcome.CONFLICT, pixels_differ=None)


@pytest.fixture
def attributes(tmp_path: Path) -> Any:
    """Return what the index records of a data set."""

    def read(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> str:
        path = tmp_path / "object"
        path.write_bytes(encoded(ds, syntax))
        return read_header(str(path)).attributes

    return read


def verdict(new: str, old: str, *, is_other_syntax: bool = False) -> Verdict:
    request = pickle.loads(pickle.dumps(HeaderRequest(new, old, is_other_syntax)))
    found = compare_headers(request)
    assert compare_headers(HeaderRequest(old, new, is_other_syntax)) == found
    return found


def report(**overrides: Any) -> Dataset:
    """An object without anything long."""
    ds = instance(PixelData=None, **overrides)
    code = Dataset()
    code.CodeValue, code.CodeMeaning = "T1", "Liver"
    ds.ProcedureCodeSequence = Sequence([code])
    ds.PixelSpacing = [0.5, 0.25]
    return ds


def test_an_object_without_anything_long_is_known_by_its_header(attributes: Any) -> None:
    old = attributes(report())
    assert verdict(attributes(report()), old) == DUPLICATE
    assert verdict(attributes(report(), ImplicitVRLittleEndian), old) == DUPLICATE
    assert verdict(attributes(report(PatientName="Family1^Given1^^")), old) == DUPLICATE


def test_file_meta_and_how_it_is_written_do_not_count(attributes: Any) -> None:
    old = json.loads(attributes(report()))
    new = dict(old, SpecificCharacterSet=["ISO_IR 192"], SourceApplicationEntityTitle="CT1")
    new |= {"00080000": 12, "00290010": None, "DataSetTrailingPadding": {"bytes": 900}}
    assert verdict(json.dumps(new), json.dumps(old)) == DUPLICATE


def test_what_differs_is_told_by_its_path(attributes: Any) -> None:
    old = attributes(report())
    other = report(PatientName="Else", AccessionNumber=None)
    other.ProcedureCodeSequence[0].CodeMeaning = "Spleen"
    assert verdict(attributes(other), old) == Verdict(
        Outcome.CONFLICT,
        ("AccessionNumber", "ProcedureCodeSequence/CodeMeaning", "PatientName"),
        patient_differs=True,
        study_differs=True,
    )


def test_pixels_that_cannot_be_compared_are_never_the_same(attributes: Any) -> None:
    old = attributes(instance())
    assert verdict(attributes(instance()), old) == UNKNOWN
    assert verdict(attributes(instance(rows=32)), old) == Verdict(
        Outcome.CONFLICT, ("Rows", "PixelData"), pixels_differ=True
    )


def test_pixels_in_another_transfer_syntax_are_a_variant_by_the_header_alone(
    attributes: Any,
) -> None:
    old = attributes(instance())
    new = dict(json.loads(old), PixelData={"bytes": 90})
    assert verdict(json.dumps(new), old, is_other_syntax=True) == VARIANT
    new["SeriesDescription"] = "Else"
    assert verdict(json.dumps(new), old, is_other_syntax=True) == Verdict(
        Outcome.CONFLICT, ("SeriesDescription",), pixels_differ=None
    )


@pytest.mark.parametrize(
    "member",
    [
        {"RedPaletteColorLookupTableData": {"bytes": 512}},
        {"ReferencedImageSequence": {"items": 900}},
        {"StudyDescription": "Thorax \ufffd"},
        {"ProcedureCodeSequence": [{"00291001": {"bytes": 100}}]},
    ],
)
def test_whatever_else_the_index_did_not_keep_is_unknown(
    attributes: Any, member: dict[str, Any]
) -> None:
    new = json.dumps(json.loads(attributes(report())) | member)
    assert verdict(new, new) == UNKNOWN
    image = json.dumps(json.loads(attributes(instance())) | member)
    assert verdict(image, image, is_other_syntax=True) == UNKNOWN


def test_a_private_element_whose_vr_one_encoding_does_not_know_is_unknown(
    attributes: Any,
) -> None:
    def private(text: str) -> Dataset:
        ds = report()
        ds.private_block(0x0029, "ACME", create=True).add_new(1, "SH", text)
        return ds

    old = attributes(private("ab"))
    assert verdict(attributes(private("ab")), old) == DUPLICATE
    assert verdict(attributes(private("ab"), ImplicitVRLittleEndian), old) == UNKNOWN
    assert verdict(attributes(private("ac")), old) == Verdict(Outcome.CONFLICT, ("ACME:0029xx01",))


def test_a_sign_or_a_table_that_one_encoding_leaves_open_is_unknown(attributes: Any) -> None:
    # As vendors write it: unsigned, where the pixels are signed.
    def image(padding: int, table: list[int]) -> Dataset:
        ds = report(PixelRepresentation=1)
        ds.add_new(0x00280120, "US", padding)
        item = Dataset()
        item.add_new(0x00283002, "US", [len(table), 63536, 16])
        item.add_new(0x00283006, "US", table)
        ds.ModalityLUTSequence = Sequence([item])
        return ds

    old = attributes(image(63536, [1, 2, 3]))
    assert verdict(attributes(image(63536, [1, 2, 3])), old) == DUPLICATE
    assert verdict(attributes(image(63536, [1, 2, 3]), ImplicitVRLittleEndian), old) == UNKNOWN
    other = attributes(image(63537, [1, 2, 3]), ImplicitVRLittleEndian)
    assert verdict(other, old) == Verdict(Outcome.CONFLICT, ("PixelPaddingValue",))
    assert verdict(attributes(image(63536, [1, 2])), old).differs == (
        "ModalityLUTSequence/LUTDescriptor",
        "ModalityLUTSequence/LUTData",
    )
