"""What people add to the index: told apart from what is ours, and kept.

The index is theirs to query, so they add to it: an index for a question of every day,
a view that joins what they need, a table of their own beside ours, triggers on that.
What is ours is known by making it (an empty schema in memory); all else in a schema is
an addition.  While a schema changes they are set aside, because one view that no
longer fits would forbid the change, and are put back afterwards:

    kept = set_aside(connection, ours, wanted)
    ...                                         the change
    lost = put_back(connection, kept)           what fits no longer

They are named in logs and never quoted: their text may hold a patient's name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["table", "index", "trigger", "view"]

_OWN = "_own"


@dataclass(frozen=True, slots=True)
class Addition:
    """One thing in the schema that is not ours; `table` is what it belongs to."""

    kind: Kind
    name: str
    table: str
    sql: str
    is_readable: bool = True  # of a view: whether SQLite could run it as it stands

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}"


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def names_in(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the names of all that a schema holds, in lower case as SQL compares them."""
    rows = connection.execute("SELECT name FROM sqlite_master")
    return frozenset(str(row[0]).lower() for row in rows)


def additions(
    connection: sqlite3.Connection, ours: Collection[str], schema: str = "main"
) -> list[Addition]:
    """Return what a schema holds beside *ours* (names in lower case).

    The tables in which virtual tables keep their content belong to those, and are left
    out, as are the indexes that SQLite makes by itself.
    """
    shadows = {
        row[1]
        for row in connection.execute(f"PRAGMA {quoted(schema)}.table_list")
        if row[2] == "shadow"
    }
    rows = connection.execute(
        f"SELECT type, name, tbl_name, sql FROM {quoted(schema)}.sqlite_master"
        " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    ).fetchall()
    return [
        Addition(*row)
        for row in rows
        if str(row[1]).lower() not in ours and row[1] not in shadows and row[2] not in shadows
    ]


def set_aside(
    connection: sqlite3.Connection,
    ours: Collection[str],
    wanted: Collection[str],
    *,
    with_indexes: bool = True,
) -> list[Addition]:
    """Take out of the way what a change of the schema could trip over; returns it.

    Those are all views and triggers and, *with_indexes*, the indexes on our tables.
    Tables stay where they are, but one whose name is *wanted* from now on gets another
    (`x` becomes `x_own`).
    """
    kept = []
    for addition in additions(connection, ours):
        stands_on_ours = addition.kind == "index" and addition.table.lower() in ours
        if (
            addition.kind in ("view", "trigger")
            or (stands_on_ours and with_indexes)
            or addition.name.lower() in wanted
        ):
            is_readable = addition.kind != "view" or _is_readable(connection, addition)
            kept.append(replace(addition, is_readable=is_readable))
    for addition in kept:
        if addition.kind != "table":
            # A view's triggers go with it.
            connection.execute(f"DROP {addition.kind} IF EXISTS {quoted(addition.name)}")
    for addition in kept:
        if addition.kind == "table":
            name = _free_name(connection, addition.name, wanted)
            connection.execute(f"ALTER TABLE {quoted(addition.name)} RENAME TO {quoted(name)}")
    return kept


def put_back(connection: sqlite3.Connection, kept: Sequence[Addition]) -> list[Addition]:
    """Make again what was set aside; returns what fits no longer.

    A view that can no longer be read is among those, and yet there: its owner can see
    and mend it.  A table that had to change its name is among them too.
    """
    lost = [addition for addition in kept if addition.kind == "table"]
    for kind in ("index", "view", "trigger"):  # a trigger may belong to a view
        for addition in kept:
            if addition.kind == kind and not _is_made(connection, addition):
                lost.append(addition)
    lost += [
        addition
        for addition in kept
        if addition.kind == "view"
        and addition not in lost
        and addition.is_readable
        and not _is_readable(connection, addition)
    ]
    return lost


def unusable(connection: sqlite3.Connection, ours: Collection[str]) -> list[Addition]:
    """Return the indexes and triggers on our tables of which one cannot be used here.

    They run with every row that is written, and may need what only their maker has: a
    collation, a function.
    """
    added = [each for each in additions(connection, ours) if each.kind in ("index", "trigger")]
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {row[0] for row in rows if row[0].lower() in ours} & {each.table for each in added}
    stuck = {table for table in tables if not _is_writable(connection, table)}
    return [each for each in added if each.table in stuck]


def _is_writable(connection: sqlite3.Connection, table: str) -> bool:
    name = quoted(table)
    columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
    column = quoted(columns[0][1])
    for statement in (
        f"INSERT INTO {name} DEFAULT VALUES",
        f"UPDATE {name} SET {column} = {column}",
        f"DELETE FROM {name}",
    ):
        try:
            connection.execute(f"EXPLAIN {statement}").fetchall()
        except sqlite3.OperationalError:
            return False
    return True


def _is_made(connection: sqlite3.Connection, addition: Addition) -> bool:
    try:
        connection.execute(addition.sql)
    except (sqlite3.OperationalError, sqlite3.IntegrityError):
        return False  # what it stands on is gone, or its name is ours now
    return True


def _is_readable(connection: sqlite3.Connection, view: Addition) -> bool:
    try:
        connection.execute(f"EXPLAIN SELECT * FROM {quoted(view.name)}").fetchall()
    except sqlite3.OperationalError:
        return False
    return True


def _free_name(connection: sqlite3.Connection, name: str, wanted: Collection[str]) -> str:
    taken = names_in(connection) | frozenset(wanted)
    free = name + _OWN
    number = 2
    while free.lower() in taken:
        free = f"{name}{_OWN}{number}"
        number += 1
    return free
