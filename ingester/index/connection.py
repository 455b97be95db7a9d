"""Opening the index: pragmas, and errors told apart by whose fault they are.

SQLite's errors become ours at this border: a damaged file is `Corrupt` (set aside
and rebuilt), a full disk or a lock is a `Retry` (the world's, wait), anything else
stays what it is: a mistake of the program.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingester import durable
from ingester.errors import Fatal, IngesterError, Retry

#: "INGS": what `PRAGMA application_id` of our index says.
APPLICATION_ID = 0x494E4753

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TRANSIENT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    }
)
#: What it means for people, where SQLite's own words do not say it.
_MEANING = {
    sqlite3.SQLITE_BUSY: "another program is changing it, perhaps a viewer with unsaved changes",
    sqlite3.SQLITE_FULL: "the disk is full",
}
PAGE_BYTES = 4096
#: So long the writer waits for somebody else's lock before the caller is told.
_PATIENCE_MS = 2000


class Corrupt(IngesterError):
    """The index is damaged: keep it aside and rebuild it from the archive."""


def is_missing(path: Path) -> bool:
    """Say whether there is no index at *path*: no file, or an empty one."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `Corrupt` or `Retry` where they are not ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _CORRUPT:
            raise Corrupt(f"The index {path} is damaged ({error}).") from error
        if code in _TRANSIENT:
            name = getattr(error, "sqlite_errorname", "")
            meaning = _MEANING.get(code, str(error))
            raise Retry(f"The index {path} cannot be used now: {meaning} ({name}).") from error
        raise


def connect_writer(path: Path, mode: int) -> sqlite3.Connection:
    """Open the one writing connection, making the file where there is none."""
    is_new = not path.exists()
    if is_new:
        os.close(durable.create(path, mode))
        durable.flush_folder(path.parent)
    connection = sqlite3.connect(
        path, isolation_level=None, cached_statements=256, check_same_thread=False
    )
    try:
        be_patient(connection)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # counts for a new file only
        _refuse_foreign(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def be_patient(connection: sqlite3.Connection, milliseconds: int = _PATIENCE_MS) -> None:
    """Set how long the writer waits for locks; nobody is answered meanwhile."""
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}")


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot change anything.

    Where the folder cannot be written and nobody has the index open, SQLite cannot
    make the shared memory that WAL needs: then the file is read as immutable.
    """
    uri = path.absolute().as_uri()
    try:
        return _connect_reader(f"{uri}?mode=ro", path)
    except sqlite3.OperationalError as error:
        has_wal = path.with_name(path.name + "-wal").exists()
        # Which of the two it says depends on whether the folder or the file is shut.
        is_shut = error.sqlite_errorcode & 0xFF in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        )
        if not is_shut or has_wal or not path.exists():
            raise
        return _connect_reader(f"{uri}?mode=ro&immutable=1", path)


def _connect_reader(uri: str, path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=10.0, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        # A name nobody could decode must not make a whole answer unreadable.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA mmap_size = 0")
        _refuse_foreign(connection, path)
        # Their first use declares a table, which an authoriser set later would refuse.
        for function in ("json_each('[]')", "json_tree('[]')", "pragma_table_info('x')"):
            connection.execute(f"SELECT 1 FROM {function}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of somebody else before anything in it is changed."""
    application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != APPLICATION_ID and (application_id or tables):
        raise Fatal(f"{path} is an SQLite database, but not an index of ingester.")
