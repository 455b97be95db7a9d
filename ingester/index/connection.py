"""Opening the index: pragmas, and errors told apart by whose fault they are.

SQLite's errors become ours at this border: a damaged file is `Corrupt` (set aside
and rebuilt), a full disk or a lock is a `Retry` (the world's, wait), anything else
stays what it is: a mistake of the program.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ingester.errors import Fatal, IngesterError, Retry
from ingester.index.additions import quoted

T = TypeVar("T")

#: "INGS": what `PRAGMA application_id` of our index says.
APPLICATION_ID = 0x494E4753

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: Primary result codes that are the world's fault.
TRANSIENT = frozenset(
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
    sqlite3.SQLITE_CANTOPEN: "this user may not open it; use the service's own user or group",
}
PAGE_BYTES = 4096
#: So long the writer waits for somebody else's lock before the caller is told.
_PATIENCE_MS = 2000
#: What SQLite says of an index whose expression needs a function it does not have.
_UNREADABLE = re.compile(r"malformed database schema \((.*)\) - (unknown function|unsafe use)")


class Corrupt(IngesterError):
    """The index is damaged: keep it aside and rebuild it from the archive."""

    remedy = "Stop the service and run `ingester rebuild`."


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
    except UnicodeDecodeError as error:
        # SQLite quotes the damaged schema in its complaint.
        raise Corrupt(f"The index {path} is damaged (malformed database schema).") from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if (strange := _UNREADABLE.match(str(error))) is not None:
            # Nothing of ours needs more than the oldest SQLite has, so somebody added it.
            raise Retry(
                f"The index {path} holds an index {strange[1]} that was made with a newer SQLite "
                f"and that this one ({sqlite3.sqlite_version}) cannot read. Drop it with the "
                "program that made it."
            ) from error
        if code in _CORRUPT:
            raise Corrupt(f"The index {path} is damaged ({error}).") from error
        if code in TRANSIENT:
            name = getattr(error, "sqlite_errorname", "")
            meaning = _MEANING.get(code, str(error))
            raise Retry(f"The index {path} cannot be used now: {meaning} ({name}).") from error
        raise


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the one writing connection to a file that is there, empty or an index."""
    connection = sqlite3.connect(
        path, isolation_level=None, cached_statements=256, check_same_thread=False
    )
    try:
        be_patient(connection)
        _distrust_schema(connection)
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


def connect_reader(
    path: Path, *, refuse_foreign: bool = True, is_still: bool = False
) -> sqlite3.Connection:
    """Open a connection that cannot change anything.

    *is_still* promises that nobody writes meanwhile: no locks are asked for then, which
    a network disk may not have.

    Where the folder cannot be written and nobody has the index open, SQLite cannot
    make the shared memory that WAL needs: then the file is read as immutable.
    """
    if is_still:
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        return _connect_reader(uri, path, refuse_foreign)
    return _first_that_opens(path, lambda uri: _connect_reader(uri, path, refuse_foreign))


def attach_reading(connection: sqlite3.Connection, path: Path, schema: str) -> None:
    """Let a connection (opened with `uri=True`) read another index as *schema*.

    It is opened as `connect_reader` would.
    """

    def attach(uri: str) -> None:
        connection.execute(f"ATTACH ? AS {quoted(schema)}", (uri,))
        try:
            connection.execute(f"SELECT count(*) FROM {quoted(schema)}.sqlite_master")
        except sqlite3.DatabaseError:
            connection.execute(f"DETACH {quoted(schema)}")
            raise

    _first_that_opens(path, attach)


def _first_that_opens(path: Path, opened: Callable[[str], T]) -> T:
    uri = path.absolute().as_uri()
    try:
        return opened(f"{uri}?mode=ro")
    except sqlite3.OperationalError as error:
        # An empty one is what a reader leaves behind, who may not remove it.
        has_wal = not is_missing(path.with_name(path.name + "-wal"))
        # Which of the two it says depends on whether the folder or the file is shut.
        is_shut = error.sqlite_errorcode & 0xFF in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        )
        if not is_shut or has_wal or not path.exists():
            raise
        return opened(f"{uri}?mode=ro&immutable=1")


def _connect_reader(uri: str, path: Path, refuse_foreign: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=10.0, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        # A name nobody could decode must not make a whole answer unreadable.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = ON")
        _distrust_schema(connection)
        connection.execute("PRAGMA mmap_size = 0")
        if refuse_foreign:
            _refuse_foreign(connection, path)
        _declare_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _distrust_schema(connection: sqlite3.Connection) -> None:
    """Let views and indexes call harmless functions only, where JSON counts as such.

    An older SQLite would refuse every statement on an index that somebody made with
    `json_extract`, and would call the database malformed.
    """
    if _trusts_json():
        connection.execute("PRAGMA trusted_schema = OFF")


@lru_cache(maxsize=1)
def _trusts_json() -> bool:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("CREATE VIEW probe AS SELECT json_extract('{}', '$')")
        try:
            connection.execute("SELECT * FROM probe").fetchall()
        except sqlite3.OperationalError:
            return False
        return True


def _declare_tables(connection: sqlite3.Connection) -> None:
    """Use every virtual table once, also those that somebody added (full text).

    Their first use declares a table, which an authoriser set later would refuse.
    """
    virtual = connection.execute(
        "SELECT name FROM pragma_table_list WHERE type = 'virtual' AND schema = 'main'"
    ).fetchall()
    added = [quoted(row[0]) for row in virtual]
    for each in ("json_each('[]')", "json_tree('[]')", "pragma_table_info('x')", *added):
        try:
            connection.execute(f"SELECT 1 FROM {each} LIMIT 0").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
                raise
            # Its module is not here: whoever asks for it is told so.


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of somebody else before anything in it is changed."""
    application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != APPLICATION_ID and (application_id or tables):
        raise Fatal(
            f"{path} is an SQLite database, but not an index of ingester. Move it elsewhere, or "
            "name another file in [index] path."
        )
