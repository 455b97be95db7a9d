"""The parent's side of the SCP: binds, starts, listens to and restarts its processes.

    receiver = ScpReceiver(settings, spool, wake)
    receiver.start()              never raises for the world's reasons: see `state`
    receiver.poll()               from the main loop: restarts, reads; True = look
    receiver.stop(10.0)

A port that is taken, a certificate that cannot be read: the receiver is down, says
why, and tries again with growing pauses, while the rest of the service runs.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import ingester
from ingester import durable
from ingester.receivers.admission import Census
from ingester.receivers.landing import RECEIVING
from ingester.receivers.scp import tls_context
from ingester.receivers.settings import ScpSettings
from ingester.receivers.tally import Figures, relog

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
#: A process that has run this long was started well: the next pause is short again.
_SETTLED_SECONDS = 60.0
_OURS = re.compile(r"[0-9a-f]{24}\.[0-9]{6}", re.ASCII)
_LONGEST_LINE = 65536


@dataclass(slots=True)
class ReceiverState:
    """What `status` tells of a receiver."""

    name: str = "scp"
    is_up: bool = False
    message: str = ""  # why it is down, or what troubles it
    host: str = ""
    port: int = 0
    processes: int = 0
    associations: int = 0
    associations_total: int = 0
    objects: int = 0
    bytes: int = 0
    refused_associations: int = 0
    failed_objects: int = 0
    last_source: str = ""
    restarts: int = 0
    open: tuple[tuple[str, str], ...] = ()  # (source, batch) of the associations now


@dataclass(slots=True)
class _Child:
    """One receiving process, living or dead, in its row of the census."""

    row: int
    process: subprocess.Popen[bytes] | None = None
    reader: threading.Thread | None = None
    is_trusted: bool = True  # after a death only once it has reported
    figures: Figures = field(default_factory=Figures)
    started_at: float = 0.0
    pause: float = 0.0
    start_at: float = 0.0  # not before


class ScpReceiver:
    """The Storage SCP as the service sees it; all methods from the main thread."""

    def __init__(
        self,
        settings: ScpSettings,
        spool: Path,
        wake: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; *wake* is called from other threads when `poll` has something to do."""
        self.settings = settings
        self.state = ReceiverState(host=settings.host, port=settings.port)
        self._spool = spool
        self._wake = wake
        self._monotonic = monotonic
        self._listener: socket.socket | None = None
        self._census: Census | None = None
        self._census_descriptor = -1
        self._children: list[_Child] = []
        self._lock = threading.Lock()
        self._fresh: dict[int, Figures] = {}
        self._past = Figures()  # of processes that have died
        self._objects_seen = 0
        self._pause = 0.0
        self._start_at = 0.0
        self._swept_at = monotonic()
        self._is_stopped = False

    # ----------------------------------------------------------------------- starting

    def start(self) -> None:
        """Bind and start the processes; where that fails, `poll` tries again."""
        try:
            tls_context(self.settings)  # a mistake shows here, not in a dying child
            self._listener = listen(self.settings.host, self.settings.port)
        except OSError as error:
            self._pause = longer_pause(self._pause)
            self._start_at = self._monotonic() + self._pause
            self.state.is_up = False
            self.state.message = _explained(error, self.settings)
            return
        self.state.port = self._listener.getsockname()[1]
        self.state.message = ""
        self._pause = 0.0
        rows, slots = self.settings.processes, self.settings.max_associations
        self._census_descriptor = Census.make(rows, slots)
        self._census = Census(self._census_descriptor, 0, slots)
        self._children = [_Child(row) for row in range(rows)]
        for child in self._children:
            self._spawn(child)
        self._sum_up()

    def _spawn(self, child: _Child) -> None:
        assert self._listener is not None
        reader, writer = os.pipe2(os.O_CLOEXEC)
        inherited = (self._listener.fileno(), writer, self._census_descriptor)
        command = [sys.executable, "-P", "-m", "ingester.receivers.scp", *map(str, inherited)]
        command += [str(child.row), str(os.getpid()), os.fspath(self._spool)]
        child.started_at = self._monotonic()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=inherited, env=_environment()
            )
        except OSError as error:
            os.close(reader)
            os.close(writer)
            _log.warning("a receiving process cannot be started: %s", error.strerror)
            self._put_off(child)
            return
        os.close(writer)
        child.process = process
        assert process.stdin is not None
        try:
            process.stdin.write(self.settings.to_json().encode())
            process.stdin.close()
        except BrokenPipeError:
            _log.warning("a receiving process ended as soon as it was started")
        child.reader = threading.Thread(
            target=self._listen_to, args=(child.row, reader), name="scp-reports", daemon=True
        )
        child.reader.start()

    def _listen_to(self, row: int, reader: int) -> None:
        """Read one process's reports until it ends; runs in a thread of its own."""
        with open(reader, "rb") as lines:
            while line := lines.readline(_LONGEST_LINE):
                figures = _figures(line)
                if figures is not None:
                    with self._lock:
                        self._fresh[row] = figures
                    self._wake()
        self._wake()

    # ------------------------------------------------------------------------ polling

    def poll(self) -> bool:
        """Read reports, restart what has died; True where objects have landed."""
        if self._is_stopped:
            return False
        now = self._monotonic()
        if self._listener is None:
            if now >= self._start_at:
                self.start()
            return False
        for child in self._children:
            self._look_after(child, now)
            self._take_figures(child)
        if now - self._swept_at > self.settings.network_timeout:
            self._swept_at = now
            self._sweep()
        return self._sum_up()

    def process_ids(self) -> list[int]:
        """Return the ids of the living processes."""
        return [each.process.pid for each in self._children if each.process is not None]

    def next_poll_in(self) -> float:
        """Return the seconds until `poll` has something to do by itself."""
        now = self._monotonic()
        if self._listener is None:
            return max(0.0, self._start_at - now)
        waits = [child.start_at - now for child in self._children if child.process is None]
        return max(0.0, min([*waits, _LONGEST_PAUSE]))

    def _take_figures(self, child: _Child) -> None:
        with self._lock:
            figures = self._fresh.pop(child.row, None)
        if figures is not None:
            child.figures = figures
            child.is_trusted = True

    def _look_after(self, child: _Child, now: float) -> None:
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            _log.warning("receiving process %d ended with code %d", child.process.pid, code)
            child.process = None
            assert self._census is not None
            self._census.wipe(child.row)
            if child.reader is not None:
                child.reader.join(1.0)  # its last words; the pipe ends with the process
            self._take_figures(child)
            child.is_trusted = False
            self._bury(child)
            self.state.restarts += 1
            self._put_off(child)
        if now >= child.start_at:
            self._spawn(child)

    def _put_off(self, child: _Child) -> None:
        now = self._monotonic()
        child.pause = longer_pause(0.0 if is_settled(child.started_at, now) else child.pause)
        child.start_at = now + child.pause

    def _bury(self, child: _Child) -> None:
        """Keep a dead process's sums."""
        for name in ("associations_total", "objects", "bytes", "refused_associations"):
            setattr(self._past, name, getattr(self._past, name) + getattr(child.figures, name))
        self._past.failed_objects += child.figures.failed_objects
        child.figures = Figures(last_source=child.figures.last_source)

    def _sum_up(self) -> bool:
        living = [each for each in self._children if each.process and each.is_trusted]
        state = self.state
        state.processes = len(living)
        state.is_up = bool(living)
        all_figures = [self._past, *(child.figures for child in self._children)]
        for name in (
            "associations",
            "associations_total",
            "objects",
            "bytes",
            "refused_associations",
            "failed_objects",
        ):
            setattr(state, name, sum(getattr(figures, name) for figures in all_figures))
        state.open = tuple(each for figures in all_figures for each in figures.open)
        sources = [each.last_source for each in all_figures if each.last_source]
        state.last_source = sources[-1] if sources else ""
        troubles = [each.trouble for each in all_figures if each.trouble]
        state.message = troubles[0] if troubles else ""
        if not living:
            state.message = "its processes ended; they are started again"
        has_landed = state.objects != self._objects_seen
        self._objects_seen = state.objects
        return has_landed

    def _sweep(self) -> None:
        """Remove what dead associations have left in `.receiving`.

        A living association never pauses longer than the network timeout; what was
        not written to for twice that, and two minutes, belongs to none.
        """
        oldest = time.time() - max(120.0, 2 * self.settings.network_timeout)
        try:
            with os.scandir(self._spool / RECEIVING) as entries:
                for entry in entries:
                    is_file = entry.is_file(follow_symlinks=False)
                    if is_file and _OURS.fullmatch(entry.name) and _mtime(entry) < oldest:
                        durable.unlink(Path(entry.path))
        except OSError as error:
            _log.warning("%s cannot be swept: %s", RECEIVING, error.strerror)

    # ----------------------------------------------------------------------- stopping

    def stop(self, timeout: float) -> None:
        """Let the processes finish what is coming in, then end them."""
        self._is_stopped = True
        if self._listener is not None:
            self._listener.close()
        living = [child.process for child in self._children if child.process is not None]
        for process in living:
            process.send_signal(signal.SIGTERM)
        deadline = self._monotonic() + timeout
        for process in living:
            try:
                process.wait(max(0.0, deadline - self._monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children:
            child.process = None
        if self._census is not None:
            self._census.close()
            self._census = None
        self._listener = None
        self.state.is_up = False
        self.state.message = "stopped"


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; `::` takes IPv4 as well."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    is_any = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(
        address[:2], family=family, backlog=128, dualstack_ipv6=is_any, reuse_port=False
    )


def _explained(error: OSError, settings: ScpSettings) -> str:
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program"
    if error.errno == errno.EACCES:
        return f"{where} needs a permission (ports below 1024: CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: this machine has no such address"
    return f"{where}: {error.strerror or error}"


def _figures(line: bytes) -> Figures | None:
    """Read a report; None for a log record, or half a line of a dying process."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or relog(values):
        return None
    return Figures.read(values)


def _environment() -> dict[str, str]:
    """Return our environment, in which the child finds the package where we found it."""
    here = os.fspath(Path(ingester.__file__).parents[1])
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *([others] if others else [])])}


def longer_pause(pause: float) -> float:
    """Return the pause before the next try, in seconds: 1, 2, 4 … 60."""
    return min(max(_FIRST_PAUSE, pause * 2), _LONGEST_PAUSE)


def is_settled(started_at: float, now: float) -> bool:
    """Whether what was started then has run long enough to be trusted."""
    return now - started_at > _SETTLED_SECONDS


def _mtime(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return float("inf")
