"""The service's side of deriving: requests out, results in, whatever happens in between.

A `Deriver` never decodes.  It starts the template process, sends it requests and
hears how each ended.  A worker that dies takes its object's picture along and nothing
else: where a video brought it down, the thumbnail is tried alone; where that fails
too, a card is made that says why.

    deriver = Deriver(workers=2, on_ready=wake.set)
    if deriver.has_room: deriver.submit(request)
    for result in deriver.results(): ...            after on_ready rang
    deriver.close()
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from ingester import durable
from ingester.derivatives.request import (
    Allowance,
    DeriveRequest,
    DeriveResult,
    Made,
    allowance,
)
from ingester.derivatives.template import ANSWERED, CRASHED, TIMED_OUT, Job
from ingester.model import DerivativeReason, Kind, Status

log = logging.getLogger(__name__)

TARGET = "ingester.derivatives.pipeline:derive"
_CLOSING_SECONDS = 5.0
#: Requests in flight per worker: the next one waits where it is needed.
_AHEAD = 2
#: The template may be killed (memory); the same request shall not kill it for ever.
_MOST_STARTS = 2
_REASONS = {CRASHED: DerivativeReason.DECODER_CRASHED, TIMED_OUT: DerivativeReason.TIMEOUT}
_KEPT_ENVIRONMENT = ("PATH", "IMAGEIO_FFMPEG_EXE", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(slots=True)
class _Attempt:
    """A request under way: what is tried now and what is known already."""

    request: DeriveRequest
    made: list[Made] = field(default_factory=list)
    starts: int = 0


class Deriver:
    """Run requests in disposable processes; driven from the main thread."""

    def __init__(
        self,
        workers: int,
        *,
        on_ready: Callable[[], None],
        target: str = TARGET,
        allowed: Callable[[DeriveRequest], Allowance] = allowance,
    ) -> None:
        """Take the number of *workers*; *on_ready* is called from another thread."""
        self._workers = max(1, workers)
        self._on_ready = on_ready
        self._target = target
        self._allowed = allowed
        self._attempts: dict[int, _Attempt] = {}
        self._heard: deque[bytes | None] = deque()
        self._finished: list[DeriveResult] = []
        self._token = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._reader: threading.Thread | None = None
        self.refused: tuple[str, ...] = ()

    @property
    def has_room(self) -> bool:
        """Say whether a request more would keep a worker busy."""
        return len(self._attempts) < self._workers * _AHEAD

    @property
    def pending(self) -> int:
        """Return how many requests are under way."""
        return len(self._attempts)

    def submit(self, request: DeriveRequest) -> None:
        """Have *request* made; its result comes from `results` some time later."""
        self._token += 1
        self._attempts[self._token] = _Attempt(request)
        self._send(self._token)

    def results(self) -> list[DeriveResult]:
        """Return what was finished since the last call; never waits."""
        while self._heard:
            message = self._heard.popleft()
            if message is None:
                self._start_again()
            else:
                self._hear(message)
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """End the template and its workers; what was under way is forgotten."""
        self._attempts.clear()
        self._stop()
        self._heard.clear()

    def __enter__(self) -> Deriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, token: int) -> None:
        attempt = self._attempts[token]
        attempt.starts += 1
        control = self._control or self._start()
        job = Job(token, attempt.request, self._allowed(attempt.request))
        try:
            control.send_bytes(pickle.dumps(job))
        except OSError:
            return  # the template is gone: its reader says so, and all is sent again

    def _start(self) -> Connection:
        """Start the template; from the main thread, for it dies with the thread."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ingester.derivatives.template"),
                    *(str(theirs.fileno()), str(os.getpid()), str(self._workers), self._target),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(os.environ),
                cwd="/",
                start_new_session=True,
            )
        self._control = Connection(ours.detach())
        self._reader = threading.Thread(
            target=_read, args=(self._control, self._heard, self._on_ready), daemon=True
        )
        self._reader.start()
        return self._control

    def _stop(self) -> None:
        if self._process is None or self._control is None or self._reader is None:
            return
        # Only hanging up ends the reader's wait: closing the descriptor would not.
        with socket.socket(fileno=os.dup(self._control.fileno())) as control:
            try:
                control.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other end was first
        try:
            self._process.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._control.close()
        self._process = self._control = self._reader = None

    def _start_again(self) -> None:
        """The template is gone: send everything again to a new one."""
        log.warning("The process that decoders are forked from ended; starting another")
        self._stop()
        for token, attempt in list(self._attempts.items()):
            if attempt.starts < _MOST_STARTS:
                clear(attempt.request.staging)
                self._send(token)
            else:
                self._died(token, DerivativeReason.DECODER_CRASHED)

    def _hear(self, message: bytes) -> None:
        head, newline, answer = message.partition(b"\n")
        if not newline:  # the first word: what confinement the kernel refused
            self.refused = tuple(json.loads(head))
            if self.refused:
                log.warning("Decoders run without: %s", ", ".join(self.refused))
            return
        token, end = json.loads(head)
        if token not in self._attempts:
            return  # of a template before
        if end == ANSWERED:
            self._answered(token, answer)
        else:
            self._died(token, _REASONS[end])

    def _answered(self, token: int, answer: bytes) -> None:
        attempt = self._attempts[token]
        try:
            result = DeriveResult.from_json(answer)
        except ValueError:
            self._died(token, DerivativeReason.DECODER_CRASHED)
            return
        asked = attempt.request
        made = {each.kind: each for each in result.made}
        if result.trouble is None and (
            result.instance_id != asked.instance_id or set(made) != set(asked.kinds)
        ):
            self._died(token, DerivativeReason.DECODER_CRASHED)
            return
        del self._attempts[token]
        self._finished.append(replace(result, made=(*attempt.made, *result.made)))

    def _died(self, token: int, reason: DerivativeReason) -> None:
        """Go one step down: video and thumbnail, thumbnail alone, card, nothing."""
        attempt = self._attempts[token]
        request = attempt.request
        log.warning("A decoder worker ended: %s (instance %d)", reason, request.instance_id)
        clear(request.staging)
        attempt.starts = 0
        if Kind.VIDEO in request.kinds:
            attempt.made.append(Made(Kind.VIDEO, Status.FAILED, reason, {}, None))
        if Kind.THUMBNAIL not in request.kinds or request.stand_in is not None:
            if request.stand_in is not None:
                attempt.made.append(Made(Kind.THUMBNAIL, Status.FAILED, request.stand_in, {}, None))
            del self._attempts[token]
            self._finished.append(DeriveResult(request.instance_id, tuple(attempt.made)))
            return
        alone = frozenset((Kind.THUMBNAIL,))
        if Kind.VIDEO in request.kinds:
            attempt.request = replace(request, kinds=alone)
        else:
            attempt.request = replace(request, stand_in=reason)
        self._send(token)


def clear(staging: str) -> None:
    """Remove a request's staging folder and what lies in it."""
    folder = Path(staging)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        durable.unlink(folder / name)
    durable.remove_folder(folder)


def _environment(present: Mapping[str, str]) -> dict[str, str]:
    """Return a clean environment: nothing that changes how decoders behave or report."""
    kept = {name: present[name] for name in _KEPT_ENVIRONMENT if name in present}
    # One thread each: workers are what runs in parallel.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **kept,
        **threads,
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _read(control: Connection, heard: deque[bytes | None], on_ready: Callable[[], None]) -> None:
    """Pass on what the template says until it hangs up."""
    while True:
        try:
            heard.append(control.recv_bytes())
        except (EOFError, OSError):
            heard.append(None)
            on_ready()
            return
        on_ready()
