"""The index that is being replaced: what only it knows, where it can still be read.

A damaged index has whole pages left as a rule: what can be read of each table is
taken, the rest is told.  One of an older schema is copied and brought up to date
first; one of somebody else is none.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingester.check import salvage
from ingester.check.differences import columns_of, own_tables
from ingester.check.notes import Notes
from ingester.check.salvage import Losses, is_damage
from ingester.errors import Fatal, Retry
from ingester.index.columns import promoted
from ingester.index.connection import connect_reader, is_missing
from ingester.index.migrations import MIGRATIONS, keep_copy, migrate
from ingester.index.names import normalised

log = logging.getLogger(__name__)

_OUR_TABLES = frozenset({"patients", "studies", "series", "instances", "headers", "arrivals"})
_INSTANCE = (
    "instance_id", "path", "sop_instance_uid", "sha256", "size_bytes", "data_set_sha256",
    "archived_at", "version",
)  # fmt: skip
_BROUGHT_AN_OBJECT = frozenset({"archived", "variant", "conflict"})


@dataclass(slots=True)
class FormerIndex:
    """The old index; `connection` is None where none can be read."""

    path: Path
    connection: sqlite3.Connection | None
    losses: Losses
    database: Path | None = None  # that anybody can read: it, or its copy of today's schema
    is_unreadable: bool = False
    is_damaged: bool = False  # somewhere, says SQLite
    _tables: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, scratch: Path) -> FormerIndex:
        """Open what is left of an index; there may be nothing.

        *scratch* is where a copy of an index of an older schema may lie; the caller
        removes it afterwards.

        Raises
        ------
        Fatal : a database of somebody else
        Retry : it cannot be opened now
        """
        losses = Losses(path)
        if is_missing(path):
            return cls(path, None, losses)
        try:
            database, connection = _connect(path, scratch)
            is_damaged = database is None or not _is_whole(connection)
            return cls(
                path,
                connection,
                losses,
                database,
                is_damaged=is_damaged,
                _tables=own_tables(connection),
            )
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise Retry(f"The index {path} cannot be opened now ({error}).") from error
            log.warning("index: nothing can be carried over from the old one: %s", error)
            return cls(path, None, losses, is_unreadable=True, is_damaged=True)

    def close(self) -> None:
        """Close it."""
        if self.connection is not None:
            self.connection.close()

    @property
    def was_there(self) -> bool:
        """Return whether there is an old index at all."""
        return self.connection is not None or self.is_unreadable

    @property
    def damaged(self) -> set[str]:
        """Return the tables that could not be read to their end, as far as was tried."""
        return set(_OUR_TABLES) if self.is_unreadable else self.losses.tables

    @property
    def is_whole(self) -> bool:
        """Return whether there is an old index, and all of it could be read."""
        return self.connection is not None and not (self.is_damaged or self.losses.tables)

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield what can be read of a table; columns that it has not yet are None."""
        if self.connection is not None and table in self._tables:
            yield from salvage.rows(self.connection, table, columns, self.losses)

    def columns(self, table: str) -> list[str]:
        """Return the columns of a table, none where it cannot tell."""
        if self.connection is None:
            return []
        try:
            return columns_of(self.connection, table)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.losses.note(table, error)
            return []

    def promoted_keywords(self) -> list[str]:
        """Return the keywords that have a column of their own, in their order."""
        have = self.columns("instances")
        told = [
            (column, keyword)
            for keyword, column in self.rows("promoted_columns", ("keyword", "column_name"))
            if column in have and _can_be_promoted(keyword)
        ]
        return [keyword for _, keyword in sorted(told, key=lambda each: have.index(each[0]))]

    def tell(self, notes: Notes) -> None:
        """Note every object that it knows, what brought it, and the patients' keys."""
        notes.add_known(self.rows("instances", _INSTANCE))
        notes.add_arrivals(
            row
            for row in self.rows("arrivals", ("instance_id", "sha256", "arrival_id", "outcome"))
            if row[3] in _BROUGHT_AN_OBJECT
        )
        notes.add_patients(
            (identity(*row[1:]), row[0])
            for row in self.rows("patients", ("patient_key", *IDENTITY))
            if isinstance(row[0], int) and row[0] > 0
        )


#: What tells patients apart, the name as the first object wrote it.
IDENTITY = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date")


def identity(patient_id: Any, issuer: Any, name: Any, birth_date: Any) -> str:
    """Return the identity of a row of `patients` as one text."""
    name = normalised(name) if isinstance(name, str) else ""
    parts = [patient_id or "", issuer or "", name, birth_date or ""]
    return json.dumps(parts, default=str)


def _connect(path: Path, scratch: Path) -> tuple[Path | None, sqlite3.Connection]:
    try:
        connection = connect_reader(path)
    except Fatal:
        # Perhaps it is ours, and its first page is damaged.
        connection = connect_reader(path, refuse_foreign=False)
        if _OUR_TABLES.difference(own_tables(connection)):
            connection.close()
            raise
        return None, connection
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if 0 < version < len(MIGRATIONS) and _has_copy_of_today(path, scratch):
        connection.close()
        return scratch, connect_reader(scratch)
    return path, connection


def _has_copy_of_today(path: Path, scratch: Path) -> bool:
    """Copy an index of an older schema and bring the copy up to date, if it is whole."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as old:
            keep_copy(old, scratch)
        with closing(sqlite3.connect(scratch, isolation_level=None)) as copy:
            migrate(copy, scratch, keep=False)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        log.warning("index: the old one cannot be brought up to date: %s", error)
        return False
    return True


def _is_whole(connection: sqlite3.Connection) -> bool:
    """Ask SQLite; a page that says it holds less than it does is no error to a reader."""
    try:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        return False


def _can_be_promoted(keyword: Any) -> bool:
    try:
        promoted(str(keyword))
    except Fatal as error:
        log.warning("index: a column of the old one is not made again: %s", error)
        return False
    return True
