"""Columns of `instances` that a site asks for: `[index] columns`.

A keyword becomes a column typed by its VR, computed from `headers.attributes` by one
SQL expression: the same for a new row and for back-filling old ones.  A value that
cannot be read as its type is NULL in the column and stays raw in `attributes`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from ingester.errors import Fatal

_INTEGERS = frozenset({"IS", "SL", "SS", "UL", "US", "SV", "UV"})
_REALS = frozenset({"DS", "FL", "FD"})
_TEXTS = frozenset(
    {"AE", "AS", "AT", "CS", "DT", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"}
)
_PATTERNS = {
    "DA": "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]",
    "TM": "[0-9][0-9]:[0-9][0-9]:[0-9][0-9]*",
}
_IRREGULAR = {"CTDIvol": "ctdi_vol"}
_ROWS_AT_ONCE = 4096

#: Told (done, total, note).
Progress = Callable[[int, int | None, str], None]


def no_progress(_done: int, _total: int | None, _note: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class PromotedColumn:
    """A header attribute with a column of its own.

    `expression` computes the value from a JSON text; `{}` stands where that comes from.
    """

    keyword: str
    name: str
    type: str
    expression: str


def snake_case(keyword: str) -> str:
    """Return the column name of a DICOM keyword: `sop_instance_uid`, `kvp`."""
    if keyword in _IRREGULAR:
        return _IRREGULAR[keyword]
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword)
    return parted.lower()


def index_name(column: str) -> str:
    """Return the name of the index on a promoted column."""
    return f"instances_by_{column}"


def promoted(keyword: str) -> PromotedColumn:
    """Return the column for *keyword*.

    Raises
    ------
    Fatal
        The keyword is not in the DICOM dictionary, or is a sequence or binary.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise Fatal(f"[index] columns: {keyword!r} is not a keyword of the DICOM dictionary.")
    vr = dictionary_VR(tag).split(" or ")[0]
    name = snake_case(keyword)
    path = f"'$.{keyword}'"
    kind, value = f"json_type({{}}, {path})", f"json_extract({{}}, {path})"
    if dictionary_VM(tag) != "1" and vr in _INTEGERS | _REALS | _TEXTS | set(_PATTERNS):
        # Several values: the JSON array as text, for LIKE and json_each alike.
        return PromotedColumn(keyword, name, "TEXT", value)
    if vr in _INTEGERS:
        expression = f"CASE {kind} WHEN 'integer' THEN {value} END"
        return PromotedColumn(keyword, name, "INTEGER", expression)
    if vr in _REALS:
        expression = f"CASE WHEN {kind} IN ('integer', 'real') THEN {value} END"
        return PromotedColumn(keyword, name, "REAL", expression)
    if vr in _PATTERNS:
        expression = f"CASE WHEN {value} GLOB '{_PATTERNS[vr]}' THEN {value} END"
        return PromotedColumn(keyword, name, "TEXT", expression)
    if vr in _TEXTS:
        expression = f"CASE {kind} WHEN 'text' THEN {value} END"
        return PromotedColumn(keyword, name, "TEXT", expression)
    raise Fatal(f"[index] columns: {keyword} has no plain value (VR {vr}) to make a column of.")


def add_columns(
    connection: sqlite3.Connection,
    keywords: Sequence[str],
    progress: Progress = no_progress,
) -> tuple[PromotedColumn, ...]:
    """Add, back-fill and index the columns that are not there yet.

    Columns that an earlier configuration asked for stay, and stay filled: taking a
    keyword out of the file never destroys a query somebody relies on.  Returns all
    of them.  Runs inside the caller's transaction; each header is read once, however
    many columns are new, and *progress* is told of every few thousand.
    """
    have = {row[1] for row in connection.execute("PRAGMA table_info(instances)")}
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
    rows = connection.execute("SELECT keyword FROM promoted_columns ORDER BY keyword")
    columns = tuple(promoted(row[0]) for row in rows.fetchall())
    _tell_sizes(connection, columns)
    return columns


def _tell_sizes(connection: sqlite3.Connection, columns: Sequence[PromotedColumn]) -> None:
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
        connection.execute("ANALYZE sqlite_master")  # so that they count here too


def _fill(
    connection: sqlite3.Connection, columns: Sequence[PromotedColumn], progress: Progress
) -> None:
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
