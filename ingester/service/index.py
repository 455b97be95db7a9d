"""The index at start: opened, or kept aside and made again from the archive.

An index that is missing while the archive has objects, or damaged, is never silently
created anew: the old files are renamed aside together and the archive is read back.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from ingester import durable
from ingester.archive import Archive
from ingester.config import Settings
from ingester.index.columns import no_progress
from ingester.index.connection import Corrupt, connect_reader, is_missing
from ingester.index.migrations import keep_copy
from ingester.index.writer import Writer
from ingester.model import Clock
from ingester.observe import described
from ingester.service import rooms

log = logging.getLogger(__name__)

_FILE_MODE = 0o640
#: An index of this size is copied within about a second.
_QUICK_BYTES = 128 << 20
#: A log of this length is worth telling people.
_LONG_LOG_BYTES = 1 << 30
#: Told (done, total or None where nobody knows, note).
Progress = Callable[[int, int | None, str], None]


def open_index(
    settings: Settings, archive: Archive, clock: Clock, *, progress: Progress | None = None
) -> Writer:
    """Open the index, making it again from the archive where that must be.

    Raises
    ------
    Fatal : a database of somebody else, or of a newer version
    Retry : the disk does not let us
    """
    path = settings.index.path
    had_wal = _has_wal(path)
    if is_missing(path) and archive.has_objects():
        log.warning("the index %s is missing and is made again from the archive", path)
        _rebuild(settings, clock, progress)
    try:
        return _opened(settings, check=had_wal, progress=progress)
    except Corrupt as error:
        log.error("%s It is kept aside and made again from the archive.", error)
    _rebuild(settings, clock, progress)
    return _opened(settings, check=False, progress=progress)


def _opened(settings: Settings, *, check: bool, progress: Progress | None) -> Writer:
    writer = Writer.open(
        settings.index.path,
        columns=settings.index.columns,
        mode=_FILE_MODE,
        progress=progress or no_progress,
    )
    if check:
        # The last run did not end by itself: its log was replayed just now.
        try:
            _quick_check(settings.index.path)
        except BaseException:
            writer.close()
            raise
    return writer


def _has_wal(path: Path) -> bool:
    wal = path.with_name(path.name + "-wal")
    return wal.exists() and wal.stat().st_size > 0


def held_log(writer: Writer | None) -> str | None:
    """Return why the index's log grows and grows, None where it does not."""
    held = writer.held_log_bytes if writer is not None else 0
    if held < _LONG_LOG_BYTES:
        return None
    return (
        f"the index's log has grown to {held / (1 << 30):.1f} GiB, because some program has been "
        "reading the index as it was long ago; it shrinks when that program ends"
    )


def _quick_check(path: Path) -> None:
    connection = connect_reader(path)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"The index {path} is damaged ({error}).") from error
    finally:
        connection.close()
    if found != "ok":
        raise Corrupt(f"The index {path} is damaged ({found}).")


class Snapshots:
    """Copies of the index for shares and notebooks: ordinary databases, not WAL.

    Each is made in a thread with a connection of its own, so that reading a large
    index holds up nobody.
    """

    def __init__(self, index: Path, target: Path) -> None:
        self._index = index
        self._target = target
        self._thread: threading.Thread | None = None
        self._is_stale = False

    def note_change(self) -> None:
        """Note that the index has changed since the last copy."""
        self._is_stale = True

    def take(self) -> None:
        """Begin a copy, unless one is being made or nothing has changed."""
        is_running = self._thread is not None and self._thread.is_alive()
        if is_running or not (self._is_stale or not self._target.exists()):
            return
        self._is_stale = False
        self._thread = threading.Thread(target=self._take, name="snapshot")
        self._thread.start()

    def take_first(self) -> None:
        """Begin a copy where there is none yet."""
        if not self._target.exists():
            self.take()

    def take_last(self) -> None:
        """Make a copy before the end, of an index that takes no time to copy."""
        if self._is_stale and self._index.stat().st_size <= _QUICK_BYTES:
            self.take()
        self.join()

    def join(self) -> None:
        """Wait for a copy that is being made."""
        if self._thread is not None:
            self._thread.join()

    def _take(self) -> None:
        try:
            connection = sqlite3.connect(
                f"{self._index.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0
            )
            try:
                keep_copy(connection, self._target, _FILE_MODE)
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            log.warning("the snapshot of the index could not be made: %s", described(error))
            durable.unlink(self._target.with_name(f"{self._target.name}.part"))
            self._is_stale = True


def _rebuild(settings: Settings, clock: Clock, progress: Progress | None) -> None:
    from ingester.check import rebuild

    made = rebuild(
        settings.archive.path,
        settings.index.path,
        clock=clock,
        spool=settings.spool.path,
        progress=progress,
        executor=rooms.pool_of(settings.workers.prepare_count),
        defaults=rooms.source_defaults(settings),
        limits=rooms.ingest_settings(settings, is_impatient=True).limits,
        columns=settings.index.columns,
        mode=_FILE_MODE,
    )
    log.warning("the index is made again: %d objects", made.objects)
    for finding in made.findings:
        log.warning("found by the rebuild: %s: %s", finding.kind, finding.path)
    for sentence in made.lost:
        log.warning("not carried over: %s", sentence)
