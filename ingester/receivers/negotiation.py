"""What the peer proposes, and what we accept of it.

pynetdicom reads the A-ASSOCIATE-RQ and writes the A-ASSOCIATE-AC (its codec classes
are documented and stable); what is accepted is decided here: C-ECHO and every
storage SOP class, private and unknown ones too, in the transfer syntax the sender
prefers, because an archive stores what comes.  AE titles are read from the PDU by
ourselves: pynetdicom refuses those with characters that DICOM does not allow but
that modalities send.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from ingester import __version__
from ingester.receivers.upper_layer import ASSOCIATE_RQ, ProtocolError, pdu

#: Ours, made from a UUID (PS3.5 annex B.2).
IMPLEMENTATION_CLASS_UID = "2.25.222857007000333572310830020954945182313"
IMPLEMENTATION_VERSION_NAME = f"INGESTER_{__version__}"[:16]

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"

ACCEPTED = 0
ABSTRACT_SYNTAX_REFUSED = 3
TRANSFER_SYNTAXES_REFUSED = 4

_TITLES = slice(4, 36)  # in the PDU's body: called, then calling, 16 bytes each
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


def read_proposal(body: memoryview, other_services: frozenset[str] = frozenset()) -> Proposal:
    """Read an A-ASSOCIATE-RQ and judge its presentation contexts.

    Parameters
    ----------
    body : the PDU without its header
    other_services : abstract syntaxes that are accepted besides (storage commitment)

    Raises
    ------
    ProtocolError : it cannot be read
    """
    if len(body) < 68:
        raise ProtocolError("association request cut short", reason=6)
    titles = bytes(body[_TITLES])
    request = A_ASSOCIATE_RQ()
    plain = bytearray(body)
    plain[_TITLES] = b"PEER".ljust(16) * 2
    try:
        request.decode(pdu(ASSOCIATE_RQ, bytes(plain)))
        primitive = request.to_primitive()
        offered = primitive.presentation_context_definition_list
        contexts = tuple(_judge(context, other_services) for context in offered)
        roles = tuple(_roles(primitive, contexts))
        max_pdu = primitive.maximum_length_received or 0
    except Exception as error:  # pynetdicom raises whatever it trips over
        raise ProtocolError("association request malformed", reason=6) from error
    return Proposal(
        called_ae_title=_title(titles[:16]),
        calling_ae_title=_title(titles[16:]),
        protocol_version=int.from_bytes(body[:2], "big"),
        application_context=str(primitive.application_context_name or ""),
        max_pdu=max_pdu,
        contexts=contexts,
        roles=roles,
        raw_titles=titles,
    )


def _title(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def _judge(offered: PresentationContext, other_services: frozenset[str]) -> Context:
    abstract_syntax = str(offered.abstract_syntax or "")
    syntaxes = [str(each) for each in offered.transfer_syntax]
    chosen = preferred(syntaxes)
    if abstract_syntax == VERIFICATION or abstract_syntax in other_services:
        plain = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
        chosen = next((str(each) for each in plain if each in syntaxes), None)
        result = ACCEPTED if chosen else TRANSFER_SYNTAXES_REFUSED
    elif is_storage(abstract_syntax):
        result = ACCEPTED if chosen else TRANSFER_SYNTAXES_REFUSED
    else:
        result = ABSTRACT_SYNTAX_REFUSED
    spare = chosen or str(ImplicitVRLittleEndian)
    return Context(int(offered.context_id or 0), abstract_syntax, spare, result)


def _roles(primitive: A_ASSOCIATE, contexts: Sequence[Context]) -> list[tuple[str, bool, bool]]:
    """Answer role selection: the peer may be SCU; we are SCP and nothing else."""
    accepted = {each.abstract_syntax for each in contexts if each.result == ACCEPTED}
    return [
        (str(item.sop_class_uid), bool(item.scu_role), False)
        for item in primitive.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid in accepted
    ]


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
