"""Reading the index for commands: one read-only connection, nothing to change it by."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from ingester.config import Settings
from ingester.errors import Fatal

_READING = frozenset(
    [sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE]
)
_HARMLESS_PRAGMAS = frozenset(
    ["table_info", "table_xinfo", "index_list", "index_info", "table_list", "database_list",
     "user_version", "application_id", "foreign_key_list", "compile_options", "function_list"]
)  # fmt: skip

Row = dict[str, Any]


@contextmanager
def open_index(settings: Settings) -> Iterator[sqlite3.Connection]:
    """Open the index for reading; SQL that would change anything is refused.

    Raises
    ------
    Fatal
        there is no index yet, or it cannot be opened.
    """
    path = settings.index.path
    if not path.exists():
        raise Fatal(f"there is no index at {path} yet; `ingester run` makes it")
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, timeout=10)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT 1 FROM instances LIMIT 1")
            connection.set_authorizer(_authorise)
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise Fatal(f"{path} cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Fatal(
            f"{path} is damaged ({error}); stop the service and run `ingester rebuild`"
        ) from error


def _authorise(action: int, first: str | None, *_rest: str | None) -> int:
    if action in _READING:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in _HARMLESS_PRAGMAS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def rows(connection: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return the rows of a query as dictionaries."""
    cursor = connection.execute(query, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def row(connection: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> Row | None:
    """Return the first row of a query as a dictionary; None where there is none."""
    found = rows(connection, query, values)
    return found[0] if found else None
