"""One flush of a folder for all who wait for it.

A name is durable once its folder was flushed after the name was made.  Where many
associations finish objects at once, one flush that begins after all of their renames
serves them all: the first to come leads, the others wait, and whoever comes while a
flush is running waits for the next one, which begins the moment this one ends.  There
is no timer: with one sender nobody waits for anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ingester import durable


class FlushTimeoutError(OSError):
    """The disk took too long to promise anything."""


class _Round:
    """One flush of one folder: those who joined it before it began are served by it."""

    def __init__(self) -> None:
        self.is_over = False
        self.error: OSError | None = None


class FolderFlusher:
    """Flushes folders, grouped per folder, for any number of threads."""

    def __init__(
        self, patience: float = 20.0, flush: Callable[[Path], None] = durable.flush_folder
    ) -> None:
        self._patience = patience
        self._flush = flush
        self._changed = threading.Condition()
        self._running: set[Path] = set()
        self._next: dict[Path, _Round] = {}

    def flush(self, folder: Path) -> None:
        """Return once a flush of *folder* that began after this call has succeeded.

        Raises
        ------
        OSError : the flush failed (for all who waited for it), or took longer than
            senders wait; in either case nothing may be promised
        """
        deadline = time.monotonic() + self._patience
        with self._changed:
            mine = self._next.setdefault(folder, _Round())
            while not mine.is_over and folder in self._running:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise FlushTimeoutError("the disk took too long to flush a folder")
            if not mine.is_over:
                self._running.add(folder)
                del self._next[folder]
            leads = not mine.is_over
        if leads:
            self._lead(folder, mine)
        if mine.error is not None:
            raise OSError(*mine.error.args) from mine.error

    def _lead(self, folder: Path, mine: _Round) -> None:
        try:
            self._flush(folder)
        except OSError as error:
            mine.error = error
        finally:
            with self._changed:
                mine.is_over = True
                self._running.discard(folder)
                self._changed.notify_all()
