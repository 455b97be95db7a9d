"""The Upper Layer protocol of PS3.8 over one socket, read with suspicion.

A peer may send one byte a minute, claim a PDU of four gigabytes or speak HTTP.
So every wait has a deadline, every length a cap that is checked before a byte of
the body is read, and reading needs no second thread and no polling:

    link = Link(socket)
    link.read(acse_timeout, ...)   -> Pdu(ASSOCIATE_RQ, body)
    link.send(...)
    link.read(network_timeout, ..) -> Pdu(P_DATA, body), Pdu(RELEASE_RQ, b"") ...

After each `recv` the kernel is asked to acknowledge at once (TCP_QUICKACK does not
last): a stock DCMTK sender leaves Nagle's algorithm on and would wait 40 ms twice an
object for our delayed acknowledgement, 11 objects a second.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

ASSOCIATE_RQ = 0x01
ASSOCIATE_AC = 0x02
ASSOCIATE_RJ = 0x03
P_DATA = 0x04
RELEASE_RQ = 0x05
RELEASE_RP = 0x06
ABORT = 0x07

#: A-ASSOCIATE-RQ: 128 contexts of 64 syntaxes and generous user information fit.
MAX_ASSOCIATE_BYTES = 2**20
#: A slower peer than this, in bytes a second, is cut off in the middle of a PDU.
SLOWEST = 16384

_CHUNK = 256 * 1024
#: Some senders do not count the headers inside the PDU.
_TOLERANCE = 64
_MOST_DRAINED = 4 * 2**20
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class PeerGone(Exception):
    """The peer closed the connection or was silent for too long."""


class ProtocolError(Exception):
    """The peer sent what PS3.8 does not allow here: A-ABORT is the answer."""

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason  # of A-ABORT, PS3.8 table 9-26


class Pdu(NamedTuple):
    """One protocol data unit without its six bytes of header."""

    kind: int
    body: memoryview


class Fragment(NamedTuple):
    """One presentation data value: a piece of a command or of a data set."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


class Link:
    """A connected socket that is read PDU by PDU."""

    def __init__(self, connection: socket.socket, max_pdu: int) -> None:
        self.socket = connection
        self.max_pdu = max_pdu
        self._buffer = bytearray(_CHUNK)
        self._start = 0
        self._end = 0
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def read(self, patience: float, *, associated: bool) -> Pdu:
        """Return the next PDU; its body is valid until the next `read`.

        Parameters
        ----------
        patience : seconds until the first byte must have come
        associated : whether an association exists; before it only A-ASSOCIATE-RQ
            and A-ABORT may come, and all of it must come within *patience*

        Raises
        ------
        PeerGone : end of file, reset or too slow
        ProtocolError : unknown type or a length above what was agreed
        """
        deadline = time.monotonic() + patience
        self._fill(6, deadline)
        kind, _, length = struct.unpack_from(">BBL", self._buffer, self._start)
        if not ASSOCIATE_RQ <= kind <= ABORT:
            raise ProtocolError("unknown PDU type", reason=1)
        if length > self._cap(kind):
            raise ProtocolError("PDU longer than agreed", reason=6)
        if associated:
            deadline = time.monotonic() + max(patience / 2, length / SLOWEST)
        self._start += 6
        self._fill(length, deadline)
        body = memoryview(self._buffer)[self._start : self._start + length]
        self._start += length
        return Pdu(kind, body)

    def _cap(self, kind: int) -> int:
        if kind in (ASSOCIATE_RQ, ASSOCIATE_AC):
            return MAX_ASSOCIATE_BYTES
        return self.max_pdu + _TOLERANCE if kind == P_DATA else 64

    def _fill(self, length: int, deadline: float) -> None:
        """Wait until *length* unread bytes are in the buffer."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + length > len(self._buffer):
            # A body handed out earlier is done with now: bytes may move.
            fresh = bytearray(max(_CHUNK, length))
            unread = self._end - self._start
            fresh[:unread] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = fresh, 0, unread
        while self._end - self._start < length:
            patience = deadline - time.monotonic()
            if patience <= 0:
                raise PeerGone("silent for too long")
            self.socket.settimeout(patience)
            try:
                count = self.socket.recv_into(memoryview(self._buffer)[self._end :])
            except OSError as error:
                raise PeerGone(_why(error)) from error
            if not count:
                raise PeerGone("closed")
            self._end += count
            self._acknowledge()

    def _acknowledge(self) -> None:
        if _QUICKACK is not None:
            try:
                self.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                return  # not TCP, or gone: the next read tells

    def send(self, data: bytes, patience: float) -> None:
        """Send all of *data* within *patience* seconds."""
        self.socket.settimeout(patience)
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise PeerGone(_why(error)) from error

    def drain(self, patience: float) -> None:
        """Wait until the peer closes, at most *patience* seconds (ARTIM timer).

        Closing with unread bytes would reset the connection, and the peer might
        lose our last word; one that goes on sending for ever may.
        """
        deadline = time.monotonic() + patience
        unread = _MOST_DRAINED
        try:
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0 and unread > 0:
                self.socket.settimeout(left)
                count = len(self.socket.recv(_CHUNK))
                if not count:
                    return
                unread -= count
        except OSError:
            return  # gone already


def _why(error: OSError) -> str:
    return "silent for too long" if isinstance(error, TimeoutError) else "connection lost"


def pdu(kind: int, body: bytes) -> bytes:
    """Return a PDU as bytes."""
    return struct.pack(">BBL", kind, 0, len(body)) + body


def reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return pdu(ASSOCIATE_RJ, bytes((0, result, source, reason)))


def abort(source: int, reason: int) -> bytes:
    """Return an A-ABORT; *source* 0 is the user, 2 the provider (table 9-26)."""
    return pdu(ABORT, bytes((0, 0, source, reason)))


def release_reply() -> bytes:
    """Return an A-RELEASE-RP."""
    return pdu(RELEASE_RP, bytes(4))


def data(context_id: int, payload: bytes, *, is_command: bool, max_pdu: int) -> bytes:
    """Return *payload* as P-DATA-TF PDUs that a peer with *max_pdu* takes (0 = any)."""
    size = max(max_pdu - 6, 2) if max_pdu else len(payload) or 1
    pieces = []
    for at in range(0, len(payload), size):
        piece = payload[at : at + size]
        flags = int(is_command) | (2 if at + size >= len(payload) else 0)
        value = struct.pack(">LBB", len(piece) + 2, context_id, flags) + piece
        pieces.append(pdu(P_DATA, value))
    return b"".join(pieces)


def fragments(body: memoryview) -> Iterator[Fragment]:
    """Take a P-DATA-TF apart (PS3.8 section 9.3.5.1 and annex E.2)."""
    at, end = 0, len(body)
    if not end:
        raise ProtocolError("P-DATA without a value", reason=6)
    while at < end:
        if end - at < 6:
            raise ProtocolError("presentation data value cut short", reason=6)
        length, context_id, flags = struct.unpack_from(">LBB", body, at)
        if length < 2 or length > end - at - 4:
            raise ProtocolError("presentation data value of impossible length", reason=6)
        if flags & ~3:
            raise ProtocolError("message control header with unknown flags", reason=6)
        stop = at + 4 + length
        yield Fragment(context_id, bool(flags & 1), bool(flags & 2), body[at + 6 : stop])
        at = stop
