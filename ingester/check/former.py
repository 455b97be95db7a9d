"""What only the old index knows: read where it can still be read, row by row.

A damaged index often has good pages left.  Each question that fails is the end of
that table and of nothing else; how much was carried over is told.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ingester.errors import Fatal, Retry
from ingester.index import decisions
from ingester.index.connection import Corrupt
from ingester.index.readers import Reader
from ingester.index.writer import Writer
from ingester.model import ArrivalRecord, Outcome, Version

log = logging.getLogger(__name__)

_PAGE_ROWS = 1_000
_ARRIVAL = (
    "arrival_id", "source", "batch", "original_name", "arrived_at", "finished_at",
    "size_bytes", "sha256", "outcome", "reason", "detail", "message", "retried_as",
    "resolved_at",
)  # fmt: skip
_DERIVATIVE = (
    "kind", "status", "reason", "path", "pipeline_version", "made_at", "detail", "fps",
)  # fmt: skip
_EVENT = ("event_id", "at", "kind", "study_instance_uid", "detail")
_RESOLUTION = (
    "resolution_id", "at", "decision", "arrival_id", "study_instance_uid", "path", "note",
)  # fmt: skip


@dataclass(slots=True)
class FormerIndex:
    """The index that is being replaced."""

    reader: Reader | None
    carried: Counter[str] = field(default_factory=Counter)
    is_damaged: bool = False

    @classmethod
    def open(cls, path: Path) -> FormerIndex:
        """Open what is left of an index; there may be nothing."""
        try:
            return cls(Reader.open(path))
        except (Corrupt, Fatal, Retry, sqlite3.DatabaseError) as error:
            if path.exists():
                log.warning("index: nothing can be carried over from the old one: %s", error)
            return cls(None, is_damaged=path.exists())

    def close(self) -> None:
        """Close it."""
        if self.reader is not None:
            self.reader.close()

    def promoted(self) -> list[str]:
        """Return the keywords that have a column of their own in it."""
        rows = self._rows("SELECT keyword FROM promoted_columns ORDER BY keyword")
        return [row["keyword"] for row in rows]

    def remembered(self, record: ArrivalRecord) -> ArrivalRecord:
        """Return the record as the old index had it: name, batch, times, verdict."""
        assert record.stored is not None
        rows = self._rows(
            "SELECT a.*, i.version, i.sha256 AS stored_sha256 FROM instances AS i"
            " JOIN arrivals AS a ON a.instance_id = i.instance_id"
            " WHERE i.path = ? AND a.outcome IN ('archived', 'variant', 'conflict')"
            " ORDER BY a.finished_at, a.arrival_id LIMIT 1",
            (record.stored.path,),
        )
        if not rows or rows[0]["stored_sha256"] != record.sha256:
            return record  # unknown there, or not the bytes that were known
        row = rows[0]
        outcome = Outcome(row["outcome"])
        detail = row["detail"]
        return replace(
            record,
            arrival_id=row["arrival_id"],
            batch=row["batch"],
            original_name=row["original_name"],
            arrived_at=row["arrived_at"],
            finished_at=row["finished_at"],
            outcome=outcome,
            detail=detail if isinstance(detail, dict) else {},
            stored=replace(record.stored, version=_version(outcome)),
        )

    def carry_over(self, writer: Writer) -> None:
        """Put everything else of the old index into the new one."""
        self._carry_arrivals(writer)
        self._carry(
            writer,
            "derivatives",
            _DERIVATIVE,
            "SELECT {columns}, i.path AS instance_path FROM derivatives AS d"
            " JOIN instances AS i ON i.instance_id = d.instance_id",
            "INSERT OR IGNORE INTO derivatives ({names}, instance_id)"
            " SELECT {marks}, instance_id FROM instances WHERE path = ?",
            prefix="d.",
        )
        self._carry(writer, "events", _EVENT)
        self._carry(writer, "resolutions", _RESOLUTION)
        self._carry(writer, "claim_attempts", ("arrival_id", "attempts"))
        self._decide_again(writer)

    def _carry_arrivals(self, writer: Writer) -> None:
        # Those of archived objects are there already, but not what a person decided.
        self._carry(
            writer,
            "arrivals",
            _ARRIVAL,
            "SELECT {columns}, i.path AS instance_path FROM arrivals AS a"
            " LEFT JOIN instances AS i ON i.instance_id = a.instance_id",
            "INSERT INTO arrivals ({names}, instance_id)"
            " VALUES ({marks}, (SELECT instance_id FROM instances WHERE path = ?))"
            " ON CONFLICT (arrival_id) DO UPDATE SET retried_as = excluded.retried_as,"
            " resolved_at = excluded.resolved_at, outcome = excluded.outcome",
            prefix="a.",
        )

    def _carry(
        self,
        writer: Writer,
        table: str,
        columns: tuple[str, ...],
        select: str = "",
        insert: str = "",
        prefix: str = "",
    ) -> None:
        """Copy a table in pages; a page that cannot be read ends it."""
        select = select or f"SELECT {{columns}} FROM {table}"
        insert = insert or f"INSERT OR REPLACE INTO {table} ({{names}}) VALUES ({{marks}})"
        names = ", ".join(columns)
        question = select.format(columns=", ".join(prefix + name for name in columns))
        statement = insert.format(names=names, marks=", ".join("?" * len(columns)))
        for page in self._pages(question):
            writer.run_in_transaction(partial(_put, statement, page))
            self.carried[table] += len(page)

    def _decide_again(self, writer: Writer) -> None:
        """Make current again what a person had made current, in the same order."""
        paths = [
            row["path"]
            for row in self._rows(
                "SELECT path FROM resolutions WHERE decision = 'make-current'"
                " AND path IS NOT NULL ORDER BY resolution_id"
            )
        ]

        def decide(connection: sqlite3.Connection) -> None:
            for path in paths:
                row = connection.execute(
                    "SELECT instance_id FROM instances WHERE path = ?", (path,)
                ).fetchone()
                if row is not None:
                    decisions.make_current(connection, row[0])
            connection.executemany(
                "UPDATE contradictions SET resolved_at = ? WHERE level = ? AND uid = ?"
                " AND attribute = ? AND value = ?",
                settled,
            )

        settled = [
            (row["resolved_at"], row["level"], row["uid"], row["attribute"], row["value"])
            for row in self._rows("SELECT * FROM contradictions WHERE resolved_at IS NOT NULL")
        ]
        writer.run_in_transaction(decide)

    def _pages(self, question: str) -> Iterator[list[tuple[Any, ...]]]:
        if self.reader is None:
            return
        try:
            cursor = self.reader.connection.execute(question)
            while page := cursor.fetchmany(_PAGE_ROWS):
                yield [tuple(row) for row in page]
        except sqlite3.DatabaseError as error:
            self._lost(error)

    def _rows(self, question: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        if self.reader is None:
            return []
        try:
            return self.reader.rows(question, values)
        except (Corrupt, Retry, sqlite3.DatabaseError) as error:
            self._lost(error)
            return []

    def _lost(self, error: Exception) -> None:
        if not self.is_damaged:
            log.warning("index: part of the old one cannot be read: %s", error)
        self.is_damaged = True


def _put(statement: str, page: list[tuple[Any, ...]], connection: sqlite3.Connection) -> None:
    connection.executemany(statement, page)


def _version(outcome: Outcome) -> Version:
    return Version.CURRENT if outcome is Outcome.ARCHIVED else Version(outcome.value)
