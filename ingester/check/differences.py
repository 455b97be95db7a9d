"""Two indexes compared, table by table and row by row.

Both come sorted by primary key, so that indexes of any size are compared in the memory
of two rows: a merge of two sorted streams.  Keys count as they are: an `instance_id`
that somebody keeps in a notebook must go on meaning the same object.

    compared(old, new)["instances"].is_equal
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingester.index.additions import quoted
from ingester.index.connection import connect_reader, translated
from ingester.index.migrations import empty_index

_Row = tuple[Any, ...]


@dataclass(slots=True)
class Difference:
    """How one table of two indexes differs: rows, and of changed ones the columns.

    `is_damaged`: one of the two could not be read to its end.
    """

    equal: int = 0
    changed: int = 0
    gone: int = 0  # only in the first
    new: int = 0  # only in the second
    columns: Counter[str] = field(default_factory=Counter)  # of changed rows
    is_damaged: bool = False

    @property
    def is_equal(self) -> bool:
        """Return whether both have the same rows with the same values."""
        return not (self.changed or self.gone or self.new or self.is_damaged)


def compared(first: Path, second: Path) -> Mapping[str, Difference]:
    """Compare all tables of ours of two indexes; columns that only one has are left out.

    Raises
    ------
    Corrupt : one of them cannot be opened
    Retry : one of them cannot be read now
    """
    with empty_index() as empty:
        tables = own_tables(empty)
    with (
        translated(first),
        closing(connect_reader(first)) as one,
        translated(second),
        closing(connect_reader(second)) as other,
    ):
        return {table: _compared(table, one, other) for table in tables}


def own_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the ordinary tables of a database: none of SQLite's, none behind a search."""
    rows = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [row[0] for row in rows]


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table, none where there is no such table."""
    rows = connection.execute("SELECT name FROM pragma_table_info(?) ORDER BY cid", (table,))
    return [row[0] for row in rows]


def key_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table's primary key, in order."""
    rows = connection.execute(
        "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)
    )
    return [row[0] for row in rows]


def listed(names: Iterable[str]) -> str:
    """Return column names as they stand in SQL."""
    return ", ".join(quoted(name) for name in names)


def _compared(table: str, one: sqlite3.Connection, other: sqlite3.Connection) -> Difference:
    found = Difference()
    have, has_other = columns_of(one, table), columns_of(other, table)
    if not have or not has_other:
        count = f"SELECT count(*) FROM {quoted(table)}"
        found.gone = one.execute(count).fetchone()[0] if have else 0
        found.new = other.execute(count).fetchone()[0] if has_other else 0
        return found
    key = key_of(other, table)
    rest = [name for name in has_other if name in have and name not in key]
    query = f"SELECT {listed([*key, *rest])} FROM {quoted(table)} ORDER BY {listed(key)}"
    try:
        _merge(_rows(one, query), _rows(other, query), len(key), rest, found)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        found.is_damaged = True
    return found


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[_Row]:
    for row in connection.execute(query):
        yield tuple(row)


def _merge(
    one: Iterator[_Row],
    other: Iterator[_Row],
    width: int,
    rest: Sequence[str],
    found: Difference,
) -> None:
    """Count what two streams of rows, sorted by their first *width* values, share."""
    a, b = next(one, None), next(other, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[:width] < b[:width]):
            found.gone += 1
            a = next(one, None)
        elif a is None or b[:width] < a[:width]:
            found.new += 1
            b = next(other, None)
        else:
            if a == b:
                found.equal += 1
            else:
                found.changed += 1
                pairs = zip(rest, a[width:], b[width:], strict=True)
                found.columns.update(name for name, old, new in pairs if old != new)
            a, b = next(one, None), next(other, None)
