from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.presentation import AllStoragePresentationContexts

from ingester.receivers.negotiation import acceptance, is_storage, preferred, read_proposal
from ingester.receivers.upper_layer import ProtocolError
from tests.unit.receivers.wire import CT, EXPLICIT, associate_rq, item, user_information


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


def test_unknown_items_are_skipped() -> None:
    request = associate_rq(user=user_information(extra=item(0x7F, b"new") + item(0x55, b"")))
    request += item(0x66, b"whatever")
    proposal = read_proposal(memoryview(request)[6:])
    assert [each.result for each in proposal.contexts] == [0]
    assert proposal.max_pdu == 16384
    assert proposal.calling_ae_title == "RAW"


def test_role_selection_leaves_us_the_scp() -> None:
    role = item(0x54, len(CT).to_bytes(2, "big") + CT.encode() + b"\1\1")
    other = item(0x54, b"\0\3" + b"1.2" + b"\1\0")
    request = associate_rq(user=user_information(extra=role + other))
    proposal = read_proposal(memoryview(request)[6:])
    assert proposal.roles == ((CT, True, False),)
    answer = A_ASSOCIATE_AC()
    answer.decode(acceptance(proposal, 131072))
    assert answer.to_primitive().maximum_length_received == 131072
    assert answer.user_information is not None
    roles = answer.user_information.role_selection
    assert {str(uid): (each.scu_role, each.scp_role) for uid, each in roles.items()} == {
        CT: (True, False)
    }


@pytest.mark.parametrize("contexts", [[], [(2, CT, (EXPLICIT,))]])
def test_contexts_that_cannot_be(contexts: list[tuple[int, str, tuple[str, ...]]]) -> None:
    with pytest.raises(ProtocolError):
        read_proposal(memoryview(associate_rq(contexts))[6:])


@given(st.binary(max_size=400), st.integers(0, 300))
def test_no_request_does_more_than_be_refused(noise: bytes, at: int) -> None:
    request = bytearray(associate_rq())
    request[6 + at : 6 + at + len(noise)] = noise
    try:
        proposal = read_proposal(memoryview(bytes(request))[6:])
    except ProtocolError:
        return
    acceptance(proposal, 131072)
