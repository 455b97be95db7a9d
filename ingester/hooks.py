"""Telling other programs that something happened: `[hooks]` of the configuration.

A hook is a list of arguments, never a shell line.  Placeholders are replaced within
an argument, which stays one argument whatever it holds; all else is in the event,
as JSON on standard input.  A hook is started from the main loop and never waited
for: it has its own session, a time limit and a thread that swallows its output.

    hooks = Hooks({"study.complete": ("/usr/local/bin/notify", "{study_instance_uid}")}, ...)
    hooks.tell("study.complete", {...event...}, {"study_instance_uid": "1.2.3"})
    loop: hooks.step(now)
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ingester.model import type_json

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 4
_MOST_WAITING = 10_000
_TIMEOUT_SECONDS = 60.0
_KEPT_OUTPUT = 4096
_PLACEHOLDER = re.compile(r"\{(study_instance_uid|folder|source|batch)\}")


@dataclass(frozen=True, slots=True)
class _Call:
    kind: str
    arguments: tuple[str, ...]
    document: bytes


@dataclass(slots=True)
class _Running:
    call: _Call
    process: subprocess.Popen[bytes]
    output: _Output
    deadline: float


class _Output(threading.Thread):
    """Reads all that a hook writes, keeps the beginning, and rings when it has ended."""

    def __init__(
        self, process: subprocess.Popen[bytes], descriptor: int, on_end: Callable[[], None]
    ) -> None:
        super().__init__(name="hook-output", daemon=True)
        self._process = process
        self._descriptor = descriptor
        self._on_end = on_end
        self.beginning = b""

    def run(self) -> None:
        """Read to the end, wait for the program's, then ring the loop."""
        while block := os.read(self._descriptor, 65536):
            room = _KEPT_OUTPUT - len(self.beginning)
            self.beginning += block[: max(room, 0)]
        os.close(self._descriptor)
        self._process.wait()
        self._on_end()


class Hooks:
    """Runs hooks beside the main loop, a few at a time, in order.

    Parameters
    ----------
    commands : the argument list of each kind of event; an empty one is no hook
    on_end : called from any thread when a hook has ended (the loop then calls `step`)
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        on_end: Callable[[], None],
        timeout: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._commands = {kind: tuple(words) for kind, words in commands.items() if words}
        self._on_end = on_end
        self._timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._running: list[_Running] = []

    def tell(
        self, kind: str, event: Mapping[str, type_json], placeholders: Mapping[str, str]
    ) -> None:
        """Queue the hook of this kind of event, where there is one."""
        words = self._commands.get(kind)
        if words is None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            log.warning("hook %s: too many wait already; this event's is left out", kind)
            return

        def replaced(match: re.Match[str]) -> str:
            # A NUL cannot be in an argument; nothing of ours holds one.
            return placeholders.get(match[1], "").replace("\0", "")

        arguments = tuple(_PLACEHOLDER.sub(replaced, word) for word in words)
        self._waiting.append(_Call(kind, arguments, json.dumps(event).encode() + b"\n"))

    @property
    def is_busy(self) -> bool:
        """Return whether a hook runs or waits."""
        return bool(self._running or self._waiting)

    def next_deadline(self) -> float | None:
        """Return when `step` must be called at the latest (monotonic)."""
        return min((each.deadline for each in self._running), default=None)

    def step(self, now: float) -> None:
        """Collect what has ended, end what runs too long, start what waits."""
        for running in list(self._running):
            code = running.process.poll()
            if code is None and now >= running.deadline:
                _kill(running.process)
                code = running.process.wait()
                log.warning(
                    "hook %s: did not end within %g s and was killed",
                    running.call.kind,
                    self._timeout,
                )
            elif code:
                log.warning("hook %s: ended with exit code %d", running.call.kind, code)
            if code is not None:
                self._running.remove(running)
                log.debug("hook %s: %r", running.call.kind, running.output.beginning)
        while self._waiting and len(self._running) < _MOST_AT_ONCE:
            self._start(self._waiting.popleft(), now)

    def close(self) -> None:
        """End every hook that still runs; what waits is not started."""
        self._waiting.clear()
        for running in self._running:
            _kill(running.process)
            running.process.wait()
        self._running.clear()

    def _start(self, call: _Call, now: float) -> None:
        # The event lies in memory like a file: no pipe that a hook which never reads
        # its input could block us on.
        event = os.memfd_create("event", os.MFD_CLOEXEC)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            os.write(event, call.document)
            os.lseek(event, 0, os.SEEK_SET)
            process = subprocess.Popen(
                call.arguments, stdin=event, stdout=writer, stderr=writer, start_new_session=True
            )
        except OSError as error:
            os.close(reader)
            log.warning("hook %s: cannot be started: %s", call.kind, error.strerror)
            return
        finally:
            os.close(event)
            os.close(writer)
        output = _Output(process, reader, self._on_end)
        output.start()
        self._running.append(_Running(call, process, output, now + self._timeout))


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has just ended by itself
