from __future__ import annotations

import pytest
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.presentation import AllStoragePresentationContexts

from ingester.receivers.negotiation import is_storage, preferred


def test_every_storage_class_is_storage() -> None:
    assert all(is_storage(str(each.abstract_syntax)) for each in AllStoragePresentationContexts)


@pytest.mark.parametrize(
    ("uid", "is_one"),
    [
        ("1.2.840.10008.5.1.4.1.1.6", True),  # retired
        ("1.2.840.10008.5.1.4.1.1.9999", True),  # younger than our dictionary
        ("1.3.12.2.1107.5.9.1", True),  # private
        ("1.2.840.10008.1.20.1", False),  # storage commitment
        ("1.2.840.10008.1.3.10", False),  # a DICOMDIR
        ("1.2.840.10008.5.1.4.31", False),  # worklist
        ("1.2.840.10008.3.1.2.3.3", False),  # MPPS
        ("1.2.840.10008.1.2.1", False),  # a transfer syntax
        ("../../etc", False),
        ("", False),
    ],
)
def test_what_else_is_storage(uid: str, is_one: bool) -> None:
    assert is_storage(uid) == is_one


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([JPEG2000, ExplicitVRLittleEndian], JPEG2000),
        ([ImplicitVRLittleEndian, JPEG2000], ImplicitVRLittleEndian),
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([ExplicitVRBigEndian, ImplicitVRLittleEndian], ImplicitVRLittleEndian),
        ([ExplicitVRBigEndian], ExplicitVRBigEndian),
        (["1.2.3.private"], None),
        (["1.2.3.4"], "1.2.3.4"),
        ([], None),
    ],
)
def test_preferred_transfer_syntax(proposed: list[str], chosen: str | None) -> None:
    assert preferred(proposed) == chosen
