"""Stepping back: work that can wait lets everybody else go first.

Nice value and I/O priority belong to a thread and are inherited by those it starts,
so they are set before any is.
"""

from __future__ import annotations

import ctypes
import os
import platform

#: I/O priorities of ioprio_set(2): only when nobody else asks, and the last in the row.
IDLE = 3 << 13
LAST = 2 << 13 | 7

_NICE = 10
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS = 1
_libc = ctypes.CDLL(None, use_errno=True)


def step_back() -> None:
    """Let this process, still of one thread, have processor and disk after others.

    Where the kernel refuses it, the work is as loud as any other.
    """
    os.nice(_NICE)
    try:
        set_io_priority(LAST)
    except OSError:
        return  # a container may forbid it; the nice value holds


def set_io_priority(priority: int) -> None:
    """Set the I/O priority of this thread; raises OSError where that cannot be."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        raise OSError("no system call number for this machine")
    if _libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, priority) != 0:
        raise OSError(ctypes.get_errno(), "ioprio_set")
