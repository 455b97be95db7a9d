"""The one writer of the index: it alone holds a writing connection.

    writer = Writer.open(path)
    writer.finished(ids)            after a crash: which claims have their row already
    writer.versions(uids)           what is stored of these SOP Instance UIDs
    writer.record(records)          one transaction; the rows, then the caller forgets
    writer.checkpoint(idle=...)     keeps the write-ahead log short

`record` may be replayed any number of times: an arrival that has its row is left as
it is.  After an error the connection is closed and opened again at the next call,
because a COMMIT that failed may or may not have happened: the caller asks `finished`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from ingester import durable
from ingester.errors import Retry
from ingester.index import current, decisions, pending, rows
from ingester.index.additions import unusable
from ingester.index.columns import Progress, add_columns, no_progress
from ingester.index.connection import (
    PAGE_BYTES,
    be_patient,
    connect_writer,
    is_missing,
    translated,
)
from ingester.index.current import IssuerOf, no_issuer
from ingester.index.decisions import Decided, Decision, Wish
from ingester.index.hierarchy import Hierarchy
from ingester.index.migrations import MIGRATIONS, keep_copy, migrate, ours_in
from ingester.index.rows import Event, NotRecorded
from ingester.index.words import listed
from ingester.keywords import Column
from ingester.model import ArrivalRecord, Derivative, Kind, KnownVersion, type_json

log = logging.getLogger(__name__)

T = TypeVar("T")

# About 32 MiB of log (a changed row costs a page, by measurement): a checkpoint writes
# each page once however often it changed, so it pays not to be early.
_CHECKPOINT_PAGES = 8000
# The log begins anew when nobody reads from it.  Where there is always somebody, it
# grows; beyond this length the writer waits a moment for those who read just now.
_LONG_LOG_PAGES = 4 * _CHECKPOINT_PAGES
_PATIENCE_WITH_READERS_MS = 200
_SUFFIXES = ("-wal", "-shm", "-journal")


class Writer:
    """The index as the ingest sees it; used from one thread."""

    def __init__(self, path: Path, columns: Sequence[str], mode: int) -> None:
        self.path = path
        self._columns = tuple(columns)
        self._mode = mode
        self._open_connection: sqlite3.Connection | None = None
        self._hierarchy: Hierarchy | None = None
        self._insert: rows.InstanceInsert | None = None
        self._pending = pending.LowMarks()
        self._pages = 0  # written since the last checkpoint, about
        self._log_pages = 0  # of the whole log, at the last checkpoint
        self._held_pages = 0  # the same, where a reader would not let it go
        #: Whether the write-ahead log may hold something: `checkpoint` when idle.
        self.has_log = True

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        columns: Sequence[str] = (),
        mode: int = 0o640,
        progress: Progress = no_progress,
    ) -> Writer:
        """Open the index, making or migrating it; *progress* is told of filling columns.

        Raises
        ------
        Fatal
            A foreign or newer database, or a column that cannot be had.
        Corrupt
            The index is damaged: keep it aside, rebuild.
        Retry
            The disk or another process does not let us now.
        """
        writer = cls(path, columns, mode)
        with translated(path):
            writer._connect(progress)
        return writer

    def close(self) -> None:
        """Close the connection, leaving no write-ahead log behind where possible."""
        connection, self._open_connection = self._open_connection, None
        if connection is not None:
            with translated(self.path):
                connection.close()

    def versions(self, uids: Collection[str]) -> dict[str, list[KnownVersion]]:
        """Return what is stored of each SOP Instance UID, the oldest first."""
        with self._reading() as connection:
            return rows.versions(connection, uids)

    def knows(self, sop_instance_uid: str) -> bool:
        """Return whether an object of this UID is stored."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT 1 FROM instances WHERE sop_instance_uid = ? LIMIT 1", (sop_instance_uid,)
            ).fetchone()
            return row is not None

    def attributes(self, instance_ids: Collection[int]) -> dict[int, str]:
        """Return the recorded header of each instance, as its JSON text."""
        with self._reading() as connection:
            return rows.attributes(connection, instance_ids)

    def finished(self, arrival_ids: Collection[str]) -> set[str]:
        """Return those of the arrivals that have their row already."""
        with self._reading() as connection:
            return set(rows.recorded(connection, arrival_ids))

    def departed(self, arrival_ids: Collection[str]) -> set[str]:
        """Return those of the arrivals whose files left quarantine: discarded, or sent back."""
        with self._reading() as connection:
            return rows.departed(connection, arrival_ids)

    def set_aside(self) -> list[tuple[str, str]]:
        """Return (arrival id, reason) of the files in quarantine that wait for a person."""
        with self._reading() as connection:
            return rows.set_aside(connection)

    def finished_members(self, arrival_id: str) -> dict[int, int]:
        """Return number and size of an archive file's members that have their row already."""
        with self._reading() as connection:
            return rows.recorded_members(connection, arrival_id)

    def incomplete_media(self, since: str) -> list[tuple[str, str, str | None, str]]:
        """Return id, source, batch and name of DICOMDIRs that named more than there was.

        Of those whose arrival id is *since* or later.
        """
        with self._reading() as connection:
            return rows.incomplete_media(connection, since)

    def stored_names(self, source: str, batches: Collection[str]) -> list[str]:
        """Return the original names of what is archived of these batches."""
        with self._reading() as connection:
            return rows.stored_names(connection, source, batches)

    def put_detail(self, arrival_id: str, detail: Mapping[str, type_json]) -> None:
        """Replace what an arrival tells of itself."""
        self.run_in_transaction(lambda c: rows.put_detail(c, arrival_id, detail))

    def record(
        self, records: Sequence[ArrivalRecord], *, announce: bool = True
    ) -> list[int | None]:
        """Record what became of files, in one transaction; returns instance ids.

        A record that the index refuses leaves no trace, and the others are committed.
        *announce* adds the events.

        Raises
        ------
        NotRecorded
            The others are committed; `failed` names these arrivals.
        Retry
            Whether it was committed is unknown: ask `finished`, replay.
        """
        if not records:
            return []
        failed: dict[str, str] = {}
        try:
            ids = self.run_in_transaction(
                lambda c: self._inserts().all(c, records, announce=announce)
            )
        except rows.Refused:
            ids = self.run_in_transaction(
                lambda c: self._inserts().each(c, records, failed, announce=announce)
            )
        if failed:
            raise NotRecorded(failed, ids)
        return ids

    def record_derivatives(self, derivatives: Sequence[Derivative]) -> None:
        """Record what was made, replacing earlier rows of the same instance and kind."""
        if derivatives:
            self.run_in_transaction(lambda c: rows.put_derivatives(c, derivatives))

    def pending_derivatives(
        self,
        pipeline_versions: Mapping[Kind, int],
        limit: int,
        *,
        exclude: Collection[int] = (),
    ) -> list[pending.PendingDerivative]:
        """Return instances that lack a derivative of this version, the oldest first."""
        with self._reading() as connection:
            return self._pending.lacking(connection, pipeline_versions, limit, exclude)

    def forget_derivatives(self, kind: Kind | None, which: Literal["failed", "all"]) -> int:
        """Remove rows so that the derivatives are made again; returns how many."""
        self._pending.reset()
        return self.run_in_transaction(lambda c: rows.drop_derivatives(c, kind, which))

    def forget_derivative_at(self, path: str) -> bool:
        """Remove the row of the derivative at *path*, so that it is made again."""
        self._pending.reset()
        return self.run_in_transaction(
            lambda c: c.execute("DELETE FROM derivatives WHERE path = ?", (path,)).rowcount > 0
        )

    def version_at(self, path: str) -> KnownVersion | None:
        """Return what is stored under a path of the archive."""
        with self._reading() as connection:
            return rows.version_at(connection, path)

    def put_header(self, instance_id: int, attributes: str) -> None:
        """Put an object's header (JSON) in where it is missing."""
        self.run_in_transaction(
            lambda c: c.execute(
                "INSERT OR IGNORE INTO headers (instance_id, attributes) VALUES (?, ?)",
                (instance_id, attributes),
            )
        )

    def lacks_picture(self, path: str, kind: Kind) -> bool:
        """Return whether the object at *path* is known to have no derivative of this kind."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT d.path FROM derivatives AS d JOIN instances AS i USING (instance_id)"
                " WHERE i.path = ? AND d.kind = ?",
                (path, kind),
            ).fetchone()
        return row is not None and row[0] is None

    def mark_retried(self, arrival_id: str, retried_as: str, at: str) -> None:
        """Note that a file set aside went back to the spool as another arrival."""
        self.mark_all_retried([(arrival_id, retried_as)], at)

    def mark_all_retried(self, pairs: Sequence[tuple[str, str]], at: str) -> None:
        """Note that files set aside went back to the spool: (old arrival, new arrival)."""
        self.run_in_transaction(
            lambda c: c.executemany(
                "UPDATE arrivals SET retried_as = ?, resolved_at = ? WHERE arrival_id = ?",
                [(retried_as, at, arrival_id) for arrival_id, retried_as in pairs],
            )
        )

    def resolve(
        self,
        words: Sequence[str],
        *,
        decision: Wish,
        at: str,
        by: str | None = None,
        note: str | None = None,
        study_instance_uid: str | None = None,
        issuer_of: IssuerOf = no_issuer,
    ) -> Decided:
        """Record a person's decision about what *words* name; returns what came of it.

        With *study_instance_uid*, about all undecided conflicts of the study and every
        contradiction in it as well.  *issuer_of* tells what a source's files leave out.
        """
        made = Decision(decision, at, by, note)
        return self.run_in_transaction(
            lambda c: decisions.decide(
                c, self._rows_above(), words, study_instance_uid, made, issuer_of
            )
        )

    def make_current(self, paths: Sequence[str], issuer_of: IssuerOf = no_issuer) -> None:
        """Let the versions at these paths be current again, as a person had decided.

        What is not there (any more) is left out.
        """

        def make(connection: sqlite3.Connection) -> None:
            found = [
                connection.execute(
                    "SELECT instance_id FROM instances WHERE path = ?", (path,)
                ).fetchone()
                for path in paths
            ]
            made = [row[0] for row in found if row is not None]
            for instance_id in made:
                current.make_current(connection, instance_id)
            if made:
                current.fill_anew(connection, self._rows_above(), made, issuer_of)

        self.run_in_transaction(make)

    def attempts(self, arrival_id: str) -> int:
        """Return how often a claim was tried alone and not survived."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT attempts FROM claim_attempts WHERE arrival_id = ?", (arrival_id,)
            ).fetchone()
            return int(row[0]) if row else 0

    def count_attempt(self, arrival_id: str) -> int:
        """Count an attempt, durably, before it is made; returns the new count."""

        def count(connection: sqlite3.Connection) -> int:
            connection.execute(
                "INSERT INTO claim_attempts (arrival_id, attempts) VALUES (?, 1)"
                " ON CONFLICT (arrival_id) DO UPDATE SET attempts = attempts + 1",
                (arrival_id,),
            )
            row = connection.execute(
                "SELECT attempts FROM claim_attempts WHERE arrival_id = ?", (arrival_id,)
            ).fetchone()
            return int(row[0])

        return self.run_in_transaction(count)

    def forget_attempts(self, arrival_id: str) -> None:
        """Forget the attempts of a claim that was read and survived."""
        self.run_in_transaction(
            lambda c: c.execute("DELETE FROM claim_attempts WHERE arrival_id = ?", (arrival_id,))
        )

    def add_events(self, events: Sequence[Event]) -> None:
        """Add things worth telling."""
        if events:
            self.run_in_transaction(lambda c: rows.put_events(c, events))

    def run_in_transaction(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run *change* between BEGIN IMMEDIATE and COMMIT; roll back if it raises."""
        if self._pages >= _CHECKPOINT_PAGES:
            self.checkpoint(idle=False)
        with translated(self.path):
            connection = self._connect()
            before = connection.total_changes
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = change(connection)
                durable.effect("commit", self.path)
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                hindrance = self._hindrance(connection, error)
                self._abandon()
                if hindrance is not None:
                    raise hindrance from error
                raise
            except BaseException:
                self._abandon()
                raise
        self._pages += connection.total_changes - before
        self.has_log = True
        return result

    @property
    def held_log_bytes(self) -> int:
        """Return how long the log is that a reader keeps from beginning anew, else 0."""
        return self._held_pages * PAGE_BYTES

    def checkpoint(self, idle: bool) -> None:
        """Move the write-ahead log into the database; when *idle*, empty it.

        A reader in the middle of an answer keeps it from being emptied: then `has_log`
        stays true, and the next call tries again.
        """
        self._pages = 0
        mode, patience = ("TRUNCATE", 0) if idle else ("PASSIVE", 0)
        if not idle and self._log_pages >= _LONG_LOG_PAGES:
            mode, patience = "RESTART", _PATIENCE_WITH_READERS_MS
        with translated(self.path):
            connection = self._connect()
            try:
                durable.effect("checkpoint", self.path)
                be_patient(connection, patience)
                row = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                be_patient(connection)
            except sqlite3.DatabaseError:
                self._abandon()
                raise
        is_held, log_pages = bool(row[0]), int(row[1])
        self._log_pages = log_pages if is_held or mode == "PASSIVE" else 0
        if mode != "PASSIVE" or log_pages < _LONG_LOG_PAGES:
            self._held_pages = log_pages if is_held else 0
        self.has_log = is_held or not idle

    def snapshot(self, path: Path) -> None:
        """Put an ordinary (not WAL) copy of the index at *path*, atomically."""
        with self._reading() as connection:
            keep_copy(connection, path, self._mode)

    def _rows_above(self) -> Hierarchy:
        assert self._hierarchy is not None  # made with the connection
        return self._hierarchy

    def _inserts(self) -> rows.InstanceInsert:
        assert self._insert is not None  # made with the connection
        return self._insert

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with translated(self.path):
            connection = self._connect()
            try:
                yield connection
            except sqlite3.DatabaseError:
                self._abandon()
                raise

    def _connect(self, progress: Progress = no_progress) -> sqlite3.Connection:
        if self._open_connection is None:
            if is_missing(self.path):
                self._make()
            connection = connect_writer(self.path)
            try:
                migrate(connection, self.path)
                promoted = self._promote(connection, progress)
            except BaseException:
                connection.close()
                raise
            self._open_connection = connection
            self._hierarchy = Hierarchy(connection)
            self._insert = rows.InstanceInsert(self._hierarchy, promoted)
            self._pages += connection.total_changes  # back-filling may have been long
            self._pending.reset()
        return self._open_connection

    def _make(self) -> None:
        """Make an empty index, whole before it has its name: nobody reads half of one."""
        aside = self.path.with_name(f"{self.path.name}.new")
        for path in (aside, self.path):
            # A log that its database did not outlive would be taken for the new one's.
            for suffix in _SUFFIXES:
                durable.unlink(path.with_name(path.name + suffix))
        durable.unlink(aside)
        os.close(durable.create(aside, self._mode))
        connection = connect_writer(aside)
        try:
            migrate(connection, aside)
        finally:
            connection.close()
        durable.replace(aside, self.path)
        durable.flush_folder(self.path.parent)

    def _promote(self, connection: sqlite3.Connection, progress: Progress) -> tuple[Column, ...]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            promoted = add_columns(connection, self._columns, progress)
            durable.effect("commit", self.path)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return promoted

    def _hindrance(
        self, connection: sqlite3.Connection, error: sqlite3.OperationalError
    ) -> Retry | None:
        """Return what to tell where a statement fails that ours alone could not make fail.

        An index or trigger that somebody put on our tables runs with every row of ours.
        """
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            return None
        blamed = unusable(connection, ours_in(connection, MIGRATIONS))
        if not blamed:
            return None
        return Retry(
            f"The index {self.path} cannot be written because of what was added to its tables: "
            f"{listed([str(each) for each in blamed])}. Drop it with the program that made it."
        )

    def _abandon(self) -> None:
        """Close a connection whose state nobody knows; the next call opens anew.

        Closing rolls back.  What the hierarchy remembered goes with it.
        """
        connection, self._open_connection = self._open_connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.DatabaseError as error:
                log.warning("index: closing after an error failed: %s", error)
