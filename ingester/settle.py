"""Tell whether a file is finished being written.

Two looks answer.  Where the kernel grants a read lease, no process has the file
open for writing, and no time need pass.  Where it has no leases (NFS, FUSE, files
of another user), the same size, times and inode for a while have to do.  All times
are of the monotonic clock; the file's own times are only ever compared for equality.
"""

from __future__ import annotations

import fcntl
import os
import signal
from dataclasses import dataclass

from ingester.model import FileIdentity, WriterState

#: A writer that has not written for so long is overruled, by copy (seconds).
OVERRULED_AFTER = 30.0

#: How soon to look again at a file that somebody has open for writing (seconds);
#: its close also wakes the watcher.
LOOK_AGAIN = 0.5


def ignore_lease_breaks() -> None:
    """Ignore SIGIO: whoever opens a leased file for writing sends it, and it kills."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def probe(descriptor: int) -> WriterState:
    """Ask the kernel whether anybody has the open file open for writing.

    The lease is given back at once.  SIGIO must be ignored (`ignore_lease_breaks`).

    References
    ----------
    fcntl(2), F_SETLEASE: needs the file's own user or CAP_LEASE.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return WriterState.WRITING
    except OSError:
        # EACCES (another user's file), EINVAL (not a regular file, no leases here),
        # ENOLCK and the like: the kernel does not know.
        return WriterState.UNKNOWN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return WriterState.FREE


def probe_path(path: str) -> WriterState:
    """Like `probe`, for a path; never waits on a FIFO, never follows a link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        # What cannot be opened is decided when it is claimed and read, not here.
        return WriterState.UNKNOWN
    try:
        return probe(descriptor)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Look:
    still: tuple[int, int, int, int]
    since: float
    seen: int


class Settling:
    """Remembers when each waiting file was last seen to change.

    Parameters
    ----------
    quiet : seconds without a change, where no lease can tell
    empty_after : seconds that an empty file may wait for its first byte
    """

    def __init__(self, *, quiet: float, empty_after: float) -> None:
        self._quiet = quiet
        self._empty_after = empty_after
        self._looks: dict[str, _Look] = {}
        self._round = 0

    def begin_round(self) -> None:
        """Begin a look at everything: what is not observed in it is forgotten."""
        self._round += 1

    def end_round(self) -> None:
        """Forget what was not there any more."""
        self._looks = {key: look for key, look in self._looks.items() if look.seen == self._round}

    def __len__(self) -> int:
        """Return how many files wait."""
        return len(self._looks)

    def forget(self, key: str) -> None:
        """Forget a file: it was claimed."""
        self._looks.pop(key, None)

    def wait_until(
        self,
        key: str,
        identity: FileIdentity,
        writer: WriterState,
        now: float,
        *,
        quiet: float | None = None,
    ) -> float | None:
        """Return None if the file has settled, else when to look again.

        A change of name changes ctime but not the rest, so ctime does not count here.
        """
        still = (identity.dev, identity.ino, identity.size, identity.mtime_ns)
        look = self._looks.get(key)
        if look is None or look.still != still:
            look = self._looks[key] = _Look(still, now, self._round)
        look.seen = self._round
        if identity.size == 0:
            needed = self._empty_after
        elif writer is WriterState.FREE:
            needed = 0.0
        elif writer is WriterState.WRITING:
            needed = OVERRULED_AFTER
        else:
            needed = self._quiet if quiet is None else quiet
        due = look.since + needed
        if now >= due:
            return None
        return min(due, now + LOOK_AGAIN) if writer is WriterState.WRITING else due
