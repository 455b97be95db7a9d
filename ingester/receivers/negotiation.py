"""What the peer proposes, and what we accept of it.

Accepted is C-ECHO and every storage SOP class, private and unknown ones too, in the
transfer syntax the sender prefers, because an archive stores what comes.

The request is read here, item by item: it comes from anybody, PS3.8 wants unknown
items skipped, and AE titles come with characters that DICOM does not allow; pynetdicom
gives all of these up.  The answer is ours alone, and pynetdicom writes it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from ingester import __version__
from ingester.receivers.upper_layer import ProtocolError

#: Ours, made from a UUID (PS3.5 annex B.2).
IMPLEMENTATION_CLASS_UID = "2.25.222857007000333572310830020954945182313"
IMPLEMENTATION_VERSION_NAME = f"INGESTER_{__version__}"[:16]

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"

ACCEPTED = 0
ABSTRACT_SYNTAX_REFUSED = 3
TRANSFER_SYNTAXES_REFUSED = 4

# Item types of PS3.8 section 9.3.2 and PS3.7 annex D.3.3
_APPLICATION_CONTEXT_ITEM = 0x10
_PRESENTATION_CONTEXT_ITEM = 0x20
_ABSTRACT_SYNTAX_ITEM = 0x30
_TRANSFER_SYNTAX_ITEM = 0x40
_USER_INFORMATION_ITEM = 0x50
_MAXIMUM_LENGTH_ITEM = 0x51
_ROLE_SELECTION_ITEM = 0x54

_FIXED = 68  # version, two AE titles and reserved bytes before the items
_MOST_CONTEXTS = 128
_NOT_AN_OBJECT = ("1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2")
_UID = re.compile(r"[0-9]([0-9.]{0,62}[0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Context:
    """One presentation context and what became of it."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    result: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """An association request, read and judged, not yet answered."""

    called_ae_title: str
    calling_ae_title: str
    protocol_version: int
    application_context: str
    max_pdu: int
    contexts: tuple[Context, ...]
    roles: tuple[tuple[str, bool, bool], ...] = ()
    raw_titles: bytes = field(default=b"", repr=False)


def is_storage(abstract_syntax: str) -> bool:
    """Whether objects come under this abstract syntax, as far as anybody can know.

    What the Standard names and calls a storage SOP class is; so is what it does not
    name at all: private classes, and those younger than our dictionary.
    """
    if _UID.fullmatch(abstract_syntax) is None or abstract_syntax in _NOT_AN_OBJECT:
        return False
    uid = UID(abstract_syntax)
    return not uid.type or (uid.type == "SOP Class" and "Storage" in uid.name)


def preferred(transfer_syntaxes: Sequence[str]) -> str | None:
    """Choose among the proposed transfer syntaxes; None where none is a UID.

    The sender's order is kept: what comes first is most often what it has stored.
    But explicit little endian goes before implicit, because private elements then
    keep their VR, and big endian, retired, comes last.
    """
    usable = [each for each in transfer_syntaxes if _UID.fullmatch(each)]
    if not usable:
        return None
    order = [each for each in usable if each != ExplicitVRBigEndian] or usable
    if order[0] == ImplicitVRLittleEndian and ExplicitVRLittleEndian in order:
        return str(ExplicitVRLittleEndian)
    return order[0]


def read_proposal(body: memoryview) -> Proposal:
    """Read an A-ASSOCIATE-RQ (the PDU without its header) and judge its contexts.

    Raises
    ------
    ProtocolError : it cannot be read
    """
    if len(body) < _FIXED:
        raise ProtocolError("association request cut short", reason=6)
    version, called, calling = struct.unpack_from(">H2x16s16s", body)
    application_context = ""
    contexts: list[Context] = []
    max_pdu = 0
    roles: dict[str, bool] = {}
    for kind, value in _items(body[_FIXED:]):
        if kind == _APPLICATION_CONTEXT_ITEM:
            application_context = _text(value)
        elif kind == _PRESENTATION_CONTEXT_ITEM:
            contexts.append(_read_context(value))
        elif kind == _USER_INFORMATION_ITEM:
            for inner, each in _items(value):
                if inner == _MAXIMUM_LENGTH_ITEM and len(each) == 4:
                    max_pdu = int.from_bytes(each, "big")
                elif inner == _ROLE_SELECTION_ITEM:
                    roles.update(_read_role(each))
    if not 1 <= len(contexts) <= _MOST_CONTEXTS:
        raise ProtocolError("association request with too few or too many contexts", reason=6)
    accepted = {each.abstract_syntax for each in contexts if each.result == ACCEPTED}
    return Proposal(
        called_ae_title=_text(called),
        calling_ae_title=_text(calling),
        protocol_version=version,
        application_context=application_context,
        max_pdu=max_pdu,
        contexts=tuple(contexts),
        # The peer may be SCU where it asks to be; we are SCP, so it is not.
        roles=tuple((uid, is_scu, False) for uid, is_scu in roles.items() if uid in accepted),
        raw_titles=called + calling,
    )


def _items(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Take items apart: one byte type, one reserved, two bytes length, value."""
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise ProtocolError("association request malformed", reason=6)
        kind, length = struct.unpack_from(">BxH", data, at)
        if length > len(data) - at - 4:
            raise ProtocolError("association request malformed", reason=6)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length


def _text(raw: bytes | memoryview) -> str:
    return bytes(raw).decode("latin-1").strip(" \0")


def _read_context(value: memoryview) -> Context:
    """Read and judge one presentation context."""
    if len(value) < 4 or not value[0] % 2:
        raise ProtocolError("presentation context malformed", reason=6)
    items = list(_items(value[4:]))
    abstract = next((_text(each) for kind, each in items if kind == _ABSTRACT_SYNTAX_ITEM), "")
    syntaxes = [_text(each) for kind, each in items if kind == _TRANSFER_SYNTAX_ITEM]
    chosen = preferred(syntaxes)
    if abstract != VERIFICATION and not is_storage(abstract):
        result = ABSTRACT_SYNTAX_REFUSED
    else:
        result = ACCEPTED if chosen else TRANSFER_SYNTAXES_REFUSED
    return Context(value[0], abstract, chosen or str(ImplicitVRLittleEndian), result)


def _read_role(value: memoryview) -> dict[str, bool]:
    """Read a role selection: the SOP class, and whether the peer would be its SCU."""
    length = int.from_bytes(value[:2], "big")
    if len(value) != length + 4:
        raise ProtocolError("role selection malformed", reason=6)
    return {_text(value[2 : 2 + length]): bool(value[2 + length])}


def acceptance(proposal: Proposal, max_pdu: int) -> bytes:
    """Write the A-ASSOCIATE-AC."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title = primitive.called_ae_title = "PEER"
    primitive.result = 0
    primitive.presentation_context_definition_results_list = [
        _answer(each) for each in proposal.contexts
    ]
    longest = MaximumLengthNotification()
    longest.maximum_length_received = max_pdu
    uid = ImplementationClassUIDNotification()
    uid.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    name = ImplementationVersionNameNotification()
    name.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive.user_information = [longest, uid, name]
    for sop_class_uid, is_scu, is_scp in proposal.roles:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = sop_class_uid, is_scu, is_scp
        primitive.user_information.append(role)
    reply = A_ASSOCIATE_AC()
    reply.from_primitive(primitive)
    encoded = bytearray(reply.encode())
    encoded[10:42] = proposal.raw_titles  # sent back as they came (PS3.8 table 9-17)
    return bytes(encoded)


def _answer(context: Context) -> PresentationContext:
    answer = PresentationContext()
    answer.context_id = context.context_id
    answer.transfer_syntax = [context.transfer_syntax]
    answer.result = context.result
    return answer
