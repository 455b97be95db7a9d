"""Peers that lie, stall or babble: they are cut off, others are served."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable

import pytest

from tests.unit.receivers.conftest import Running
from tests.unit.receivers.wire import (
    CT,
    EXPLICIT,
    VERIFICATION,
    Raw,
    associate_rq,
    item,
    p_data,
    store_rq,
    user_information,
)

Start = Callable[..., Running]

OBJECT = b"\x08\0\x18\0UI\x06\x001.2.3\0"
REJECT = 3
ABORT = 7
ECHO = p_data((1, 3, store_rq(field=0x30, data_set_type=0x0101)))


def echoes(scp: Running) -> bool:
    with Raw(scp.port) as peer:
        peer.associate(contexts=[(1, VERIFICATION, (EXPLICIT,))])
        peer.send(ECHO)
        return peer.status() == 0


@pytest.mark.parametrize(
    "nonsense",
    [
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 4, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 0, 0, 16) + bytes(16),
        struct.pack(">BBL", 1, 0, 0),
        struct.pack(">BBL", 1, 0, 68) + bytes(68),
        struct.pack(">BBL", 1, 0, 200) + bytes(68) + b"\xff" * 132,
        struct.pack(">BBL", 5, 0, 4) + bytes(4),
        struct.pack(">BBL", 2, 0, 4) + bytes(4),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + bytes(200),
        p_data((1, 3, store_rq())),
    ],
)
def test_nonsense_instead_of_a_request(scp: Running, nonsense: bytes) -> None:
    started = time.monotonic()
    with Raw(scp.port) as peer:
        peer.send(nonsense)
        assert peer.read()[0] in (REJECT, ABORT, 0)
    assert time.monotonic() - started < 1.0
    assert echoes(scp)


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack(">BBL", 4, 0, 2**31),
        struct.pack(">BBL", 4, 0, 0),
        struct.pack(">BBL", 4, 0, 4) + bytes(4),
        struct.pack(">BBLLBB", 4, 0, 6, 0, 1, 3),
        struct.pack(">BBLLBB", 4, 0, 6, 1, 1, 3),
        struct.pack(">BBLLBB", 4, 0, 6, 500, 1, 3),
        p_data((9, 3, store_rq())),
        p_data((2, 3, store_rq())),
        p_data((1, 2, OBJECT)),
        p_data((1, 3, store_rq())) * 2,
        p_data((1, 1, store_rq()), (1, 2, OBJECT)),
        p_data((1, 3, store_rq()), (3, 2, OBJECT)),
        p_data((1, 7, store_rq())),
        p_data((1, 3, b"\1\2\3")),
        p_data((1, 3, b"")),
        p_data((1, 3, store_rq(field=0x8001))),
        p_data((1, 3, struct.pack("<HHL", 0, 0x100, 0xFFFFFFFF))),
        p_data((1, 3, struct.pack("<HHL", 8, 0x18, 0))),
        p_data(*[(1, 1, bytes(16000))] * 5),
        associate_rq(),
        struct.pack(">BBL", 6, 0, 4) + bytes(4),
        struct.pack(">BBL", 3, 0, 4) + bytes(4),
    ],
)
def test_a_broken_message_ends_the_association(scp: Running, broken: bytes) -> None:
    with Raw(scp.port) as peer:
        peer.associate(contexts=[(1, CT, (EXPLICIT,)), (3, CT, (EXPLICIT,))])
        peer.send(broken)
        kind, body = peer.read()
        assert kind == ABORT
        assert body[2] == 2
    scp.wait_until_empty()
    assert scp.received() == []
    assert scp.leftovers() == []
    assert echoes(scp)


def test_an_endless_data_set_is_cut(start: Start) -> None:
    scp = start(object_bytes=2**20)
    with Raw(scp.port) as peer, contextlib.suppress(ConnectionError):
        peer.associate()
        peer.send(p_data((1, 3, store_rq())))
        sent = 0
        while sent < 64 * 2**20:
            peer.send(p_data((1, 0, bytes(65536))))
            sent += 65536
        pytest.fail("nobody stopped it")
    scp.wait_until_empty()
    assert scp.leftovers() == []


@pytest.mark.parametrize("size", [1000, 3 * 2**20])
@pytest.mark.parametrize("farewell", [b"", struct.pack(">BBL4x", ABORT, 0, 4)])
def test_a_sender_that_leaves_in_the_middle_leaves_nothing(
    scp: Running, size: int, farewell: bytes
) -> None:
    with Raw(scp.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, store_rq())))
        for at in range(0, size, 65536):
            peer.send(p_data((1, 0, bytes(min(65536, size - at)))))
        peer.send(farewell)
    scp.wait_until_empty()
    assert scp.received() == []
    assert scp.leftovers() == []


@pytest.mark.parametrize("head", [b"", b"\1\0\0", associate_rq()[:-1]])
def test_a_silent_peer_is_given_up(start: Start, head: bytes) -> None:
    scp = start(acse_timeout=0.2)
    with Raw(scp.port) as peer:
        peer.send(head)
        assert peer.read()[0] == 0
    scp.wait_until_empty()


@pytest.mark.parametrize("head", [b"", p_data((1, 3, store_rq())), p_data((1, 3, store_rq()))[:9]])
def test_silence_in_an_association_ends_it(start: Start, head: bytes) -> None:
    scp = start(network_timeout=0.2)
    with Raw(scp.port) as peer:
        peer.associate()
        peer.send(head)
        assert peer.read()[0] == ABORT
    scp.wait_until_empty()


def test_bytes_that_drip_do_not_hold_a_request_open(start: Start) -> None:
    scp = start(acse_timeout=0.3)
    request = associate_rq()
    with Raw(scp.port) as peer, contextlib.suppress(ConnectionError):
        peer.socket.settimeout(0.05)
        for at in range(len(request)):
            peer.send(request[at : at + 1])
            with contextlib.suppress(TimeoutError):
                if not peer.socket.recv(1):
                    break
        else:
            pytest.fail("it was patient to the end")
    assert echoes(scp)


def test_idle_connections_give_way_to_real_senders(start: Start) -> None:
    scp = start(acse_timeout=30.0)
    with contextlib.ExitStack() as idle:
        first = idle.enter_context(Raw(scp.port))
        for _ in range(100):
            idle.enter_context(Raw(scp.port)).send(b"\1\0\0")
        assert echoes(scp)
        assert first.read()[0] == 0


def test_a_huge_request_is_answered_quickly(scp: Running) -> None:
    syntaxes = [f"1.2.826.0.1.3680043.9.{n}" for n in range(64)]
    contexts = [(2 * n + 1, f"1.2.840.10008.5.1.4.1.1.{n}", syntaxes) for n in range(128)]
    extra = b"".join(item(0x56, struct.pack(">H", 3) + b"1.2" + b"x" * 60_000) for _ in range(1))
    started = time.monotonic()
    with Raw(scp.port) as peer:
        peer.associate(contexts=contexts, user=user_information(extra=extra))
    assert time.monotonic() - started < 1.0


def test_a_request_longer_than_a_mebibyte_is_refused_unread(scp: Running) -> None:
    with Raw(scp.port) as peer:
        peer.send(struct.pack(">BBL", 1, 0, 2**20 + 1))
        assert peer.read()[0] == ABORT
