"""Columns of `instances` that a site asks for: `[index] columns`.

A keyword becomes a column typed by its VR, computed from `headers.attributes` by one
SQL expression: the same for a new row and for back-filling old ones.  A value that
cannot be read as its type is NULL in the column and stays raw in `attributes`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
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
    connection: sqlite3.Connection, keywords: Sequence[str]
) -> tuple[PromotedColumn, ...]:
    """Add, index and back-fill the columns that are not there yet.

    Columns that an earlier configuration asked for stay, and stay filled: taking a
    keyword out of the file never destroys a query somebody relies on.  Returns all
    of them.  Runs inside the caller's transaction.
    """
    have = {row[1] for row in connection.execute("PRAGMA table_info(instances)")}
    known = {row[0] for row in connection.execute("SELECT keyword FROM promoted_columns")}
    for column in (promoted(keyword) for keyword in dict.fromkeys(keywords)):
        if column.keyword in known or column.name in have:
            continue  # promoted before, or one of the contract's own
        connection.execute(f'ALTER TABLE instances ADD COLUMN "{column.name}" {column.type}')
        value = column.expression.format(*["headers.attributes"] * 2)
        connection.execute(
            f'UPDATE instances SET "{column.name}" = (SELECT {value} FROM headers'
            " WHERE headers.instance_id = instances.instance_id)"
        )
        connection.execute(
            f'CREATE INDEX IF NOT EXISTS "{index_name(column.name)}" ON instances ("{column.name}")'
        )
        connection.execute(
            "INSERT INTO promoted_columns (keyword, column_name) VALUES (?, ?)",
            (column.keyword, column.name),
        )
    rows = connection.execute("SELECT keyword FROM promoted_columns ORDER BY keyword")
    return tuple(promoted(row[0]) for row in rows.fetchall())
