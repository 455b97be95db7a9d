"""A peer made of a plain socket, for what no decent library would send."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

Context = tuple[int, str, Sequence[str]]


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def context_item(number: int, abstract: str, syntaxes: Sequence[str]) -> bytes:
    subs = item(0x30, abstract.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
    return item(0x20, bytes((number, 0, 0, 0)) + subs)


def user_information(max_pdu: int = 16384, extra: bytes = b"") -> bytes:
    longest = item(0x51, struct.pack(">L", max_pdu))
    return item(0x50, longest + item(0x52, b"1.2.3.4") + extra)


def associate_rq(
    contexts: Sequence[Context] = ((1, CT, (EXPLICIT,)),),
    *,
    calling: bytes = b"RAW",
    called: bytes = b"INGESTER",
    version: int = 1,
    application: str = "1.2.840.10008.3.1.1.1",
    user: bytes | None = None,
) -> bytes:
    body = struct.pack(">HH16s16s32x", version, 0, called.ljust(16), calling.ljust(16))
    body += item(0x10, application.encode())
    body += b"".join(context_item(*each) for each in contexts)
    body += user_information() if user is None else user
    return struct.pack(">BBL", 1, 0, len(body)) + body


def p_data(*values: tuple[int, int, bytes]) -> bytes:
    """Return a P-DATA-TF of (context, flags, bytes)."""
    body = b"".join(struct.pack(">LBB", len(d) + 2, c, f) + d for c, f, d in values)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def store_rq(sop_instance: bytes = b"1.2.3\0", *, field: int = 1, data_set_type: int = 0) -> bytes:
    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = element(0x0002, CT.encode() + b"\0" * (len(CT) % 2))
    body += element(0x0100, struct.pack("<H", field)) + element(0x0110, b"\1\0")
    body += element(0x0700, b"\0\0") + element(0x0800, struct.pack("<H", data_set_type))
    body += element(0x1000, sop_instance)
    return element(0, struct.pack("<L", len(body))) + body


class Raw:
    """A connection that says what it is told to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def associate(self, **how: object) -> bytes:
        self.send(associate_rq(**how))  # type: ignore[arg-type]  # passed on as given
        kind, body = self.read()
        assert kind == 2, (kind, body)
        return body

    def read(self) -> tuple[int, bytes]:
        """Return the next PDU; (0, b"") where the connection has ended."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", head)
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        got = b""
        with contextlib.suppress(ConnectionError):
            while len(got) < length:
                more = self.socket.recv(length - len(got))
                if not more:
                    break
                got += more
        return got

    def status(self) -> int:
        """Read a response and return its status."""
        kind, body = self.read()
        assert kind == 4, kind
        at = body.index(struct.pack("<HHL", 0, 0x0900, 2))
        return int.from_bytes(body[at + 8 : at + 10], "little")
