"""What people added to the old index, made again in the new one.

    carried = carry_additions(old, new)

Tables with their rows, indexes, views and triggers: whatever is not ours
(`ingester.index.additions`).  Of a damaged index all is taken that can be read.  What
cannot be made again is named and stops nothing, for the old index is kept aside.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingester import durable
from ingester.index.additions import Addition, additions, quoted
from ingester.index.connection import TRANSIENT, attach_reading, translated
from ingester.index.migrations import MIGRATIONS, empty_index, ours_in

_PAGE_ROWS = 1_000


@dataclass(slots=True)
class Carried:
    """How many additions were made again, and in sentences what was not."""

    count: int = 0
    lost: list[str] = field(default_factory=list)


def carry_additions(former: Path, new: Path) -> Carried:
    """Make again in the index *new*, which is complete, what people added to *former*.

    Nobody else has *new* open.  Triggers come last: they are to see nothing of this.

    Raises
    ------
    Retry
        The disk does not let us write.
    """
    carried = Carried()
    if not former.exists():
        return carried
    address = new.absolute().as_uri()
    with (
        translated(new),
        closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA synchronous = FULL")
        try:
            attach_reading(connection, former, "former")
            added = _added(connection, carried)
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # it quotes what is damaged
            carried.lost.append("what was added to the old index cannot be read there")
            return carried
        for addition in sorted(added, key=_rank):
            _carry(connection, new, addition, carried)
    return carried


def _added(connection: sqlite3.Connection, carried: Carried) -> list[Addition]:
    """Return what was added; a column in a table of ours is only told of."""
    version: int = connection.execute("PRAGMA former.user_version").fetchone()[0]
    steps = MIGRATIONS[:version]
    promoted = [
        row[0] for row in connection.execute("SELECT column_name FROM former.promoted_columns")
    ]
    with empty_index(steps) as empty:
        for (table,) in empty.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            known = [*_columns(empty, "main", table), *promoted]
            carried.lost += [
                f"the column {column} of {table} is not carried over"
                for column in _columns(connection, "former", table)
                if column not in known
            ]
    return additions(connection, ours_in(connection, steps), "former")


def _rank(addition: Addition) -> tuple[int, bool]:
    # Full text may stand on a plain table, a view on a table, a trigger on a view.
    return ("table", "index", "view", "trigger").index(addition.kind), _is_virtual(addition)


def _carry(connection: sqlite3.Connection, new: Path, addition: Addition, carried: Carried) -> None:
    """Make one addition again, with its rows where it is a table."""
    rows = _copy(connection, addition) if addition.kind == "table" else None
    try:
        with _transaction(connection, new):
            connection.execute(addition.sql)
            if rows is not None:
                connection.execute(rows)
        carried.count += 1
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode & 0xFF
        if code in TRANSIENT:
            raise
        if rows is None or code != sqlite3.SQLITE_CORRUPT:
            carried.lost.append(f"{addition} cannot be made again")
            return
        _salvage(connection, new, addition, rows)
        carried.count += 1
        carried.lost.append(f"{addition} has lost rows that cannot be read in the old index")


@contextmanager
def _transaction(connection: sqlite3.Connection, new: Path) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
        durable.effect("commit", new)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _salvage(connection: sqlite3.Connection, new: Path, addition: Addition, rows: str) -> None:
    """Make a table with the rows that come before the damage."""
    with _transaction(connection, new):
        connection.execute(addition.sql)
    start, count = 0, _PAGE_ROWS
    while count == _PAGE_ROWS:
        try:
            with _transaction(connection, new):
                page = f"{rows} LIMIT {_PAGE_ROWS} OFFSET {start}"
                count = connection.execute(page).rowcount
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            return
        start += count


def _copy(connection: sqlite3.Connection, addition: Addition) -> str:
    """Return the statement that fills a table again."""
    table = quoted(addition.name)
    if _is_virtual(addition) and "content=" in addition.sql.replace(" ", "").lower():
        # Full text without a content of its own is made again from what it stands on.
        return f"INSERT INTO main.{table} ({table}) VALUES ('rebuild')"
    columns = [quoted(column) for column in _columns(connection, "former", addition.name)]
    if _has_row_ids(connection, addition.name):
        columns = ["rowid", *columns]
    names = ", ".join(columns)
    return f"INSERT INTO main.{table} ({names}) SELECT {names} FROM former.{table}"


def _is_virtual(addition: Addition) -> bool:
    return addition.sql.upper().startswith("CREATE VIRTUAL")


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> list[str]:
    """Return the columns that can be written: neither hidden nor generated."""
    rows = connection.execute(f"PRAGMA {schema}.table_xinfo({quoted(table)})")
    return [row[1] for row in rows if not row[6]]


def _has_row_ids(connection: sqlite3.Connection, table: str) -> bool:
    (row,) = connection.execute(f"PRAGMA former.table_list({quoted(table)})").fetchall()
    names = [column.lower() for column in _columns(connection, "former", table)]
    return not row[4] and "rowid" not in names
