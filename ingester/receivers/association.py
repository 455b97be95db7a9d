"""One association, from the TCP connection to its end, in one thread.

    handshake (TLS)  ->  request read and judged  ->  accepted or rejected
    C-ECHO           ->  0000
    C-STORE          ->  streamed into a `Landing`, compared with the command,
                         durable, 0000; or nothing kept and a failure that is true
    release, abort, silence, nonsense  ->  closed, nothing half-written left

One thread reads, writes and answers, in order: DICOM has one message in flight
unless more was negotiated, and we never negotiate more.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from ingester.archive import escape_source
from ingester.receivers import command as dimse
from ingester.receivers import upper_layer
from ingester.receivers.admission import Admission, Census, Peer, Room, subjects
from ingester.receivers.command import Command
from ingester.receivers.landing import Shelf
from ingester.receivers.negotiation import (
    ACCEPTED,
    APPLICATION_CONTEXT,
    VERIFICATION,
    Context,
    Proposal,
    acceptance,
    read_proposal,
)
from ingester.receivers.settings import ScpSettings
from ingester.receivers.storing import CANNOT_UNDERSTAND, SUCCESS, Refused, Storing
from ingester.receivers.tally import Tally
from ingester.receivers.upper_layer import Fragment, Link, PeerGone, ProtocolError

_log = logging.getLogger(__name__)

UNRECOGNISED_OPERATION = 0x0211

# A-ASSOCIATE-RJ: result, source, reason (PS3.8 table 9-21)
_NO_SUCH_PROTOCOL = (1, 2, 2)
_NO_SUCH_APPLICATION_CONTEXT = (1, 1, 2)
_CALLING_AE_TITLE_NOT_RECOGNISED = (1, 1, 3)
_CALLED_AE_TITLE_NOT_RECOGNISED = (1, 1, 7)
_TEMPORARY_CONGESTION = (2, 3, 1)
_LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class House:
    """What all associations of a process share."""

    settings: ScpSettings
    shelf: Shelf
    admission: Admission
    census: Census
    room: Room
    tally: Tally
    tls: ssl.SSLContext | None
    new_id: Callable[[], str]


@dataclass(slots=True)
class _Message:
    """A DIMSE message that is coming in."""

    context: Context
    command: Command | None = None
    storing: Storing | Refused | None = None


class Association:
    """A peer's connection; `run` is its thread."""

    def __init__(self, house: House, connection: socket.socket, address: str) -> None:
        self._house = house
        self._settings = house.settings
        self._socket = connection
        self._address = address
        self._link: Link | None = None
        self._association_id = ""
        self._source = ""
        self._calling_ae_title = ""
        self._peer_max_pdu = 0
        self._contexts: dict[int, Context] = {}
        self._message: _Message | None = None
        self._command = bytearray()
        self._count = 0
        self._is_stopping = False
        self._is_giving_way = False
        self.is_established = False

    @property
    def is_busy(self) -> bool:
        """Whether a message is coming in or being answered."""
        return self._message is not None

    # ------------------------------------------------------------ from other threads

    def stop(self) -> None:
        """End after the message that is coming in; at once where none is."""
        self._is_stopping = True
        if not self.is_busy:
            self.cut()

    @property
    def gives_way(self) -> bool:
        """Whether it is not yet an association and was not told to give way."""
        return not (self._association_id or self._is_giving_way)

    def give_way(self) -> None:
        """End, for the sake of a newcomer."""
        self._is_giving_way = True
        self.cut()

    def cut(self) -> None:
        """End now: the thread reads the end of the connection."""
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RD)
        except OSError:
            return  # gone already

    # ---------------------------------------------------------------------- the story

    def run(self) -> None:
        """Serve the peer until it leaves."""
        slot: int | None = None
        try:
            self._shake_hands()
            proposal = self._await_request()
            peer = Peer(proposal.calling_ae_title, self._address, self._certificate_subjects())
            refusal = self._refusal(proposal, peer)
            if refusal is None:
                settings = self._settings
                slot = self._house.census.enter(
                    self._address, settings.max_associations, settings.max_associations_per_address
                )
                refusal = None if slot is not None else _LOCAL_LIMIT_EXCEEDED
            if refusal is not None:
                self._reject(refusal)
            else:
                self._accept(proposal)
                self._serve()
        except PeerGone as reason:
            _log.debug("association ended: %s", reason)
            if self.is_established:
                self._abort(2, 0)
        except ProtocolError as error:
            self._house.tally.refused()
            _log.info("association aborted: %s", error)
            self._abort(2, error.reason)
        except Exception:  # noqa: BLE001 - the thread's last resort: told, and the peer aborted
            _log.exception("association ended by an error of ours")
            self._abort(2, 0)
        finally:
            self._close(slot)

    def _close(self, slot: int | None) -> None:
        if self._message is not None and self._message.storing is not None:
            self._message.storing.discard()
        if slot is not None:
            self._house.census.leave(slot)
            self._house.tally.left(self._association_id)
        self._socket.close()

    # ----------------------------------------------------------- becoming associated

    def _shake_hands(self) -> None:
        """Begin TLS, here and not where connections are accepted.

        A client that connects and says nothing must hold up nobody but itself.
        """
        if self._house.tls is not None:
            self._socket.settimeout(self._settings.acse_timeout)
            try:
                self._socket = self._house.tls.wrap_socket(
                    self._socket, server_side=True, do_handshake_on_connect=False
                )
                self._socket.do_handshake()
            except (OSError, ValueError) as error:
                self._house.tally.refused()
                raise PeerGone("no TLS handshake") from error
        self._link = Link(self._socket, self._settings.max_pdu)

    def _certificate_subjects(self) -> frozenset[str]:
        if not isinstance(self._socket, ssl.SSLSocket):
            return frozenset()
        return subjects(self._socket.getpeercert())

    def _await_request(self) -> Proposal:
        assert self._link is not None
        received = self._link.read(self._settings.acse_timeout, associated=False)
        if received.kind == upper_layer.ABORT:
            raise PeerGone("aborted by the peer")
        if received.kind != upper_layer.ASSOCIATE_RQ:
            raise ProtocolError("no association was requested", reason=2)
        return read_proposal(received.body)

    def _refusal(self, proposal: Proposal, peer: Peer) -> tuple[int, int, int] | None:
        if not proposal.protocol_version & 1:
            return _NO_SUCH_PROTOCOL
        if proposal.application_context != APPLICATION_CONTEXT:
            return _NO_SUCH_APPLICATION_CONTEXT
        called = proposal.called_ae_title
        if self._settings.require_called_ae_title and called != self._settings.ae_title:
            return _CALLED_AE_TITLE_NOT_RECOGNISED
        if not self._house.admission.admits(peer):
            return _CALLING_AE_TITLE_NOT_RECOGNISED
        if self._is_stopping or not self._house.room.has_room():
            return _TEMPORARY_CONGESTION
        return None

    def _reject(self, refusal: tuple[int, int, int]) -> None:
        assert self._link is not None
        self._house.tally.refused()
        _log.info("association rejected: result %d, source %d, reason %d", *refusal)
        self._link.send(upper_layer.reject(*refusal), self._settings.acse_timeout)
        self._link.drain(min(self._settings.acse_timeout, 2.0))

    def _accept(self, proposal: Proposal) -> None:
        assert self._link is not None
        self._calling_ae_title = proposal.calling_ae_title
        self._source = escape_source(proposal.calling_ae_title)
        self._association_id = self._house.new_id()
        self._peer_max_pdu = proposal.max_pdu
        self._contexts = {
            each.context_id: each for each in proposal.contexts if each.result == ACCEPTED
        }
        self.is_established = True
        self._house.tally.entered(self._source, self._association_id)
        self._link.send(
            acceptance(proposal, self._settings.max_pdu), self._settings.network_timeout
        )

    # ------------------------------------------------------------------ being served

    def _serve(self) -> None:
        assert self._link is not None
        while True:
            if self._is_stopping and not self.is_busy:
                raise PeerGone("the service stops")
            patience = self._settings.network_timeout
            if self.is_busy:
                patience = min(patience, self._settings.dimse_timeout)
            received = self._link.read(patience, associated=True)
            if received.kind == upper_layer.P_DATA:
                for fragment in upper_layer.fragments(received.body):
                    self._take(fragment)
            elif received.kind == upper_layer.RELEASE_RQ:
                self.is_established = False
                self._link.send(upper_layer.release_reply(), self._settings.acse_timeout)
                self._link.drain(min(self._settings.acse_timeout, 2.0))
                return
            elif received.kind == upper_layer.ABORT:
                self.is_established = False
                raise PeerGone("aborted by the peer")
            else:
                raise ProtocolError("PDU out of place", reason=2)

    def _abort(self, source: int, reason: int) -> None:
        if self._link is None:
            return
        try:
            self._link.send(upper_layer.abort(source, reason), min(self._settings.acse_timeout, 1))
        except PeerGone:
            return
        self._link.drain(min(self._settings.acse_timeout, 1.0))

    # ---------------------------------------------------------------------- messages

    def _take(self, fragment: Fragment) -> None:
        """Take one piece of a message, in the only order there is."""
        message = self._message
        if message is None:
            context = self._contexts.get(fragment.context_id)
            if context is None:
                raise ProtocolError("presentation context that was not accepted", reason=5)
            message = self._message = _Message(context)
        elif message.context.context_id != fragment.context_id:
            raise ProtocolError("message in two presentation contexts", reason=5)
        if fragment.is_command != (message.command is None):
            raise ProtocolError("command and data set out of order", reason=5)
        if fragment.is_command:
            self._take_command(message, fragment)
        else:
            self._take_data(message, fragment)

    def _take_command(self, message: _Message, fragment: Fragment) -> None:
        self._command += fragment.data
        if len(self._command) > dimse.MAX_COMMAND_BYTES:
            raise ProtocolError("command without an end", reason=6)
        if not fragment.is_last:
            return
        command = message.command = dimse.decode(bytes(self._command))
        self._command.clear()
        field = command.number(dimse.COMMAND_FIELD)
        if field == dimse.C_CANCEL_RQ:
            self._message = None  # nothing of ours takes long enough to be cancelled
        elif field & dimse.RESPONSE:
            raise ProtocolError("response to a request we never made")
        elif command.has_data_set:
            message.storing = self._begin(message.context, command, field)
        else:
            self._answer(message, *_answer_without_data_set(field))

    def _begin(self, context: Context, command: Command, field: int) -> Storing | Refused:
        """Return what takes the data set that follows *command*."""
        limit = self._settings.object_bytes
        if field != dimse.C_STORE_RQ or context.abstract_syntax == VERIFICATION:
            return Refused(UNRECOGNISED_OPERATION, "operation not supported", limit)
        self._count += 1
        return Storing.begin(
            self._house.shelf,
            self._house.room,
            name=f"{self._association_id}.{self._count:06d}",
            source=self._source,
            command=command,
            transfer_syntax_uid=context.transfer_syntax,
            calling_ae_title=self._calling_ae_title,
            receiving_ae_title=self._settings.ae_title,
            limit=limit,
        )

    def _take_data(self, message: _Message, fragment: Fragment) -> None:
        assert message.storing is not None
        message.storing.feed(fragment.data)
        if not fragment.is_last:
            return
        status, comment = message.storing.finish()
        if status == SUCCESS:
            self._house.tally.stored(self._source, message.storing.size_bytes)
        else:
            self._house.tally.failed()
            _log.warning(
                "object refused: status %04X, association %s", status, self._association_id
            )
        self._answer(message, status, comment)

    def _answer(self, message: _Message, status: int, comment: str) -> None:
        assert self._link is not None
        assert message.command is not None
        reply = upper_layer.data(
            message.context.context_id,
            dimse.response(message.command, status, comment),
            is_command=True,
            max_pdu=self._peer_max_pdu,
        )
        message.storing = None
        self._link.send(reply, self._settings.network_timeout)
        self._message = None


def _answer_without_data_set(field: int) -> tuple[int, str]:
    if field == dimse.C_ECHO_RQ:
        return SUCCESS, ""
    if field == dimse.C_STORE_RQ:
        return CANNOT_UNDERSTAND, "C-STORE without a data set"
    return UNRECOGNISED_OPERATION, "operation not supported"
