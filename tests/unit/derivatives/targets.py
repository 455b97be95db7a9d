"""Functions that workers are told to run in place of the pipeline, to see them end."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

from ingester.derivatives.request import DeriveRequest, DeriveResult, Made
from ingester.model import DerivativeReason, Kind, Status

HANG, SPIN, SEGFAULT, EAT, RAISE, CHILD = range(101, 107)
LIE, REPORT, LONG, CRASH_ALWAYS, CRASH_AT_VIDEO, KILL_TEMPLATE = range(201, 207)


def made(request: DeriveRequest) -> DeriveResult:
    """Say that all was made, in which process, and write what is asked for."""
    folder = Path(request.staging)
    folder.mkdir()
    rows = []
    for kind in sorted(request.kinds):
        name = "thumbnail.jpg" if kind is Kind.THUMBNAIL else "video.mp4"
        (folder / name).write_bytes(b"picture")
        status = Status.MADE if request.stand_in is None else Status.FAILED
        detail = {"process": os.getpid(), "rendering": "card" if request.stand_in else "pixels"}
        rows.append(Made(kind, status, request.stand_in, detail, name))
    return DeriveResult(request.instance_id, tuple(rows))


def by_number(request: DeriveRequest) -> DeriveResult:
    """Do as the instance's number says; a card goes well unless nothing shall."""
    number = request.instance_id
    if number == LIE:
        return DeriveResult(number + 1, ())
    if number == REPORT:
        return report(request)
    if number == LONG:
        return long_answer(request)
    if number == KILL_TEMPLATE:
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    is_video = Kind.VIDEO in request.kinds
    if number == CRASH_ALWAYS or (number == CRASH_AT_VIDEO and is_video):
        os.abort()
    if request.stand_in is None:
        misbehave(number, Path(request.path))
    return made(request)


def misbehave(number: int, note: Path) -> None:
    if number == HANG:
        signal.pause()
    elif number == SPIN:
        while True:
            pass
    elif number == SEGFAULT:
        ctypes.string_at(0)
    elif number == EAT:
        _ = bytearray(64 * 2**30)
    elif number == RAISE:
        raise ValueError(str(note))
    elif number == CHILD:
        note.write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        signal.pause()


def report(request: DeriveRequest) -> DeriveResult:
    """Tell how confined this process is."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(("127.0.0.1", int(request.path_in_archive)))
            has_network = True
        except OSError:
            has_network = False
    detail = {
        "network": has_network,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "idle": os.sched_getscheduler(0) == os.SCHED_IDLE,
        "oom": int(Path("/proc/self/oom_score_adj").read_text()),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "leader": os.getpgid(0) == os.getpid(),
        "threads": threading.active_count(),
        "environment": sorted(os.environ),
        "descriptors": [os.readlink(f"/proc/self/fd/{each}") for each in range(3, 32) if _is(each)],
    }
    row = Made(Kind.THUMBNAIL, Status.SKIPPED, DerivativeReason.TOO_LARGE, detail, None)
    return DeriveResult(request.instance_id, (row,))


def _is(descriptor: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def long_answer(request: DeriveRequest) -> DeriveResult:
    detail = {"frame_map": [[each, 1] for each in range(30_000)]}
    row = Made(Kind.THUMBNAIL, Status.MADE, None, detail, None)
    return DeriveResult(request.instance_id, (row,))
