"""From the old index into the new one: everything that no file can tell.

Patients, studies, series, instances and headers are read from the files again.  All
other tables are taken over row by row, whatever they are, with the keys that they
had; what refers to an object that is gone refers to nothing, or goes with it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from ingester.check.differences import columns_of, listed, own_tables
from ingester.check.former import IDENTITY, FormerIndex, identity
from ingester.check.notes import Notes
from ingester.index.additions import quoted
from ingester.index.counts import COUNTED, recount
from ingester.index.rows import RECORD_ERRORS
from ingester.index.writer import Writer

#: Made again from the files, with the new index, or by its triggers.
FROM_FILES = frozenset(
    {
        "patients", "studies", "series", "instances", "headers", "contradictions",
        "promoted_columns", *COUNTED,
    }
)  # fmt: skip
_PAGE_ROWS = 1_000
_SETTLED = ("resolved_at", "level", "uid", "attribute", "value")


@dataclass(slots=True)
class Carried:
    """How many rows were carried over, by table; derivatives whose file is gone."""

    rows: Counter[str] = field(default_factory=Counter)
    gone_derivatives: int = 0


def carry_over(former: FormerIndex, writer: Writer, notes: Notes) -> Carried:
    """Put everything else of the old index into the new one; returns how much."""
    carried = Carried()
    for table in writer.run_in_transaction(own_tables):
        if table not in FROM_FILES and (
            count := _carry_table(former, writer, notes, table, carried)
        ):
            carried.rows[table] = count
    if not former.is_whole:
        writer.run_in_transaction(_let_one_be_current)
    _settle_again(former, writer)
    writer.run_in_transaction(partial(_number_patients, notes))
    # Rows were replaced by their former selves, which triggers do not see.
    writer.run_in_transaction(recount)
    return carried


def _carry_table(
    former: FormerIndex, writer: Writer, notes: Notes, table: str, carried: Carried
) -> int:
    shared, statement = writer.run_in_transaction(
        partial(_insert_into, table, former.columns(table))
    )
    if not shared:
        return 0
    rows = former.rows(table, shared)
    if table == "derivatives":
        rows = _still_there(rows, shared.index("path"), notes, carried)
    count = 0
    while page := list(islice(rows, _PAGE_ROWS)):
        put, refused = writer.run_in_transaction(partial(_put, statement, page))
        count += put
        if refused is not None:
            former.losses.note(table, refused)
    return count


def _still_there(
    rows: Iterator[tuple[Any, ...]], position: int, notes: Notes, carried: Carried
) -> Iterator[tuple[Any, ...]]:
    """Leave out derivatives whose file is gone: they are made again."""
    for row in rows:
        path = row[position]
        if path is None or (isinstance(path, str) and notes.has_file(path)):
            yield row
        else:
            carried.gone_derivatives += 1


def _insert_into(
    table: str, former_columns: list[str], connection: sqlite3.Connection
) -> tuple[list[str], str]:
    """Return the columns that both have, and the statement that takes a row of them."""
    shared = [name for name in columns_of(connection, table) if name in former_columns]
    target = f"INSERT OR REPLACE INTO {quoted(table)}"
    if "instance_id" not in shared:
        return shared, f"{target} ({listed(shared)}) VALUES ({_marks(len(shared))})"
    shared = [*(name for name in shared if name != "instance_id"), "instance_id"]
    required = "SELECT 1 FROM pragma_table_info(?) WHERE name = 'instance_id' AND \"notnull\""
    object_ = "SELECT instance_id FROM instances WHERE instance_id = ?"
    marks = _marks(len(shared) - 1)
    if connection.execute(required, (table,)).fetchone():
        values = object_.replace("SELECT ", f"SELECT {marks}, ", 1)
        return shared, f"{target} ({listed(shared)}) {values}"
    return shared, f"{target} ({listed(shared)}) VALUES ({marks}, ({object_}))"


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _put(
    statement: str, page: list[tuple[Any, ...]], connection: sqlite3.Connection
) -> tuple[int, sqlite3.Error | None]:
    """Put rows in, at once where that goes; returns how many, and why one was refused.

    Only damage makes a row that its own table refuses.
    """
    connection.execute("SAVEPOINT page")
    try:
        put = connection.executemany(statement, page).rowcount
    except RECORD_ERRORS:
        connection.execute("ROLLBACK TO page")
    else:
        connection.execute("RELEASE page")
        return put, None
    put, refused = 0, None
    for row in page:
        try:
            put += connection.execute(statement, row).rowcount
        except sqlite3.Error as error:
            refused = error
    connection.execute("RELEASE page")
    return put, refused


def _settle_again(former: FormerIndex, writer: Writer) -> None:
    """Let contradictions be settled that a person had settled."""
    settled = [row for row in former.rows("contradictions", _SETTLED) if row[0] is not None]
    if settled:
        writer.run_in_transaction(
            lambda connection: connection.executemany(
                "UPDATE contradictions SET resolved_at = ? WHERE level = ? AND uid = ?"
                " AND attribute = ? AND value = ?",
                settled,
            )
        )


def _let_one_be_current(connection: sqlite3.Connection) -> None:
    """Let the first version be current where rows, and with them a decision, are lost."""
    connection.execute(
        "UPDATE OR IGNORE instances SET version = 'current' WHERE path NOT LIKE '%~%'"
        " AND version <> 'current' AND NOT EXISTS (SELECT 1 FROM instances AS c"
        " WHERE c.sop_instance_uid = instances.sop_instance_uid AND c.version = 'current')"
    )


def _number_patients(notes: Notes, connection: sqlite3.Connection) -> None:
    """Give patients the keys that they had; those the old index did not know come after."""
    largest = notes.largest_patient_key
    if not largest:
        return
    wanted: list[tuple[int, int]] = []
    unknown: list[int] = []
    query = f"SELECT patient_key, {listed(IDENTITY)} FROM patients ORDER BY patient_key"
    for key, *parts in connection.execute(query):
        former_key = notes.patient_key(identity(*parts))
        if former_key is None:
            unknown.append(key)
        elif former_key != key:
            wanted.append((former_key, key))
    wanted += [(number, key) for number, key in enumerate(unknown, start=largest + 1)]
    if not wanted:
        return
    connection.execute("PRAGMA defer_foreign_keys = ON")
    # By way of negative numbers, which nobody has, so that no two meet.
    for table in ("patients", *_referring_to_patients(connection)):
        update = f"UPDATE {quoted(table)} SET patient_key ="
        connection.executemany(
            f"{update} ? WHERE patient_key = ?", [(-new, old) for new, old in wanted]
        )
        connection.execute(f"{update} -patient_key WHERE patient_key < 0")


def _referring_to_patients(connection: sqlite3.Connection) -> list[str]:
    return [
        table
        for table in own_tables(connection)
        if table != "patients" and "patient_key" in columns_of(connection, table)
    ]
