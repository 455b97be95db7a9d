"""The parent's side: real child processes, started, lost, restarted and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingester.receivers.settings import ScpSettings
from ingester.receivers.supervise import ScpReceiver
from tests.unit.receivers.wire import EXPLICIT, VERIFICATION, Raw, associate_rq, p_data, store_rq

OBJECT = b"\x08\0\x18\0UI\x06\x001.2.3\0"
ABORT = 7


class Watched:
    """A receiver and the main loop that polls it."""

    def __init__(self, spool: Path, settings: ScpSettings) -> None:
        for name in (".receiving", ".received"):
            (spool / name).mkdir(parents=True, exist_ok=True)
        self.spool = spool
        self._bell = threading.Event()
        self.ahead = 0.0
        self.receiver = ScpReceiver(settings, spool, self._bell.set, self.now)

    def now(self) -> float:
        return time.monotonic() + self.ahead

    @property
    def port(self) -> int:
        return self.receiver.state.port

    def until(self, is_true: Callable[[], bool]) -> None:
        """Poll until something is true, or the test's patience ends."""
        deadline = time.monotonic() + 20
        while not is_true():
            assert time.monotonic() < deadline, self.receiver.state
            self._bell.wait(0.2)
            self._bell.clear()
            self.receiver.poll()

    def store(self, uid: str = "1.2.3") -> int:
        raw = uid.encode() + b"\0" * (len(uid) % 2)
        with Raw(self.port) as peer:
            peer.associate()
            data = b"\x08\0\x18\0UI" + len(raw).to_bytes(2, "little") + raw
            peer.send(p_data((1, 3, store_rq(raw)), (1, 2, data)))
            return peer.status()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def begin(**changes: Any) -> Watched:
        settings = replace(ScpSettings(port=0, processes=1, network_timeout=5.0), **changes)
        made.append(Watched(tmp_path / "spool", settings))
        made[-1].receiver.start()
        return made[-1]

    yield begin
    for each in made:
        each.receiver.stop(10.0)


def test_it_receives_reports_and_stops(watch: Callable[..., Watched]) -> None:
    watched = watch(processes=2)
    state = watched.receiver.state
    assert (state.is_up, state.processes, state.message) == (True, 2, "")
    assert state.port > 0
    for number in range(6):
        assert watched.store(f"1.2.{number}") == 0
    watched.until(lambda: state.objects == 6)
    watched.until(lambda: state.associations == 0)
    assert state.associations_total == 6
    assert state.bytes == 6 * 14
    assert state.last_source == "RAW"
    assert len(list((watched.spool / ".received" / "RAW").iterdir())) == 6
    watched.receiver.stop(10.0)
    assert (state.is_up, state.message) == (False, "stopped")
    with pytest.raises(ConnectionRefusedError):
        Raw(watched.port)


def test_poll_says_when_objects_have_landed(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.store()
    deadline = time.monotonic() + 10
    while not watched.receiver.poll():
        assert time.monotonic() < deadline
    assert not watched.receiver.poll()


def test_a_dead_process_is_replaced(watch: Callable[..., Watched]) -> None:
    watched = watch()
    state = watched.receiver.state
    assert watched.store("1.2.1") == 0
    watched.until(lambda: state.objects == 1)
    victim = watched.receiver.process_ids()[0]
    os.kill(victim, signal.SIGKILL)
    watched.until(lambda: state.processes == 0)
    assert not state.is_up
    assert state.message
    assert watched.receiver.next_poll_in() <= 1.0
    watched.ahead += 2
    watched.until(lambda: state.is_up)
    assert state.restarts == 1
    assert watched.store("1.2.2") == 0
    watched.until(lambda: state.objects == 2)


def test_a_taken_port_is_reported_and_tried_again(watch: Callable[..., Watched]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        watched = watch(port=other.getsockname()[1])
        state = watched.receiver.state
        assert not state.is_up
        assert "taken by another program" in state.message
    watched.receiver.poll()
    assert not state.is_up
    watched.ahead += 2
    watched.until(lambda: state.is_up)
    assert watched.store() == 0


@pytest.mark.parametrize(
    "changes",
    [{"host": "192.0.2.1"}, {"tls_certificate": "/nonexistent.pem"}, {"host": "no such host"}],
)
def test_what_cannot_start_is_down_and_says_why(
    watch: Callable[..., Watched], changes: dict[str, Any]
) -> None:
    state = watch(**changes).receiver.state
    assert not state.is_up
    assert state.message


def test_an_object_that_is_coming_in_may_finish(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.store("1.2.1")
    with Raw(watched.port) as busy, Raw(watched.port) as idle:
        busy.associate()
        busy.send(p_data((1, 3, store_rq()), (1, 0, OBJECT[:5])))
        idle.associate(contexts=[(1, VERIFICATION, (EXPLICIT,))])
        watched.until(lambda: watched.receiver.state.associations == 2)
        assert [source for source, _ in watched.receiver.state.open] == ["RAW", "RAW"]
        stopper = threading.Thread(target=watched.receiver.stop, args=(10.0,))
        stopper.start()
        assert idle.read()[0] == ABORT
        busy.send(p_data((1, 2, OBJECT[5:])))
        assert busy.status() == 0
        assert busy.read()[0] == ABORT
        stopper.join()


def test_associations_are_counted_over_all_processes(watch: Callable[..., Watched]) -> None:
    watched = watch(processes=2, max_associations=3)
    with Raw(watched.port) as a, Raw(watched.port) as b, Raw(watched.port) as c:
        for peer in (a, b, c):
            peer.associate()
        for _ in range(4):
            with Raw(watched.port) as late:
                late.send(associate_rq())
                assert late.read() == (3, bytes((0, 2, 3, 2)))


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    for name in (".receiving", ".received"):
        (tmp_path / name).mkdir()
    program = (
        "import sys, pathlib, os\n"
        "from ingester.receivers.supervise import ScpReceiver\n"
        "from ingester.receivers.settings import ScpSettings\n"
        "r = ScpReceiver(ScpSettings(port=0, processes=1), pathlib.Path(sys.argv[1]), lambda: 0)\n"
        "r.start(); print(r.state.port, *r.process_ids(), flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        port, child = map(int, parent.stdout.readline().split())
        with Raw(port) as peer:
            peer.associate()
            parent.kill()
            assert peer.read()[0] == 0
    assert child > 0


def test_leftovers_of_the_dead_are_swept(watch: Callable[..., Watched]) -> None:
    watched = watch()
    folder = watched.spool / ".receiving"
    old, young, other = "0" * 24 + ".000001", "1" * 24 + ".000001", "somebody-else"
    for name in (old, young, other):
        (folder / name).write_bytes(b"x")
    long_ago = time.time() - 3600
    os.utime(folder / old, (long_ago, long_ago))
    os.utime(folder / other, (long_ago, long_ago))
    watched.ahead += 6
    watched.receiver.poll()
    assert sorted(os.listdir(folder)) == sorted([young, other])


def test_what_a_child_logs_is_logged_here_without_patient_data(
    watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture
) -> None:
    watched = watch()
    with Raw(watched.port) as peer:
        peer.associate()
        name = b"\x10\0\x10\0PN\x0e\0Mustermann^Max"
        peer.send(p_data((1, 3, store_rq(b"1.2.4\0")), (1, 2, OBJECT + name)))
        assert peer.status() == 0xA900
    watched.until(lambda: watched.receiver.state.failed_objects == 1)
    watched.until(lambda: "status A900" in caplog.text)
    assert "Mustermann" not in caplog.text


def test_a_process_that_cannot_live_leaves_the_receiver_down(tmp_path: Path) -> None:
    """Each start ends at once: the pauses grow, and nobody is told "up" in between."""
    watched = Watched(tmp_path / "spool", ScpSettings(port=0, processes=1))
    watched.receiver.start()
    try:
        os.kill(watched.receiver.process_ids()[0], signal.SIGKILL)
        watched.until(lambda: watched.receiver.state.restarts == 1)
        watched.ahead += 2
        watched.receiver.poll()
        assert watched.receiver.process_ids()
        os.kill(watched.receiver.process_ids()[0], signal.SIGKILL)
        watched.until(lambda: not watched.receiver.state.is_up)
        watched.until(lambda: watched.receiver.state.restarts == 2)
        assert 1.0 < watched.receiver.next_poll_in() <= 2.0
    finally:
        watched.receiver.stop(5.0)
