"""The index at start: opened, or kept aside and made again from the archive.

An index that is missing while the archive has objects, or damaged, is never silently
created anew: the old files are renamed aside together and the archive is read back.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from ingester.archive import Archive
from ingester.config import Settings
from ingester.index.columns import no_progress
from ingester.index.connection import Corrupt, connect_reader, is_missing
from ingester.index.writer import Writer
from ingester.model import Clock
from ingester.service import rooms

log = logging.getLogger(__name__)

_FILE_MODE = 0o640
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
