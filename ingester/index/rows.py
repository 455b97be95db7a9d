"""The statements behind the writer: arrivals, instances, derivatives, events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ingester.errors import IngesterError
from ingester.index.hierarchy import Hierarchy
from ingester.index.words import explained
from ingester.keywords import Column
from ingester.model import (
    ArrivalRecord,
    Derivative,
    ImageAttributes,
    Instance,
    Kind,
    KnownVersion,
    Outcome,
    Stored,
    Version,
    type_json,
)

_IMAGE_COLUMNS = tuple(each.name for each in fields(ImageAttributes))
_ARRIVAL_EVENTS = {
    Outcome.QUARANTINED: "arrival.quarantined",
    Outcome.CONFLICT: "arrival.conflict",
}
_TOLD = frozenset({Outcome.QUARANTINED, Outcome.FOREIGN, Outcome.CONFLICT})
#: What one record can get wrong by itself; anything else concerns the transaction.
RECORD_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class Event:
    """A thing worth telling: one row of `events`; `kind` as in the contract."""

    at: str
    kind: str
    study_instance_uid: str | None = None
    detail: Mapping[str, type_json] = field(default_factory=dict)


class Refused(Exception):
    """The index refused one record of many: none of them was recorded."""


class NotRecorded(IngesterError):
    """The index refused some records; all others of the same call are committed.

    `failed` maps arrival ids to SQLite's words, `instance_ids` is what `record` would
    have returned, with None for those.
    """

    def __init__(self, failed: Mapping[str, str], instance_ids: Sequence[int | None]) -> None:
        super().__init__(f"The index refused {len(failed)} records: {sorted(set(failed.values()))}")
        self.failed = dict(failed)
        self.instance_ids = list(instance_ids)


_VERSION = (
    "SELECT sop_instance_uid, instance_id, path, size_bytes, sha256, data_set_sha256,"
    " transfer_syntax_uid, version, archived_at FROM instances"
)


def versions(
    connection: sqlite3.Connection, uids: Collection[str]
) -> dict[str, list[KnownVersion]]:
    """Return what is stored of each SOP Instance UID, the oldest first."""
    found: dict[str, list[KnownVersion]] = {}
    for row in connection.execute(
        f"{_VERSION} WHERE sop_instance_uid IN (SELECT value FROM json_each(?))"
        " ORDER BY instance_id",
        (json.dumps(list(uids)),),
    ):
        found.setdefault(row[0], []).append(_version(row))
    return found


def version_at(connection: sqlite3.Connection, path: str) -> KnownVersion | None:
    """Return what is stored under a path; None where the index knows nothing there."""
    row = connection.execute(f"{_VERSION} WHERE path = ?", (path,)).fetchone()
    return None if row is None else _version(row)


def _version(row: Sequence[Any]) -> KnownVersion:
    _, instance_id, path, size_bytes, sha256, data_set_sha256, syntax, version, at = row
    return KnownVersion(
        instance_id, path, size_bytes, sha256, data_set_sha256, syntax, Version(version), at
    )


def attributes(connection: sqlite3.Connection, instance_ids: Collection[int]) -> dict[int, str]:
    """Return the recorded header of each instance, as its JSON text."""
    return dict(
        connection.execute(
            "SELECT instance_id, attributes FROM headers"
            " WHERE instance_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(instance_ids)),),
        )
    )


def recorded(connection: sqlite3.Connection, arrival_ids: Collection[str]) -> dict[str, int | None]:
    """Return the instance id of each arrival that has its row."""
    return dict(
        connection.execute(
            "SELECT arrival_id, instance_id FROM arrivals"
            " WHERE arrival_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(arrival_ids)),),
        )
    )


def departed(connection: sqlite3.Connection, arrival_ids: Collection[str]) -> set[str]:
    """Return those of the arrivals whose files left quarantine: discarded, or sent back."""
    found = connection.execute(
        "SELECT arrival_id FROM arrivals WHERE (outcome = 'discarded' OR retried_as IS NOT NULL)"
        " AND arrival_id IN (SELECT value FROM json_each(?))",
        (json.dumps([each for each in arrival_ids if each.isascii()]),),
    )
    return {row[0] for row in found}


def set_aside(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return (arrival id, reason) of the files in quarantine that wait for a person."""
    found: list[tuple[str, str]] = []
    for outcome in (Outcome.QUARANTINED, Outcome.FOREIGN):
        found += connection.execute(
            f"SELECT arrival_id, reason FROM arrivals WHERE outcome = '{outcome}'"
            " AND resolved_at IS NULL AND retried_as IS NULL"
        ).fetchall()
    return sorted(found)


def recorded_members(connection: sqlite3.Connection, arrival_id: str) -> dict[int, int]:
    """Return number and size of those of an archive file's own members that have a row.

    Their ids are the archive file's, a dot and the number; those of an inner archive
    file's members go on with another dot.
    """
    found = connection.execute(
        "SELECT CAST(substr(arrival_id, ?2) AS INTEGER), size_bytes FROM arrivals"
        " WHERE arrival_id > ?1 || '.' AND arrival_id < ?1 || '/'"
        " AND instr(substr(arrival_id, ?2), '.') = 0",
        (arrival_id, len(arrival_id) + 2),
    )
    return dict(found)


def incomplete_media(
    connection: sqlite3.Connection, since: str
) -> list[tuple[str, str, str | None, str]]:
    """Return id, source, batch and name of DICOMDIRs that named more than there was."""
    found = connection.execute(
        "SELECT arrival_id, source, batch, original_name FROM arrivals"
        " WHERE outcome = 'unpacked' AND arrival_id >= ?"
        " AND json_extract(detail, '$.missing') > 0 ORDER BY arrival_id",
        (since,),
    )
    return [tuple(row) for row in found]


def stored_names(
    connection: sqlite3.Connection, source: str, batches: Collection[str]
) -> list[str]:
    """Return the original names of what is archived of these batches."""
    found = connection.execute(
        "SELECT original_name FROM arrivals WHERE source = ?"
        " AND batch IN (SELECT value FROM json_each(?))"
        " AND outcome IN ('archived', 'duplicate', 'variant', 'conflict')",
        (source, json.dumps(list(batches))),
    )
    return [name for (name,) in found]


def put_detail(
    connection: sqlite3.Connection, arrival_id: str, detail: Mapping[str, type_json]
) -> None:
    """Replace what an arrival tells of itself."""
    connection.execute(
        "UPDATE arrivals SET detail = ? WHERE arrival_id = ?", (_json(detail), arrival_id)
    )


class InstanceInsert:
    """Puts arrival records in, each within a savepoint of its own."""

    def __init__(self, hierarchy: Hierarchy, promoted: Sequence[Column]) -> None:
        self._hierarchy = hierarchy
        self._has_attempts = True
        names = [
            "instance_id", "sop_instance_uid", "series_instance_uid", "study_instance_uid",
            "sop_class_uid", "transfer_syntax_uid", *_IMAGE_COLUMNS, "source", "path",
            "size_bytes", "sha256", "data_set_sha256", "archived_at", "version",
        ]  # fmt: skip
        values = [f"?{number}" for number in range(1, len(names) + 1)]
        # Promoted columns are computed from the JSON text, which comes last.
        text = f"?{len(names) + 1}"
        self._has_promoted = bool(promoted)
        for column in promoted:
            names.append(f'"{column.name}"')
            values.append(column.expression.replace("{}", text))
        self._promoted_sql = "".join(
            f', "{column.name}" = {column.expression.replace("{}", "?6")}' for column in promoted
        )
        self._instance_sql = (
            f"INSERT INTO instances ({', '.join(names)}) VALUES ({', '.join(values)})"
        )

    def all(
        self, connection: sqlite3.Connection, records: Sequence[ArrivalRecord], *, announce: bool
    ) -> list[int | None]:
        """Put all records in as one; raises `Refused` where the index refuses one.

        Nearly always nothing is refused, and a savepoint per record would copy every
        page that the record touches: that costs more than the record itself.
        """
        try:
            return self._all(connection, records, None, announce=announce)
        except RECORD_ERRORS as error:
            raise Refused(str(error)) from error

    def each(
        self,
        connection: sqlite3.Connection,
        records: Sequence[ArrivalRecord],
        failed: dict[str, str],
        *,
        announce: bool,
    ) -> list[int | None]:
        """Put records in one by one; those the index refuses are named in *failed*."""
        return self._all(connection, records, failed, announce=announce)

    def _all(
        self,
        connection: sqlite3.Connection,
        records: Sequence[ArrivalRecord],
        failed: dict[str, str] | None,
        *,
        announce: bool,
    ) -> list[int | None]:
        done = recorded(connection, [record.arrival_id for record in records])
        self._has_attempts = _has_attempts(connection)
        moments: dict[str, list[str]] = {}
        for record in records:
            if record.arrival_id in done:
                continue
            if failed is None:
                done[record.arrival_id] = self._one(connection, record, announce=announce)
            elif not self._saved(connection, record, done, failed, announce=announce):
                continue
            if record.instance is not None and record.stored is not None:
                uid = record.instance.study_instance_uid
                moments.setdefault(uid, []).append(record.stored.archived_at)
        connection.executemany(
            "UPDATE studies SET first_archived_at = min(first_archived_at, ?1),"
            " last_archived_at = max(last_archived_at, ?2) WHERE study_instance_uid = ?3"
            " AND (first_archived_at > ?1 OR last_archived_at < ?2)",
            [(min(each), max(each), uid) for uid, each in moments.items()],
        )
        return [done.get(record.arrival_id) for record in records]

    def _saved(
        self,
        connection: sqlite3.Connection,
        record: ArrivalRecord,
        done: dict[str, int | None],
        failed: dict[str, str],
        *,
        announce: bool,
    ) -> bool:
        connection.execute("SAVEPOINT record")
        try:
            done[record.arrival_id] = self._one(connection, record, announce=announce)
        except RECORD_ERRORS as error:
            connection.execute("ROLLBACK TO record")
            self._hierarchy.forget()
            failed[record.arrival_id] = f"{type(error).__name__}: {error}"
        connection.execute("RELEASE record")
        return record.arrival_id not in failed

    def _one(
        self, connection: sqlite3.Connection, record: ArrivalRecord, *, announce: bool
    ) -> int | None:
        instance_id = record.instance_id
        if record.instance is not None and record.stored is not None:
            if record.outcome is Outcome.DUPLICATE:
                self._renew_instance(connection, record.instance, record.stored)
            else:
                instance_id = self._put_instance(
                    connection, record.source, record.instance, record.stored, instance_id
                )
        _execute(
            connection,
            "INSERT INTO arrivals (arrival_id, source, batch, original_name, arrived_at,"
            " finished_at, size_bytes, sha256, outcome, reason, detail, message, instance_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.arrival_id,
                record.source,
                record.batch,
                record.original_name,
                record.arrived_at,
                record.finished_at,
                record.size_bytes,
                record.sha256,
                record.outcome.value,
                record.reason.value if record.reason else None,
                _json(record.detail),
                _message(record),
                instance_id,
            ),
        )
        if self._has_attempts:
            connection.execute(
                "DELETE FROM claim_attempts WHERE arrival_id = ?", (record.arrival_id,)
            )
        kind = _ARRIVAL_EVENTS.get(record.outcome)
        if announce and kind is not None:
            put_events(connection, [_arrival_event(record, kind, instance_id)])
        return instance_id

    def _put_instance(
        self,
        connection: sqlite3.Connection,
        source: str,
        instance: Instance,
        stored: Stored,
        instance_id: int | None,
    ) -> int:
        known = connection.execute(
            "SELECT instance_id, sha256 FROM instances WHERE path = ?", (stored.path,)
        ).fetchone()
        if known is not None and known[1] == stored.sha256:
            return int(known[0])  # another arrival of the very same bytes came first
        contradictions = self._hierarchy.record(instance, stored.archived_at)
        image = instance.image
        values: tuple[Any, ...] = (
            instance_id,
            instance.sop_instance_uid,
            instance.series_instance_uid,
            instance.study_instance_uid,
            instance.sop_class_uid,
            instance.transfer_syntax_uid,
            image.instance_number,
            image.number_of_frames,
            image.rows,
            image.columns,
            image.samples_per_pixel,
            image.bits_allocated,
            image.bits_stored,
            image.photometric_interpretation,
            source,
            stored.path,
            stored.size_bytes,
            stored.sha256,
            stored.data_set_sha256,
            stored.archived_at,
            stored.version.value,
        )
        if self._has_promoted:
            values = (*values, instance.attributes)
        instance_id = int(_execute(connection, self._instance_sql, values).lastrowid or 0)
        _execute(
            connection,
            "INSERT INTO headers (instance_id, attributes) VALUES (?, ?)",
            (instance_id, instance.attributes),
        )
        self._hierarchy.note(contradictions, instance_id, stored.archived_at)
        return instance_id

    def _renew_instance(
        self, connection: sqlite3.Connection, instance: Instance, stored: Stored
    ) -> None:
        """Let a row tell of the other bytes that took the place of its lost file.

        They say the same, so what the row says of patient, study and picture stays.
        """
        known = connection.execute(
            "SELECT instance_id, sha256 FROM instances WHERE path = ?", (stored.path,)
        ).fetchone()
        if known is None or known[1] == stored.sha256:
            return
        _execute(
            connection,
            "UPDATE instances SET transfer_syntax_uid = ?2, size_bytes = ?3, sha256 = ?4,"
            f" data_set_sha256 = ?5{self._promoted_sql} WHERE instance_id = ?1",
            (
                known[0],
                instance.transfer_syntax_uid,
                stored.size_bytes,
                stored.sha256,
                stored.data_set_sha256,
                *([instance.attributes] if self._has_promoted else []),
            ),
        )
        _execute(
            connection,
            "UPDATE headers SET attributes = ?2 WHERE instance_id = ?1",
            (known[0], instance.attributes),
        )


def put_derivatives(connection: sqlite3.Connection, derivatives: Sequence[Derivative]) -> None:
    """Record what was made, replacing earlier rows of the same instance and kind."""
    connection.executemany(
        "INSERT INTO derivatives (instance_id, kind, status, reason, path,"
        " pipeline_version, made_at, detail, fps) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (instance_id, kind) DO UPDATE SET status = excluded.status,"
        " reason = excluded.reason, path = excluded.path,"
        " pipeline_version = excluded.pipeline_version, made_at = excluded.made_at,"
        " detail = excluded.detail, fps = excluded.fps",
        [
            (
                each.instance_id,
                each.kind,
                each.status,
                each.reason,
                each.path,
                each.pipeline_version,
                each.made_at,
                _json(each.detail),
                each.detail.get("fps"),
            )
            for each in derivatives
        ],
    )


def drop_derivatives(
    connection: sqlite3.Connection, kind: Kind | None, which: Literal["failed", "all"]
) -> int:
    """Remove rows so that the derivatives are made again; returns how many."""
    condition = "status = 'failed'" if which == "failed" else "1"
    return connection.execute(
        f"DELETE FROM derivatives WHERE {condition} AND (?1 IS NULL OR kind = ?1)", (kind,)
    ).rowcount


def put_events(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    """Add rows to `events`."""
    connection.executemany(
        "INSERT INTO events (at, kind, study_instance_uid, detail) VALUES (?, ?, ?, ?)",
        [(e.at, e.kind, e.study_instance_uid, _json(e.detail)) for e in events],
    )


def _has_attempts(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM claim_attempts LIMIT 1").fetchone() is not None


def _arrival_event(record: ArrivalRecord, kind: str, instance_id: int | None) -> Event:
    detail: dict[str, type_json] = {
        "arrival_id": record.arrival_id,
        "source": _clean(record.source),
        "batch": _clean(record.batch),
    }
    if record.reason is not None:
        detail["reason"] = record.reason
    if instance_id is not None:
        detail["instance_id"] = instance_id
    study = record.instance.study_instance_uid if record.instance else None
    return Event(record.finished_at, kind, study, detail)


def _message(record: ArrivalRecord) -> str | None:
    """Return the words for outcomes that `problems` may show."""
    if record.outcome not in _TOLD:
        return None
    row = {"outcome": record.outcome, "reason": record.reason, "detail": record.detail}
    return explained(row)


def _json(value: Mapping[str, type_json]) -> str | None:
    return json.dumps(value, sort_keys=True, allow_nan=False) if value else None


def _execute(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
    try:
        return connection.execute(sql, values)
    except UnicodeEncodeError:
        # File names may hold bytes that are no text: they are kept, made visible.
        return connection.execute(sql, tuple(_clean(value) for value in values))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
