"""`index-snapshot.db`: an ordinary copy of the index, for shares, notebooks, still services.

    snapshots.take()          on schedule: begins a copy in a thread, unless one is fresh
    snapshots.finish(10.0)    at the end: waits so long for it, then gives it up
    refresh(settings, clock)  after a command without a service: where it takes no time

The copy is SQLite's own (`VACUUM INTO`): one moment of the index, without a write-ahead
log, packed.  It reads beside the ingest for as long as it takes, and so long the log
cannot begin anew (docs/index.md has figures).  SQLite's backup interface would hold the
log up less, but begins anew whenever a row is written: beside a busy ingest it never
ends.  What a copy that was given up or killed leaves behind is removed, and the one
before it stays.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ingester import durable
from ingester.config import Settings
from ingester.index.migrations import write_copy
from ingester.model import Clock
from ingester.observe import described

log = logging.getLogger(__name__)

NAME = "index-snapshot.db"
_FILE_MODE = 0o640
#: An index of this size is copied within a second or two.
_QUICK_BYTES = 128 << 20
#: How often (virtual machine steps) SQLite asks whether to go on.
_STEPS = 10_000
#: Times of files are as coarse as the kernel's clock ticks (ns).
_TICK_NS = 10_000_000
_SLICE_SECONDS = 0.1
#: So long SQLite may take to notice that nobody waits any more.
_GIVING_UP_SECONDS = 3.0


class _GivenUp(Exception):
    """Nobody waits for this copy any more."""


class Snapshots:
    """The copy of one index, made again when something has changed since."""

    def __init__(self, index: Path, target: Path, *, interval: float | None, clock: Clock) -> None:
        """*interval* is how old a copy may become (seconds), None for no copies."""
        self._index = index
        self._target = target
        self._interval = interval
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._is_given_up = threading.Event()
        self._is_left_alone = False

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Snapshots:
        """Return those of a site."""
        target = settings.archive.path / NAME
        interval = settings.index.snapshot
        return cls(settings.index.path, target, interval=interval, clock=clock)

    def tidy(self) -> None:
        """Remove what a copy that was killed left behind; nobody else makes one."""
        for suffix in ("", "-journal"):
            durable.unlink(self._part.with_name(self._part.name + suffix))

    def take(self) -> None:
        """Begin a copy, unless one is being made or nothing has changed."""
        if self._interval is None or self._is_running or not self._is_stale():
            return
        self._is_given_up.clear()
        # A disk that does not answer must not keep the service from ending.
        self._thread = threading.Thread(target=self._take, name="snapshot", daemon=True)
        self._thread.start()

    def take_first(self) -> None:
        """Begin a copy where there is none yet."""
        if not self._target.exists():
            self.take()

    @property
    def is_quick(self) -> bool:
        """Return whether a copy of this index takes no time."""
        return self._index.stat().st_size <= _QUICK_BYTES

    def take_if_quick(self) -> None:
        """Begin a copy of an index that takes no time to copy."""
        if self.is_quick:
            self.take()

    def take_if_old(self) -> None:
        """Begin a copy where the last one is older than it may become."""
        copied = _changed_at(self._target)
        if copied is None or self._interval is None:
            age = float("inf")
        else:
            age = self._clock.now().timestamp() - copied / 1e9
        if self._interval is not None and age >= self._interval:
            self.take()

    def finish(
        self, patience: float | None, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait for a copy that is being made, *patience* seconds (None: to its end).

        Then, or once *is_stopping*, it is given up.
        """
        thread = self._thread
        if thread is None:
            return
        end = None if patience is None else self._clock.monotonic() + patience
        while thread.is_alive() and not is_stopping():
            left = _SLICE_SECONDS if end is None else end - self._clock.monotonic()
            if left <= 0:
                break
            thread.join(min(left, _SLICE_SECONDS))
        if not thread.is_alive():
            return
        self._is_given_up.set()
        thread.join(_GIVING_UP_SECONDS)
        # Where a disk does not even answer, the next start removes what is left.
        self._is_left_alone = thread.is_alive()
        log.info("the snapshot of the index takes too long to be waited for; it is made later")

    @property
    def _part(self) -> Path:
        return self._target.with_name(f"{self._target.name}.part")

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _is_stale(self) -> bool:
        copied = _changed_at(self._target)
        log_file = self._index.with_name(f"{self._index.name}-wal")
        return copied is None or any(
            changed is not None and changed > copied
            for changed in (_changed_at(self._index), _changed_at(log_file))
        )

    def _take(self) -> None:
        try:
            self._copy()
        except (_GivenUp, OSError, sqlite3.Error) as error:
            if not self._is_given_up.is_set():
                log.warning("the snapshot of the index could not be made: %s", described(error))
            if not self._is_left_alone:
                self.tidy()

    def _copy(self) -> None:
        self.tidy()
        os.close(durable.create(self._part, _FILE_MODE))
        began_ns = self._part.stat().st_mtime_ns - _TICK_NS
        # Only one who could write takes away the log's empty file when all is done.
        address = f"{self._index.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=10.0)) as connection:
            connection.set_progress_handler(self._is_given_up.is_set, _STEPS)
            write_copy(connection, self._part, _FILE_MODE)
        self._go_on()
        folder = self._target.parent.stat()
        if self._part.stat().st_gid != folder.st_gid:
            os.chown(self._part, -1, folder.st_gid)
        # What was written while it was copied is not in it, and makes it stale.
        os.utime(self._part, ns=(began_ns, began_ns))
        self._go_on()
        durable.replace(self._part, self._target)
        durable.flush_folder(self._target.parent)

    def _go_on(self) -> None:
        if self._is_given_up.is_set():
            raise _GivenUp


def refresh(settings: Settings, clock: Clock, *, at_any_size: bool = False) -> None:
    """Make the copy anew, after a command that changed the index without a service.

    The site is held.  Unless *at_any_size*, a large index is left to the next service
    or `run --once`: nobody waits minutes for the answer to a small command.
    """
    snapshots = Snapshots.of(settings, clock)
    snapshots.tidy()
    if at_any_size:
        snapshots.take()
    else:
        snapshots.take_if_quick()
    snapshots.finish(None)


def _changed_at(path: Path) -> int | None:
    """Return when a file was written (ns), None where there is none, or nothing in it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns if status.st_size else None
