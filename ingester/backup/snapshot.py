"""The index of a backup: one moment of the live index, checked before it is believed.

The copy is made by SQLite beside the running service, as an ordinary database; it gets
its name when every file that it names is in the backup.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ingester import durable
from ingester.backup.destination import Destination
from ingester.backup.origin import INDEX
from ingester.errors import Fatal
from ingester.index.connection import Corrupt, connect_reader, is_missing, translated
from ingester.index.migrations import write_copy
from ingester.index.readers import Reader

_FILE_MODE = 0o640
_SIDE_FILES = ("-wal", "-shm", "-journal")
#: How often (virtual machine steps) a long statement asks whether to stop.
_STEPS = 100_000


def take(index: Path, destination: Destination, is_stopped: Callable[[], bool]) -> Path:
    """Copy the index as it is now; returns where the copy waits for its name.

    Raises
    ------
    Corrupt : the index is damaged; rebuild it
    Retry : the disk does not let us now
    KeyboardInterrupt : *is_stopped* said so
    """
    target = destination.staging / INDEX
    with translated(index), closing(connect_reader(index)) as connection:
        connection.execute("PRAGMA query_only = OFF")  # the copy is written through it
        connection.set_progress_handler(is_stopped, _STEPS)
        try:
            write_copy(connection, target, _FILE_MODE, has_locks=False)
        except sqlite3.OperationalError:
            if is_stopped():
                raise KeyboardInterrupt from None
            raise
    _check(target, is_stopped)
    return target


def _check(copy: Path, is_stopped: Callable[[], bool]) -> None:
    """Read the copy back from its disk and have SQLite look at all of it."""
    descriptor = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    with translated(copy), closing(connect_reader(copy, is_still=True)) as connection:
        connection.set_progress_handler(is_stopped, _STEPS)
        try:
            told = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            if is_stopped():
                raise KeyboardInterrupt from None
            told = str(error)
    if told != "ok":
        raise Corrupt(
            f"The copy of the index is not whole ({told}): the index is damaged "
            "(see: ingester verify), or the disk of the backup is. The former copy stays."
        )


def put(destination: Destination, copy: Path, stamp: str) -> Path | None:
    """Give the copy its name; returns where the former index was kept, if it was.

    It is kept where the new one knows fewer objects: nothing ever leaves an archive,
    so something is wrong, and the former may be what mends it.
    """
    index = destination.root / INDEX
    kept: Path | None = None
    if not is_missing(index) and _count(index) > _count(copy):
        kept = index.with_name(f"{INDEX}.{stamp}")
        durable.rename(index, kept)
    for suffix in _SIDE_FILES:
        # Of the former index, where somebody has opened it for writing (rebuild does).
        durable.unlink(index.with_name(INDEX + suffix))
    durable.replace(copy, index)
    durable.flush_folder(index.parent)
    return kept


def _count(index: Path) -> int:
    """Return how many objects an index knows; 0 where it cannot say."""
    try:
        with closing(connect_reader(index, is_still=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM instances").fetchone()[0])
    except (sqlite3.DatabaseError, Fatal):
        return 0


def read(copy: Path) -> Reader:
    """Open a copy that nobody writes to: no locks are needed, which a share may lack."""
    return Reader.open(copy, is_still=True)


def size_of(index: Path) -> int:
    """Return about how many bytes a copy of the index takes.

    Raises
    ------
    Fatal : there is no index
    """
    if is_missing(index):
        raise Fatal(f"there is no index at {index} yet: `ingester run` makes it")
    wal = index.with_name(f"{index.name}-wal")
    return os.stat(index).st_size + (os.stat(wal).st_size if wal.exists() else 0)


def changed(copy: Path, former: Path) -> frozenset[str]:
    """Return the paths that held other bytes when the former index was copied.

    An object that was lost may have come again in another encoding.  None where the
    former index cannot say: then what its files' sizes and times say must do.
    """
    if is_missing(former):
        return frozenset()
    uri = "?mode=ro&immutable=1"
    with closing(
        sqlite3.connect(f"{copy.absolute().as_uri()}{uri}", uri=True, isolation_level=None)
    ) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("ATTACH ? AS former", (f"{former.absolute().as_uri()}{uri}",))
        try:
            rows = connection.execute(
                "SELECT n.path FROM main.instances AS n JOIN former.instances AS f"
                " ON f.path = n.path WHERE f.sha256 <> n.sha256"
            ).fetchall()
        except sqlite3.DatabaseError:
            return frozenset()
    return frozenset(row[0] for row in rows)
