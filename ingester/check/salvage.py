"""Rows of a damaged table, as many as can still be read.

SQLite ends a question at the first damaged page, but the pages around it are whole as
a rule.  A table ordered by a number is taken up again behind the damage; any other
is read from its end as well.

    lost = Losses(path)
    for row in rows(connection, "arrivals", ["arrival_id", "batch"], lost): ...
    lost.tables           which tables have gaps
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingester.check.differences import columns_of, key_of
from ingester.errors import Retry
from ingester.index.additions import quoted
from ingester.index.connection import TRANSIENT

log = logging.getLogger(__name__)

_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_LARGEST_KEY = 2**62
#: Stands for a row that cannot be read; no row of a table is empty.
_BAD: tuple[Any, ...] = ()


def is_damage(error: sqlite3.Error | UnicodeDecodeError) -> bool:
    """Tell damage from a database that cannot be read just now.

    SQLite quotes a damaged schema in its complaint, which then is no text.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code not in TRANSIENT or code == sqlite3.SQLITE_IOERR


@dataclass(slots=True)
class Losses:
    """Which tables of an index could not be read to their end."""

    path: Path
    tables: set[str] = field(default_factory=set)

    def note(self, table: str, error: sqlite3.Error | UnicodeDecodeError) -> None:
        """Note that a table has a gap.

        Raises
        ------
        Retry : it is not the file that is at fault
        """
        if not is_damage(error):
            raise Retry(f"The index {self.path} cannot be read now ({error}).") from error
        if table not in self.tables:
            log.warning("index: part of %s in the old one cannot be read: %s", table, error)
        self.tables.add(table)


def rows(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], losses: Losses
) -> Iterator[tuple[Any, ...]]:
    """Yield what can be read of a table, in the order of its key where it is whole.

    Columns that this table has not yet are None.  Around damage a row may come twice.
    """
    try:
        have, key = columns_of(connection, table), key_of(connection, table)
        number = _number(connection, table, key)
    except _ERRORS as error:
        losses.note(table, error)
        return
    if not have:
        return
    wanted = ", ".join(quoted(name) if name in have else "NULL" for name in columns)
    if number is not None:
        yield from _Numbered(connection, table, wanted, number, losses).rows()
    else:
        yield from _from_both_ends(connection, table, wanted, key, losses)


def _number(connection: sqlite3.Connection, table: str, key: Sequence[str]) -> str | None:
    """Return the integer that a table is ordered by on disk, None where it is a text."""
    query = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?"
    found = connection.execute(query, (table,)).fetchone()
    if found is None or not found[0]:
        return "rowid"
    query = "SELECT type FROM pragma_table_info(?) WHERE name = ?"
    (kind,) = connection.execute(query, (table, key[0])).fetchone()
    return quoted(key[0]) if kind == "INTEGER" else None


@dataclass(slots=True)
class _Numbered:
    """A table that is ordered by a number: read on behind what is damaged."""

    connection: sqlite3.Connection
    table: str
    wanted: str
    number: str
    losses: Losses

    def rows(self) -> Iterator[tuple[Any, ...]]:
        start = 0
        while True:
            try:
                for row in self.connection.execute(self._query(), (start,)):
                    if isinstance(row[0], int):
                        start = row[0] + 1
                        yield tuple(row)[1:]
                return
            except _ERRORS as error:
                self.losses.note(self.table, error)
            # A row is handed out only once the one behind it was looked at: here it
            # is asked for alone.
            row = self._first_behind(start)
            if row is None:
                return
            start = row[0] + 1
            yield row[1:]

    def _query(self) -> str:
        return (
            f"SELECT {self.number}, {self.wanted} FROM {quoted(self.table)}"
            f" WHERE {self.number} >= ? ORDER BY {self.number}"
        )

    def _first_behind(self, start: int) -> tuple[Any, ...] | None:
        """Return the first row from *start* on that can be read, None at the end."""
        bad, step = start - 1, 1
        while (found := self._asked(bad + step)) is _BAD:
            bad, step = bad + step, step * 2
            if bad > _LARGEST_KEY:
                return None
        good = bad + step
        while good - bad > 1:
            middle = (good + bad) // 2
            row = self._asked(middle)
            if row is _BAD:
                bad = middle
            else:
                good, found = middle, row
        return found

    def _asked(self, start: int) -> tuple[Any, ...] | None:
        try:
            row = self.connection.execute(f"{self._query()} LIMIT 1", (start,)).fetchone()
        except _ERRORS as error:
            self.losses.note(self.table, error)
            return _BAD
        if row is None:
            return None
        return tuple(row) if isinstance(row[0], int) else _BAD


def _from_both_ends(
    connection: sqlite3.Connection,
    table: str,
    wanted: str,
    key: Sequence[str],
    losses: Losses,
) -> Iterator[tuple[Any, ...]]:
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{quoted(name)} {direction}" for name in key)
        query = f"SELECT {wanted} FROM {quoted(table)} ORDER BY {order}"
        try:
            for row in connection.execute(query):
                yield tuple(row)
            return
        except _ERRORS as error:
            losses.note(table, error)
