"""What a person decided about files set aside, conflicts and contradictions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

Decision = Literal["accept", "make-current", "discard"]


def resolve(
    connection: sqlite3.Connection,
    arrival_ids: Sequence[str],
    decision: Decision,
    at: str,
    note: str | None,
    study_instance_uid: str | None,
) -> list[str]:
    """Settle arrivals, and all about a study where one is named; returns the arrivals."""
    wanted = list(arrival_ids)
    if study_instance_uid is not None:
        rows = connection.execute(
            "SELECT a.arrival_id FROM arrivals AS a"
            " JOIN instances AS i ON i.instance_id = a.instance_id"
            " WHERE i.study_instance_uid = ? AND a.outcome = 'conflict'"
            " AND a.resolved_at IS NULL ORDER BY a.arrival_id",
            (study_instance_uid,),
        )
        wanted.extend(row[0] for row in rows.fetchall())
        _settle_contradictions(connection, study_instance_uid, at)
        if not wanted:
            _note(connection, at, decision, None, study_instance_uid, None, note)
    settled = []
    for arrival_id in dict.fromkeys(wanted):
        if _settle(connection, arrival_id, decision, at, note, study_instance_uid):
            settled.append(arrival_id)
    return settled


def _settle(
    connection: sqlite3.Connection,
    arrival_id: str,
    decision: Decision,
    at: str,
    note: str | None,
    study_instance_uid: str | None,
) -> bool:
    row = connection.execute(
        "SELECT outcome, instance_id FROM arrivals WHERE arrival_id = ? AND retried_as IS NULL",
        (arrival_id,),
    ).fetchone()
    if row is None:
        return False
    outcome, instance_id = row
    path = None
    if decision == "discard":
        if outcome not in ("quarantined", "foreign"):
            return False  # no archived version is ever removed
        outcome = "discarded"
    elif outcome not in ("quarantined", "foreign", "conflict", "variant"):
        return False
    elif decision == "make-current":
        if instance_id is None:
            return False
        path = make_current(connection, instance_id)
    connection.execute(
        "UPDATE arrivals SET outcome = ?, resolved_at = ? WHERE arrival_id = ?",
        (outcome, at, arrival_id),
    )
    _note(connection, at, decision, arrival_id, study_instance_uid, path, note)
    return True


def make_current(connection: sqlite3.Connection, instance_id: int) -> str:
    """Let this version be the current one of its UID; returns its path.

    The version that was current takes its place as variant or conflict.
    """
    uid, version, path = connection.execute(
        "SELECT sop_instance_uid, version, path FROM instances WHERE instance_id = ?",
        (instance_id,),
    ).fetchone()
    if version != "current":
        connection.execute(
            "UPDATE instances SET version = ? WHERE sop_instance_uid = ? AND version = 'current'",
            (version, uid),
        )
        connection.execute(
            "UPDATE instances SET version = 'current' WHERE instance_id = ?", (instance_id,)
        )
    return str(path)


def _settle_contradictions(
    connection: sqlite3.Connection, study_instance_uid: str, at: str
) -> None:
    connection.execute(
        "UPDATE contradictions SET resolved_at = ?1 WHERE resolved_at IS NULL AND ("
        " (level IN ('patient', 'study') AND uid = ?2) OR (level = 'series' AND uid IN"
        " (SELECT series_instance_uid FROM instances WHERE study_instance_uid = ?2)))",
        (at, study_instance_uid),
    )


def _note(
    connection: sqlite3.Connection,
    at: str,
    decision: Decision,
    arrival_id: str | None,
    study_instance_uid: str | None,
    path: str | None,
    note: str | None,
) -> None:
    connection.execute(
        "INSERT INTO resolutions (at, decision, arrival_id, study_instance_uid, path, note)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (at, decision, arrival_id, study_instance_uid, path, note),
    )
