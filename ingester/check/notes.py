"""What a rebuild has to remember of a whole archive, on disk beside the index.

Two lists: the files that were found in the tree, and the objects that the old index
knows.  Together they give the order in which objects are taken in, what each was
before, and what is missing.

    notes.add_files(...)           the tree
    notes.add_known(...)           the old index
    for path in notes.in_order():  the old index's order; what it does not know by time
        notes.recall(path, sha256)
    notes.missing()                known, and nowhere to be found
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ingester.index.connection import translated
from ingester.model import Outcome, Version

_SCHEMA = """
CREATE TABLE files (path BLOB PRIMARY KEY, mtime_ns INTEGER NOT NULL, is_object INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE known (
    instance_id INTEGER PRIMARY KEY,
    path BLOB UNIQUE,  -- NULL where only an arrival is left to tell of the object
    sop_instance_uid TEXT,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER,
    data_set_sha256 TEXT,
    archived_at TEXT,
    version TEXT,
    arrival_id TEXT,
    arrived_sha256 TEXT,
    outcome TEXT,
    is_taken INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX known_by_sha256 ON known (sha256);
CREATE INDEX known_by_uid ON known (sop_instance_uid);
CREATE TABLE patients (identity TEXT PRIMARY KEY, patient_key INTEGER NOT NULL) WITHOUT ROWID;
"""
#: The old index's order.  What it does not know comes by time and path, after the known
#: objects that are older.
_IN_ORDER = """
CREATE TABLE places AS
SELECT f.path AS path, f.mtime_ns AS mtime_ns, k.instance_id AS instance_id,
    coalesce(max(k.instance_id) OVER (
        ORDER BY f.mtime_ns, f.path ROWS UNBOUNDED PRECEDING), 0) AS behind
FROM files AS f LEFT JOIN known AS k ON k.path = f.path
WHERE f.is_object
"""
_PLACES = """
SELECT path FROM places
ORDER BY coalesce(instance_id, behind), instance_id IS NULL, mtime_ns, path
"""
_BY_PATH = """
SELECT instance_id, sha256, size_bytes, data_set_sha256, archived_at, version, arrival_id,
    arrived_sha256, outcome FROM known WHERE path = ? AND NOT is_taken
"""
_BY_SHA256 = """
SELECT instance_id, sha256, size_bytes, data_set_sha256, archived_at, version, arrival_id,
    arrived_sha256, outcome FROM known WHERE sha256 = ? AND NOT is_taken
    AND (path IS NULL OR path NOT IN (SELECT path FROM files)) ORDER BY instance_id LIMIT 1
"""
#: No index ever gave out so many; a larger one comes from damage.
_LARGEST_ID = 2**40


@dataclass(frozen=True, slots=True)
class Known:
    """What the old index says of an object; None is what it does not say any more.

    `sha256` is of the bytes that were archived, and stands in two tables: where one of
    them agrees with the file, the other is what is damaged.
    """

    instance_id: int
    sha256: str
    size_bytes: int | None
    data_set_sha256: str | None
    archived_at: str | None
    version: str | None
    arrival_id: str | None
    outcome: str | None


class Notes:
    """The notes of one rebuild; the caller removes the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with translated(path):
            self._connection = sqlite3.connect(path, isolation_level=None)
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add_files(self, files: Iterable[tuple[str, int, bool]]) -> None:
        """Add files of the tree: path, modification time (ns), whether it is an object's."""
        self._put(
            "INSERT INTO files VALUES (?, ?, ?)",
            ((_raw(path), mtime_ns, is_object) for path, mtime_ns, is_object in files),
        )

    def add_known(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of the old `instances`, in the order of the columns above."""
        self._put(
            "INSERT OR IGNORE INTO known (instance_id, path, sop_instance_uid, sha256,"
            " size_bytes, data_set_sha256, archived_at, version)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (row[0], _raw(row[1]), *row[2:])
                for row in rows
                if _is_id(row[0]) and isinstance(row[1], str) and isinstance(row[3], str)
            ),
        )

    def add_arrivals(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add what brought each object: instance_id, sha256, arrival_id, outcome.

        Of an object whose own row is lost an arrival still tells the `instance_id`.
        """
        self._put(
            "INSERT INTO known (instance_id, sha256, arrived_sha256, arrival_id, outcome)"
            " VALUES (?1, ?2, ?2, ?3, ?4)"
            " ON CONFLICT (instance_id) DO UPDATE SET arrived_sha256 = excluded.arrived_sha256,"
            " arrival_id = excluded.arrival_id, outcome = excluded.outcome"
            " WHERE arrival_id IS NULL",
            (row for row in rows if _is_id(row[0]) and all(isinstance(e, str) for e in row[1:])),
        )

    def in_order(self) -> Iterator[str]:
        """Yield the path of every object, in the order in which they are taken in."""
        with translated(self._path):
            self._connection.execute(_IN_ORDER)
            for (path,) in self._connection.execute(_PLACES):
                yield _text(path)

    def recall(self, path: str, sha256: str) -> Known | None:
        """Return what the old index knew of the object at *path*, once for each object.

        By its path; an object that was moved, or whose row is damaged, by its bytes.
        """
        with translated(self._path):
            found = self._connection.execute(_BY_PATH, (_raw(path),)).fetchone()
            if found is None:
                found = self._connection.execute(_BY_SHA256, (sha256,)).fetchone()
            if found is None:
                return None
            taken = "UPDATE known SET is_taken = 1 WHERE instance_id = ?"
            self._connection.execute(taken, (found[0],))
        return _believed(*found, read=sha256)

    def current_of(self, sop_instance_uid: str) -> str | None:
        """Return the path of the object that is current of a UID and still to be taken in."""
        with translated(self._path):
            found = self._connection.execute(
                "SELECT path FROM known WHERE sop_instance_uid = ? AND version = 'current'"
                " AND NOT is_taken AND path IN (SELECT path FROM files)",
                (sop_instance_uid,),
            ).fetchone()
        return None if found is None else _text(found[0])

    def add_patients(self, rows: Iterable[tuple[str, int]]) -> None:
        """Add the key that the old index gave each identity."""
        self._put("INSERT OR IGNORE INTO patients VALUES (?, ?)", rows)

    def patient_key(self, identity: str) -> int | None:
        """Return the key that the old index gave an identity."""
        with translated(self._path):
            query = "SELECT patient_key FROM patients WHERE identity = ?"
            found = self._connection.execute(query, (identity,)).fetchone()
        return None if found is None else int(found[0])

    def has_file(self, path: str) -> bool:
        """Return whether a file (an object, a thumbnail, a video) lies there."""
        with translated(self._path):
            query = "SELECT 1 FROM files WHERE path = ?"
            return self._connection.execute(query, (_raw(path),)).fetchone() is not None

    def missing(self) -> Iterator[str]:
        """Yield the paths of objects that the old index knows and nobody has found."""
        with translated(self._path):
            for (path,) in self._connection.execute(
                "SELECT path FROM known WHERE NOT is_taken AND path IS NOT NULL"
                " AND path NOT IN (SELECT path FROM files) ORDER BY path"
            ):
                yield _text(path)

    @property
    def objects(self) -> int:
        """Return how many objects lie in the tree."""
        return self._number("SELECT count(*) FROM files WHERE is_object")

    @property
    def largest_id(self) -> int:
        """Return the largest `instance_id` that the old index gave out, 0 without one."""
        return self._number("SELECT coalesce(max(instance_id), 0) FROM known")

    @property
    def largest_patient_key(self) -> int:
        """Return the largest `patient_key` that the old index gave out, 0 without one."""
        return self._number("SELECT coalesce(max(patient_key), 0) FROM patients")

    def _number(self, query: str) -> int:
        with translated(self._path):
            return int(self._connection.execute(query).fetchone()[0])

    def _put(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with translated(self._path):
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")


def _believed(
    instance_id: int,
    sha256: str,
    size_bytes: Any,
    data_set_sha256: Any,
    archived_at: Any,
    version: Any,
    arrival_id: Any,
    arrived_sha256: Any,
    outcome: Any,
    *,
    read: str,
) -> Known:
    """Return a row without what only damage can have written there."""
    return Known(
        instance_id,
        read if arrived_sha256 == read else sha256,
        size_bytes if isinstance(size_bytes, int) else None,
        data_set_sha256 if isinstance(data_set_sha256, str) else None,
        archived_at if _is_moment(archived_at) else None,
        version if version in set(Version) else None,
        arrival_id if isinstance(arrival_id, str) else None,
        outcome if outcome in set(Outcome) else None,
    )


def _is_moment(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_id(value: object) -> bool:
    return isinstance(value, int) and 1 <= value <= _LARGEST_ID


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
