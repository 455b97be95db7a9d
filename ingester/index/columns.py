"""Columns of `instances` that a site asks for: `[index] columns`.

What a column is called and how its value is read from a header's JSON is the keyword's
own (`ingester.keywords`), the same for a new row and for back-filling old ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from ingester.errors import Fatal
from ingester.keywords import Column, column

_ROWS_AT_ONCE = 4096

#: What questions about the whole archive ask of an object beside promoted columns.  With
#: those they stand in the index by series too, which is a third as long as the table.
_OFTEN_ASKED = (
    "series_instance_uid", "version", "instance_number", "size_bytes", "source",
    "sop_class_uid", "transfer_syntax_uid", "archived_at",
)  # fmt: skip
_BY_SERIES = "instances_by_series"

#: Told (done, total, note).
Progress = Callable[[int, int | None, str], None]


def no_progress(_done: int, _total: int | None, _note: str) -> None:
    """Tell nobody."""


def index_name(column: str) -> str:
    """Return the name of the index on a promoted column."""
    return f"instances_by_{column}"


def promoted(keyword: str) -> Column:
    """Return the column for *keyword*; raises `Fatal` where it can have none."""
    try:
        return column(keyword)
    except Fatal as error:
        raise Fatal(f"[index] columns: {error}.") from None


def add_columns(
    connection: sqlite3.Connection,
    keywords: Sequence[str],
    progress: Progress = no_progress,
) -> tuple[Column, ...]:
    """Add, back-fill and index the columns that are not there yet.

    What is a column of patients, studies or series already needs none: `images` has it.
    Columns that an earlier configuration asked for stay, and stay filled: taking a
    keyword out of the file never destroys a query somebody relies on.  Returns all
    of them.  Runs inside the caller's transaction; each header is read once, however
    many columns are new, and *progress* is told of every few thousand.
    """
    have = {
        row[1]
        for table in ("instances", "series", "studies", "patients")
        for row in connection.execute(f"PRAGMA table_info({table})").fetchall()
    }
    known = {row[0] for row in connection.execute("SELECT keyword FROM promoted_columns")}
    wanted = [promoted(keyword) for keyword in dict.fromkeys(keywords)]
    # The others were promoted before, or are the contract's own.
    new = [each for each in wanted if each.keyword not in known and each.name not in have]
    if new:
        for column in new:
            connection.execute(f'ALTER TABLE instances ADD COLUMN "{column.name}" {column.type}')
        _fill(connection, new, progress)
        for number, column in enumerate(new):
            progress(number, len(new), f"indexing {column.name}")
            connection.execute(
                f'CREATE INDEX IF NOT EXISTS "{index_name(column.name)}"'
                f' ON instances ("{column.name}")'
            )
            connection.execute(
                "INSERT INTO promoted_columns (keyword, column_name) VALUES (?, ?)",
                (column.keyword, column.name),
            )
        index_by_series(connection)
    rows = connection.execute("SELECT keyword FROM promoted_columns ORDER BY keyword")
    columns = tuple(promoted(row[0]) for row in rows.fetchall())
    _tell_sizes(connection, columns)
    return columns


def index_by_series(connection: sqlite3.Connection) -> None:
    """Make the index by series anew, with all columns that are promoted by now."""
    rows = connection.execute("SELECT column_name FROM promoted_columns ORDER BY keyword")
    names = [*_OFTEN_ASKED, *(row[0] for row in rows.fetchall())]
    connection.execute(f"DROP INDEX IF EXISTS {_BY_SERIES}")
    listed = ", ".join(f'"{name}"' for name in names)
    connection.execute(f"CREATE INDEX {_BY_SERIES} ON instances ({listed})")
    sizes = f"1000000 13{' 1' * (len(names) - 1)}"
    connection.execute(
        "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('instances', ?, ?)",
        (_BY_SERIES, sizes),
    )
    connection.execute("ANALYZE sqlite_master")  # so that the sizes count here too


def _tell_sizes(connection: sqlite3.Connection, columns: Sequence[Column]) -> None:
    """Tell SQLite that one dose or one kernel is that of many objects.

    Who asks for a day of them as well is better served by the day.
    """
    rows = connection.execute("SELECT idx FROM sqlite_stat1 WHERE tbl = 'instances'")
    told = {row[0] for row in rows.fetchall()}
    untold = [name for name in (index_name(each.name) for each in columns) if name not in told]
    if untold:
        connection.executemany(
            "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('instances', ?, '1000000 20000')",
            [(name,) for name in untold],
        )
        connection.execute("ANALYZE sqlite_master")


def _fill(connection: sqlite3.Connection, columns: Sequence[Column], progress: Progress) -> None:
    names = ", ".join(f'"{column.name}"' for column in columns)
    values = ", ".join(column.expression.replace("{}", "headers.attributes") for column in columns)
    total: int = connection.execute("SELECT count(*) FROM instances").fetchone()[0]
    note = f"filling {', '.join(column.name for column in columns)}"
    done, last = 0, 0
    while done < total:
        progress(done, total, note)
        count, until = connection.execute(
            "SELECT count(*), max(instance_id) FROM (SELECT instance_id FROM instances"
            " WHERE instance_id > ? ORDER BY instance_id LIMIT ?)",
            (last, _ROWS_AT_ONCE),
        ).fetchone()
        connection.execute(
            f"UPDATE instances SET ({names}) = (SELECT {values} FROM headers"
            " WHERE headers.instance_id = instances.instance_id)"
            " WHERE instance_id > ? AND instance_id <= ?",
            (last, until),
        )
        done, last = done + count, until
