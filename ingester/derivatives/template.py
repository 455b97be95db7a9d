"""The process that workers are forked from: warm, with one thread, and in charge of them.

Importing decoders takes half a second, forking a process that has them a few
milliseconds.  So one process imports everything, gives up what it does not need
(priority, network) and forks workers, each for one object at a time.  A worker that
crashed, hung, grew or served long enough is replaced; one that succeeds goes on.

    service ──requests──► template ──request──► worker (own process group) ──► FFmpeg
            ◄──outcomes──          ◄──answer───

It is started as `python -m ingester.derivatives.template`, never forked from the
service, which has threads.  It ends when the service's end of the socket closes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NoReturn

from ingester.derivatives.confine import confine, die_with_parent, limit, waited_seconds
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.request import Allowance, DeriveRequest, DeriveResult
from ingester.derivatives.video import ffmpeg_program, ffmpeg_version

type_target = Callable[[DeriveRequest], DeriveResult]

ANSWERED, CRASHED, TIMED_OUT = "answered", "crashed", "timed-out"

_MOST_JOBS = 256
_GROWN_KIB = 768 * 1024
_PACKET_BYTES = 32 * 1024
_MOST_ANSWER_BYTES = 8 * 2**20
#: However starved, a job ends after so many times its allowance.
_MOST_PATIENCE = 10
_MORE, _LAST, _FAREWELL = b"+", b".", b"!"


@dataclass(frozen=True, slots=True)
class Job:
    """A request on its way to a worker."""

    token: int
    request: DeriveRequest
    allowed: Allowance


@dataclass(slots=True)
class _Worker:
    """A forked process, and the job it is at."""

    process: int
    pipe: socket.socket
    job: Job | None = None
    started: float = 0.0
    waited: float = 0.0
    deadline: float = 0.0
    answer: bytes = b""


class Template:
    """Hand jobs to workers, see to it that they end, and report how."""

    def __init__(self, control: Connection, target: type_target, workers: int) -> None:
        self._control = control
        self._target = target
        self._most = workers
        self._queue: deque[Job] = deque()
        self._workers: dict[int, _Worker] = {}
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)

    def run(self, greeting: bytes) -> None:
        """Serve until the control socket closes; no worker survives that."""
        try:
            self._control.send_bytes(greeting)
            while self._turn():
                pass
        except BrokenPipeError:
            pass  # the service is gone: nobody waits for what we had to say
        finally:
            for worker in list(self._workers.values()):
                self._end(worker)

    def _turn(self) -> bool:
        """Wait for something to happen and see to it; False where nobody asks any more."""
        for descriptor, _ in self._poll.poll(self._milliseconds()):
            if descriptor == self._control.fileno():
                try:
                    self._queue.append(pickle.loads(self._control.recv_bytes()))
                except (EOFError, ConnectionResetError):
                    return False
            elif descriptor in self._workers:
                self._hear(self._workers[descriptor])
        for worker in list(self._workers.values()):
            if worker.job is not None and time.monotonic() >= worker.deadline:
                self._lose_patience(worker)
        self._assign()
        return True

    def _milliseconds(self) -> float | None:
        deadlines = [each.deadline for each in self._workers.values() if each.job is not None]
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1

    def _assign(self) -> None:
        while self._queue:
            idle = next((each for each in self._workers.values() if each.job is None), None)
            if idle is None and len(self._workers) >= self._most:
                return
            worker = idle or self._fork()
            worker.job = self._queue.popleft()
            worker.started = time.monotonic()
            worker.waited = waited_seconds(worker.process)
            worker.deadline = worker.started + worker.job.allowed.wall_seconds
            try:
                worker.pipe.send(pickle.dumps((worker.job.request, worker.job.allowed)))
            except OSError:  # it ended while idle: somebody killed it
                self._queue.appendleft(worker.job)
                self._end(worker)

    def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        template = os.getpid()
        process = os.fork()
        if process == 0:
            self._control.close()
            ours.close()
            for other in self._workers.values():
                other.pipe.close()
            os.setpgid(0, 0)
            die_with_parent(template)
            _serve(theirs, self._target)
        theirs.close()
        try:
            os.setpgid(process, process)
        except (PermissionError, ProcessLookupError):
            pass  # it was faster
        worker = _Worker(process, ours)
        self._workers[ours.fileno()] = worker
        self._poll.register(ours.fileno(), select.POLLIN)
        return worker

    def _hear(self, worker: _Worker) -> None:
        """Take a packet of an answer, or notice that the worker is gone."""
        try:
            packet = worker.pipe.recv(_PACKET_BYTES + 1)
        except ConnectionResetError:
            packet = b""
        mark, worker.answer = packet[:1], worker.answer + packet[1:]
        if mark == _MORE and len(worker.answer) <= _MOST_ANSWER_BYTES:
            return
        if mark in (_LAST, _FAREWELL) and worker.job is not None:
            self._report(worker, ANSWERED)
            if mark == _LAST:
                return
        status = self._end(worker)
        if worker.job is not None:
            is_slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
            self._report(worker, TIMED_OUT if is_slow else CRASHED)

    def _lose_patience(self, worker: _Worker) -> None:
        """Kill a worker past its time, unless it only was never given a processor."""
        assert worker.job is not None
        allowed = worker.job.allowed.wall_seconds
        starved = waited_seconds(worker.process) - worker.waited
        deadline = worker.started + min(allowed + starved, _MOST_PATIENCE * allowed)
        if deadline > time.monotonic():
            worker.deadline = deadline
            return
        self._end(worker)
        self._report(worker, TIMED_OUT)

    def _report(self, worker: _Worker, end: str) -> None:
        assert worker.job is not None
        head = json.dumps([worker.job.token, end]).encode()
        self._control.send_bytes(head + b"\n" + (worker.answer if end == ANSWERED else b""))
        worker.job, worker.answer = None, b""

    def _end(self, worker: _Worker) -> int:
        """Kill a worker with all it started; return its wait status."""
        del self._workers[worker.pipe.fileno()]
        self._poll.unregister(worker.pipe.fileno())
        worker.pipe.close()
        try:
            # Before it is waited for, so that its number is still its own.
            os.killpg(worker.process, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return os.waitpid(worker.process, 0)[1]


def _serve(pipe: socket.socket, target: type_target) -> NoReturn:
    """Be a worker: one job after the other, until the template hangs up."""
    code = 1
    complaints = _hush_libraries()
    try:
        for served in range(1, _MOST_JOBS + 1):
            packet = pipe.recv(_PACKET_BYTES * 2)
            if not packet:
                break
            request, allowed = pickle.loads(packet)
            limit(allowed)
            answer = target(request).to_json()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _GROWN_KIB
            is_last = grown or served == _MOST_JOBS
            _send(pipe, answer, _FAREWELL if is_last else _LAST)
            if is_last:
                break
        code = 0
    except BaseException as error:  # noqa: BLE001 - the border of the process
        # The place, never the words: they may quote a header.
        where = "".join(traceback.format_tb(error.__traceback__))
        os.write(complaints, f"{type(error).__name__}\n{where}".encode())
    finally:
        os._exit(code)  # nothing inherited is to be tidied here


def _hush_libraries() -> int:
    """Keep what decoders written in C print to themselves; return where we may complain.

    They write to descriptor 2 whatever they find wrong with a picture: the outcome
    says it in our words, and theirs would run through the service's log.
    """
    complaints = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nothing, 2, inheritable=False)
    os.close(nothing)
    return complaints


def _send(pipe: socket.socket, answer: bytes, last: bytes) -> None:
    while len(answer) > _PACKET_BYTES:
        pipe.send(_MORE + answer[:_PACKET_BYTES])
        answer = answer[_PACKET_BYTES:]
    pipe.send(last + answer)


def _warm_up() -> None:
    """Look for FFmpeg once, not in every worker (finding it runs it)."""
    try:
        ffmpeg_program()
        ffmpeg_version()
    except DecodeError:
        pass  # each video will say so


def main() -> None:
    """Be the template: `template DESCRIPTOR PARENT WORKERS MODULE:FUNCTION`."""
    descriptor, parent, workers, name = sys.argv[1:5]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    refused = confine()
    die_with_parent(int(parent))
    module, _, function = name.partition(":")
    target: type_target = getattr(importlib.import_module(module), function)
    _warm_up()
    gc.collect()
    gc.freeze()  # what is shared with the workers stays shared
    os.set_inheritable(int(descriptor), False)
    control = Connection(int(descriptor))
    Template(control, target, int(workers)).run(json.dumps(refused).encode())


if __name__ == "__main__":
    main()
