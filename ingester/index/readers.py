"""Asking the index: read-only connections, and the questions that commands ask.

    with Reader.open(path) as reader:
        reader.find(["müller", "2024-03", "MR"])
        reader.show("1.2.840...")
        names, rows = reader.query("SELECT modality, count(*) FROM images GROUP BY 1")

Nothing can be changed through a reader, whatever SQL it is given: the file is opened
read-only, SQLite is told `query_only`, and an authoriser refuses everything but
reading (ATTACH, PRAGMAs that set something, loading extensions).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from ingester.errors import Fatal
from ingester.index.connection import connect_reader, is_missing, translated
from ingester.index.migrations import refuse_other_schema
from ingester.index.names import folded
from ingester.index.search import matching
from ingester.index.words import explained

Row = dict[str, Any]

_READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_LOOKING = frozenset(
    {
        "application_id", "collation_list", "compile_options", "data_version", "database_list",
        "foreign_key_list", "function_list", "index_info", "index_list", "index_xinfo",
        "pragma_list", "table_info", "table_list", "table_xinfo", "user_version",
    }
)  # fmt: skip
_JSON_COLUMNS = ("detail", "attributes")


@dataclass(frozen=True, slots=True)
class Shown:
    """All the index knows of one UID; `level` is study, series or instance.

    `history` holds arrivals, each with `explanation`, a sentence for people; `decisions`
    what a person decided about them or about the study (`ingester resolve`).
    """

    level: str
    study: Row
    series: tuple[Row, ...]
    instances: tuple[Row, ...]
    history: tuple[Row, ...]
    problems: tuple[Row, ...]
    decisions: tuple[Row, ...]


class Reader:
    """A read-only connection with the questions that commands ask."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    def open(cls, path: Path, *, is_still: bool = False) -> Reader:
        """Open the index for reading; *is_still* as for `connect_reader`.

        Raises
        ------
        Fatal
            There is no index, or one of another schema than ours.
        Corrupt
            There is one, and it is damaged.
        """
        if not path.parent.is_dir():
            raise Fatal(f"There is no folder {path.parent}; is a disk not mounted?")
        if is_missing(path):
            raise Fatal(f"There is no index at {path} yet: `ingester run` makes it.")
        with translated(path):
            connection = connect_reader(path, is_still=is_still)
            try:
                refuse_other_schema(connection, path)
            except BaseException:
                connection.close()
                raise
            connection.create_function("folded", 1, folded, deterministic=True)
            connection.set_authorizer(authorise_reading)
        return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def secure(self) -> None:
        """Let this connection answer questions only, from now on (again)."""
        self.connection.set_authorizer(authorise_reading)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """Answer every question of a `with` block from one moment of the index."""
        self.connection.set_authorizer(None)
        self.connection.execute("BEGIN")
        self.connection.set_authorizer(authorise_reading)
        try:
            yield
        finally:
            self.connection.set_authorizer(None)
            self.connection.execute("ROLLBACK")
            self.connection.set_authorizer(authorise_reading)

    @contextmanager
    def with_scratch(self) -> Iterator[None]:
        """Attach an empty database, `scratch`, to a `with` block that needs tables of its own.

        It lies in a temporary file, so what is put there costs no memory.  All questions
        are answered from one moment of the index, which was opened read-only and stays so.
        """
        self.connection.set_authorizer(None)
        self.connection.execute("PRAGMA query_only = OFF")
        self.connection.execute("ATTACH '' AS scratch")
        try:
            self.connection.execute("PRAGMA scratch.journal_mode = OFF")
            self.connection.execute("PRAGMA scratch.synchronous = OFF")
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.execute("COMMIT")
        finally:
            self.connection.execute("DETACH scratch")
            self.connection.execute("PRAGMA query_only = ON")
            self.secure()

    def rows(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """Return all rows as dictionaries, JSON columns parsed."""
        with translated(self.path):
            return [_parsed(row) for row in self.connection.execute(sql, values)]

    def query(
        self, sql: str, values: Mapping[str, Any] = MappingProxyType({})
    ) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Run anybody's SQL; returns the columns' names, and the rows as they come.

        Raises
        ------
        Fatal
            The statement is wrong, or would do more than read; SQLite's error is the cause.
        """
        try:
            cursor = self.connection.execute(sql, dict(values))
        except (sqlite3.OperationalError, sqlite3.ProgrammingError, sqlite3.Warning) as error:
            raise Fatal(f"SQL: {error}") from error
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_AUTH:
                raise Fatal("SQL: the index can only be read from here.") from error
            raise
        names = [column[0] for column in cursor.description or ()]
        return names, (tuple(row) for row in cursor)

    def problems(self, limit: int = -1) -> list[Row]:
        """Return what needs a person, the oldest first."""
        return self.rows("SELECT * FROM problems ORDER BY at, arrival_id LIMIT ?", (limit,))

    def quarantine(self, *, with_foreign: bool = False, settled: bool = False) -> list[Row]:
        """Return the files set aside that wait for a person, each with a `message`.

        *settled* ones are those that a person has accepted instead: they lie there still.
        """
        outcomes = ("quarantined", "foreign") if with_foreign else ("quarantined",)
        decided = "IS NOT NULL" if settled else "IS NULL"
        found: list[Row] = []
        for outcome in outcomes:
            found += self.rows(
                "SELECT arrival_id, source, batch, original_name, arrived_at, finished_at,"
                " size_bytes, sha256, outcome, reason, detail FROM arrivals"
                f" WHERE outcome = '{outcome}' AND resolved_at {decided} AND retried_as IS NULL"
            )
        for row in found:
            row["message"] = explained(row)
        return sorted(found, key=lambda row: str(row["arrival_id"]))

    def settled_files(self) -> int:
        """Return how many quarantined files a person has settled where they lie."""
        return self._number(
            "SELECT count(*) FROM arrivals WHERE outcome = 'quarantined'"
            " AND resolved_at IS NOT NULL AND retried_as IS NULL"
        )

    def sources_of_batch(self, batch: str) -> list[str]:
        """Return the sources that have a batch of this name."""
        found = self.rows(
            "SELECT DISTINCT source FROM arrival_counts WHERE batch = ? AND batch <> ''"
            " ORDER BY source",
            (batch,),
        )
        return [row["source"] for row in found]

    def batch_names(self) -> list[str]:
        """Return the name of every batch, the latest first."""
        found = self.rows(
            "SELECT batch FROM arrival_counts WHERE batch <> ''"
            " GROUP BY batch ORDER BY max(last_finished_at) DESC, batch"
        )
        return [row["batch"] for row in found]

    def batch(self, source: str, batch: str) -> Row | None:
        """Return a row of the view `batches`, None where there is none."""
        found = self.rows("SELECT * FROM batches WHERE source = ? AND batch = ?", (source, batch))
        return found[0] if found else None

    def arrival(self, arrival_id: str) -> Row | None:
        """Return one row of `arrivals`, None where there is none."""
        found = self.rows("SELECT * FROM arrivals WHERE arrival_id = ?", (arrival_id,))
        return found[0] if found else None

    def find(self, words: Sequence[str], limit: int = -1) -> list[Row]:
        """Return the studies (as in `study_list`) that match every word, the latest first.

        A word matches a part of the name (any script, with or without accents), of the
        patient ID, accession number or description; a date or the beginning of one; a
        modality; a Study Instance UID.  Spaces, `^` and `=` part words, in any order.
        """
        found, values = matching(words)
        latest_first = "study_date DESC, study_time DESC, study_instance_uid"
        return self.rows(
            f"SELECT * FROM study_list WHERE study_instance_uid IN (SELECT s.study_instance_uid"
            f" {found} ORDER BY {latest_first} LIMIT ?) ORDER BY {latest_first}",
            [*values, limit],
        )

    def count_found(self, words: Sequence[str]) -> int:
        """Return how many studies match every word."""
        found, values = matching(words)
        return self._number(f"SELECT count(*) {found}", *values)

    def show(self, uid: str) -> Shown | None:
        """Return all about a study, series or instance; None where nobody knows it."""
        for level, column in (
            ("study", "study_instance_uid"),
            ("series", "series_instance_uid"),
            ("instance", "sop_instance_uid"),
        ):
            instances = self.rows(
                f"SELECT * FROM images WHERE {column} = ?"
                " ORDER BY series_number, instance_number, instance_id",
                (uid,),
            )
            if instances:
                return self._shown(level, instances)
        return None

    def _shown(self, level: str, instances: list[Row]) -> Shown:
        ids = json.dumps([row["instance_id"] for row in instances])
        series = json.dumps(sorted({row["series_instance_uid"] for row in instances}))
        within = "IN (SELECT value FROM json_each(?))"
        if level == "instance":
            for row in instances:
                self._complete(row)
        history = self.rows(
            f"SELECT * FROM arrivals WHERE instance_id {within} ORDER BY arrived_at, arrival_id",
            (ids,),
        )
        for row in history:
            row["explanation"] = explained(row)
        (study,) = self.rows(
            "SELECT * FROM study_list WHERE study_instance_uid = ?",
            (instances[0]["study_instance_uid"],),
        )
        return Shown(
            level=level,
            study=study,
            series=tuple(
                self.rows(
                    f"SELECT * FROM series WHERE series_instance_uid {within}"
                    " ORDER BY series_number, series_instance_uid",
                    (series,),
                )
            ),
            instances=tuple(instances),
            history=tuple(history),
            problems=tuple(self._problems_of({row["instance_id"] for row in instances})),
            decisions=tuple(self._decisions_about(study["study_instance_uid"], history)),
        )

    def _complete(self, instance: Row) -> None:
        key = (instance["instance_id"],)
        header = self.rows("SELECT attributes FROM headers WHERE instance_id = ?", key)
        instance["attributes"] = header[0]["attributes"] if header else {}
        instance["derivatives"] = self.rows(
            "SELECT kind, status, reason, path, pipeline_version, made_at, detail"
            " FROM derivatives WHERE instance_id = ? ORDER BY kind",
            key,
        )

    def _problems_of(self, instance_ids: set[int]) -> list[Row]:
        return self.rows(
            "SELECT * FROM problems WHERE instance_id IN (SELECT value FROM json_each(?))"
            " ORDER BY at, arrival_id",
            (json.dumps(sorted(instance_ids)),),
        )

    def _decisions_about(self, study_instance_uid: str, arrivals: Sequence[Row]) -> list[Row]:
        return self.rows(
            "SELECT at, decided_by, decision, arrival_id, study_instance_uid, path, note"
            " FROM resolutions WHERE arrival_id IN (SELECT value FROM json_each(?))"
            " OR (arrival_id IS NULL AND study_instance_uid = ?) ORDER BY resolution_id",
            (json.dumps([row["arrival_id"] for row in arrivals]), study_instance_uid),
        )

    def _number(self, sql: str, *values: Any) -> int:
        with translated(self.path):
            return int(self.connection.execute(sql, values).fetchone()[0])


def authorise_reading(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Let SQLite compile what only reads; everything else is refused."""
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() == "load_extension":
        return sqlite3.SQLITE_DENY
    if action in _READING:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in _LOOKING:
        # With an argument these two would set something.
        is_asked = second is None or (first or "").lower() not in (
            "application_id",
            "user_version",
        )
        return sqlite3.SQLITE_OK if is_asked else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_DENY


def _parsed(row: sqlite3.Row) -> Row:
    values = dict(row)
    for name in _JSON_COLUMNS:
        if isinstance(values.get(name), str):
            try:
                values[name] = json.loads(values[name])
            except ValueError:
                continue  # somebody's own column of that name: shown as it is
    return values
