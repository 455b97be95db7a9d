"""What keeps a process that decodes strangers' pixels small, slow and alone.

Everything here is inherited by children (FFmpeg too).  What a kernel refuses is
reported by `confine`, not hidden: a container may forbid name spaces, and limits and
priorities still hold there.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from ingester import priority
from ingester.derivatives.request import Allowance

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MOST_FILES = 32
_OOM_SCORE = "500"  # a picture is never worth an image: we go first

_libc = ctypes.CDLL(None, use_errno=True)


def confine() -> list[str]:
    """Lower this process's priority and take its network away; return what failed.

    Must be called while there is only one thread (name spaces of users).
    """
    refused = []
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    steps: dict[str, Callable[[], None]] = {
        "scheduling": lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)),
        "io-priority": lambda: priority.set_io_priority(priority.IDLE),
        "oom-score": lambda: _write("/proc/self/oom_score_adj", _OOM_SCORE),
        "network": _leave_network,
    }
    for name, step in steps.items():
        try:
            step()
        except OSError:
            refused.append(name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, _MOST_FILES))
    return refused


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent (thread) ends.

    Called late: a change of name space clears the setting.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def limit(allowed: Allowance) -> None:
    """Set the limits of the next job; only soft ones, so that the job after may have more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + allowed.cpu_seconds
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, allowed.memory_bytes),
        (resource.RLIMIT_FSIZE, allowed.file_bytes),
    ):
        hard = resource.getrlimit(kind)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (soft, hard))


def waited_seconds(process: int) -> float:
    """Return how long a process or a child of it stood ready but was given no processor.

    At the lowest priority that may be long; a hang is something else.  0 where the
    kernel does not tell.
    """
    children = _read(f"/proc/{process}/task/{process}/children").split()
    longest = 0.0
    for each in (str(process), *children):
        try:
            threads = os.listdir(f"/proc/{each}/task")
        except OSError:
            continue
        for thread in threads:
            fields = _read(f"/proc/{each}/task/{thread}/schedstat").split()
            if len(fields) == 3:
                longest = max(longest, int(fields[1]) / 1e9)
    return longest


def _leave_network() -> None:
    """Move into a name space without network, by way of a user name space if need be."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWNET) == 0:
        return
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    # The same numbers inside as outside: files we make stay ours.
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="ascii")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""  # it has ended meanwhile
