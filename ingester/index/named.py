"""What a person may call an arrival: its id, the beginning of one, a SOP Instance UID.

    named(connection, "00063a1f2b3c4d5e6f708192", "accept")   this arrival
    named(connection, "00063a1f", "accept")                   the one that waits for a person
    named(connection, "1.2.840.1.5", "make-current")          the other version of this object

Where that is not one thing, `NotNamed` says in a sentence what to say instead.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Literal

from ingester.errors import IngesterError

Wish = Literal["accept", "make-current", "discard"]

_SHORTEST = 6
_MOST_NAMED = 5
_PART_OF_ID = re.compile(rf"[0-9a-f.-]{{{_SHORTEST},}}", re.ASCII)
_UID = re.compile(r"[0-9]+(\.[0-9]+)+", re.ASCII)

_IS_UNDECIDED = (
    "retried_as IS NULL AND resolved_at IS NULL"
    " AND outcome IN ('quarantined', 'foreign', 'conflict')"
)
#: Which arrival brought an instance (a duplicate of it did not).
BROUGHT = "outcome IN ('archived', 'variant', 'conflict')"


class NotNamed(IngesterError):
    """The words name nothing to decide on, or more than one thing; the sentence says which."""


def named(connection: sqlite3.Connection, text: str, wish: Wish) -> list[str]:
    """Return the arrivals that a person means by *text*.

    Raises
    ------
    NotNamed
        Nothing is called so, or more than one thing.
    """
    if connection.execute("SELECT 1 FROM arrivals WHERE arrival_id = ?", (text,)).fetchone():
        return [text]
    if _UID.fullmatch(text):
        found = _of_object(connection, text, wish)
        if found is not None:
            return found
    return [_by_beginning(connection, text)]


def _by_beginning(connection: sqlite3.Connection, text: str) -> str:
    if not _PART_OF_ID.fullmatch(text):
        raise NotNamed("no arrival has this id, and no object this SOP Instance UID")
    for condition in (_IS_UNDECIDED, "1"):
        rows = connection.execute(
            # Every character of an id sorts before "g".
            f"SELECT arrival_id FROM arrivals WHERE {condition}"
            " AND arrival_id >= ?1 AND arrival_id < ?1 || 'g' ORDER BY arrival_id LIMIT ?2",
            (text, _MOST_NAMED + 1),
        ).fetchall()
        if len(rows) == 1:
            return str(rows[0][0])
        if rows:
            raise NotNamed(f"several arrivals begin so: {_listed([row[0] for row in rows])}")
    raise NotNamed("no arrival has this id, and none begins so")


def _of_object(connection: sqlite3.Connection, uid: str, wish: Wish) -> list[str] | None:
    """Return the arrivals of an object by its UID, None where no object has it."""
    versions = connection.execute(
        f"SELECT i.version, (SELECT min(a.arrival_id) FROM arrivals AS a"
        f" WHERE a.instance_id = i.instance_id AND a.{BROUGHT}),"
        f" EXISTS (SELECT 1 FROM arrivals AS a WHERE a.instance_id = i.instance_id"
        f" AND a.outcome = 'conflict' AND a.resolved_at IS NULL)"
        " FROM instances AS i WHERE i.sop_instance_uid = ? ORDER BY i.instance_id",
        (uid,),
    ).fetchall()
    if not versions:
        _refuse_other_level(connection, uid)
        return None
    if wish == "make-current":
        others = [arrival for version, arrival, _ in versions if version != "current" and arrival]
        if len(others) > 1:
            raise NotNamed(f"it has several other versions; name one by its id: {_listed(others)}")
        return others or [arrival for _, arrival, _ in versions if arrival]
    undecided = [arrival for _, arrival, is_undecided in versions if is_undecided and arrival]
    return undecided or [arrival for _, arrival, _ in versions if arrival]


def _refuse_other_level(connection: sqlite3.Connection, uid: str) -> None:
    for level in ("study", "series"):
        if connection.execute(
            f"SELECT 1 FROM instances WHERE {level}_instance_uid = ? LIMIT 1", (uid,)
        ).fetchone():
            hint = f"say --study {uid}" if level == "study" else "name its study with --study UID"
            raise NotNamed(f"this is a {level}, no single object: {hint}")


def _listed(ids: Sequence[str]) -> str:
    more = ", …" if len(ids) > _MOST_NAMED else ""
    return ", ".join(ids[:_MOST_NAMED]) + more
