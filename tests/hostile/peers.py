"""Rows of what comes over the network: senders that lie, stall, babble or climb."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hostile.trial import Case, Trial
from tests.unit.dicom.raw import explicit
from tests.unit.receivers import test_scp_hostile as hostile
from tests.unit.receivers.conftest import SETTINGS, Running
from tests.unit.receivers.test_scp_refuses import nothing_kept, sent
from tests.unit.receivers.wire import CT, EXPLICIT, Raw, p_data, store_rq

Starter = Callable[..., Running]

#: What is spoken instead of an association request, and what breaks a message.
SPOKEN = (
    "length-of-4-gib",
    "data-of-4-gib",
    "type-0",
    "empty",
    "zeros",
    "items-of-nothing",
    "release",
    "acceptance",
    "http",
    "tls-hello",
    "data-first",
)


@contextmanager
def receiving(trial: Trial, **changes: object) -> Iterator[Running]:
    """Serve into the trial's spool; what was received is ingested and all is checked."""
    running = Running(trial.site.spool.root, replace(SETTINGS, **changes))  # type: ignore[arg-type]  # any setting
    try:
        yield running
        assert hostile.echoes(running)
        running.wait_until_empty()
        assert running.leftovers() == []
    finally:
        running.stop()
    trial.ingest()
    trial.check()


def story(number: int, name: str, tell: Callable[[Starter], None]) -> Case:
    """Return the row of a story that is told with a receiver's starter."""

    def run(folder: Path) -> None:
        trial = Trial(folder)
        with ExitStack() as stack:
            tell(lambda **how: stack.enter_context(receiving(trial, **how)))
        assert trial.site.outcomes() == {"archived": 1}

    return Case(number, name, run)


def refused(number: int, name: str, uid: bytes, *status: int) -> Case:
    def tell(start: Starter) -> None:
        scp = start()
        assert sent(scp, hostile.OBJECT, uid) in status
        assert nothing_kept(scp)

    return story(number, name, tell)


def titled(name: str, title: bytes, pattern: str) -> Case:
    """Return the row of a calling AE title that would be a path."""

    def run(folder: Path) -> None:
        trial = Trial(folder)
        with receiving(trial) as scp, Raw(scp.port) as peer:
            peer.associate(calling=title)
            data = explicit(sop=b"1.2.3", sop_class=CT.encode())
            peer.send(p_data((1, 3, store_rq()), (1, 2, data)))
            assert peer.status() == 0x0000
        (source,) = trial.site.rows("SELECT source FROM instances WHERE source <> 'MANUAL'")
        assert re.fullmatch(pattern, source), source
        assert len(list(trial.site.archive.root.glob(f"{source}/*/*/*/*/*.dcm"))) == 1

    return Case(17, f"ae-title-{name}", run)


def _endless(start: Starter) -> None:
    scp = start(object_bytes=2**20)
    with Raw(scp.port) as peer, suppress(ConnectionError):
        peer.associate()
        peer.send(p_data((1, 3, store_rq())))
        for _ in range(1024):
            peer.send(p_data((1, 0, bytes(65536))))
        pytest.fail("nobody stopped it")
    assert nothing_kept(scp)


def _crowded(start: Starter) -> None:
    scp = start(acse_timeout=30.0)
    with ExitStack() as idle:
        for _ in range(500):
            idle.enter_context(Raw(scp.port))
        assert hostile.echoes(scp)


def _values_of(test: Callable[..., None]) -> list[bytes]:
    (mark,) = (each for each in test.pytestmark if each.name == "parametrize")  # type: ignore[attr-defined]  # pytest's own
    return list(mark.args[1])


def _nonsense(nonsense: bytes) -> Callable[[Starter], None]:
    return lambda start: hostile.test_nonsense_instead_of_a_request(start(), nonsense)


def _broken(broken: bytes) -> Callable[[Starter], None]:
    return lambda start: hostile.test_a_broken_message_ends_the_association(start(), broken)


def _silent(head: bytes) -> Callable[[Starter], None]:
    return lambda start: hostile.test_a_silent_peer_is_given_up(start, head)


def _unknown(field: int) -> Callable[[Starter], None]:
    def tell(start: Starter) -> None:
        scp = start()
        with Raw(scp.port) as peer:
            peer.associate(contexts=[(1, CT, (EXPLICIT,))])
            peer.send(p_data((1, 3, store_rq(field=field))) + p_data((1, 2, hostile.OBJECT)))
            assert peer.status() == 0x0211
        assert nothing_kept(scp)

    return tell


_CHANGED = r"[A-Za-z0-9_-][A-Za-z0-9._-]*-[0-9a-f]{8}"

CASES = [
    refused(13, "received-sop-uid-climbs", b"../../etc/cron.d/x", 0xA900, 0xC000),
    *(
        titled(name, title, _CHANGED)
        for name, title in {
            "dots": b"..",
            "slash": b"a/b",
            "climbs": b"../../etc",
            "space": b"a b",
            "backslash": b"a\\b",
            "control": b"\x1b[2J\x07",
            "index": b"index.db",
            "staging": b".staging",
        }.items()
    ),
    titled("con", b"CON", "CON"),
    refused(29, "command-differs", b"1.2.4\0", 0xA900),
    *(
        story(52, name, _nonsense(nonsense))
        for name, nonsense in zip(
            SPOKEN, _values_of(hostile.test_nonsense_instead_of_a_request), strict=True
        )
    ),
    story(53, "one-byte-at-a-time", hostile.test_bytes_that_drip_do_not_hold_a_request_open),
    story(53, "500-idle-sockets", _crowded),
    *(
        story(
            53,
            f"silent-{n}",
            _silent(head),
        )
        for n, head in enumerate(_values_of(hostile.test_a_silent_peer_is_given_up), 1)
    ),
    story(
        54, "huge-request", lambda start: hostile.test_a_huge_request_is_answered_quickly(start())
    ),
    story(
        54,
        "longer-than-a-mebibyte",
        lambda start: hostile.test_a_request_longer_than_a_mebibyte_is_refused_unread(start()),
    ),
    *(
        story(55, f"message-{n:02d}", _broken(broken))
        for n, broken in enumerate(
            _values_of(hostile.test_a_broken_message_ends_the_association), 1
        )
    ),
    story(56, "endless", _endless),
    *(
        refused(57, name, uid, 0xC000)
        for name, uid in {"slash": b"../../x\0", "10-kb": b"x" * 10_000}.items()
    ),
    *(
        story(58, name, _unknown(field))
        for name, field in {"c-find": 0x0020, "n-action": 0x0130, "unknown": 0x7777}.items()
    ),
]
