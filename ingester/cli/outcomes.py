"""What the index says of given arrivals and of all that came of them.

Members of an archive file bear its id as the beginning of theirs.  Every question is
answered by SQLite in bounded memory, for an import may have brought a million files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ingester.index.readers import Reader, Row
from ingester.model import Outcome

#: An arrival's id without the numbers of members.
ID_LENGTH = 24

_OURS = f"""
  arrivals WHERE arrival_id >= ?1 AND substr(arrival_id, 1, {ID_LENGTH}) IN
  (SELECT value FROM json_each(?2))"""
_NEW_INSTANCES = f"""
  SELECT DISTINCT instance_id FROM {_OURS} AND outcome IN ('archived', 'variant', 'conflict')"""
_PENDING = f"""
  SELECT count(*) FROM ({_NEW_INSTANCES}) AS ours
  WHERE (SELECT count(*) FROM derivatives AS d WHERE d.instance_id = ours.instance_id) < 2"""
_DERIVED = f"""
  SELECT kind, status, count(*) FROM derivatives
  WHERE instance_id IN ({_NEW_INSTANCES}) GROUP BY kind, status"""
_COUNTS = f"SELECT outcome, count(*), sum(size_bytes) FROM {_OURS} GROUP BY outcome"
_TROUBLES = f"{_OURS} AND outcome IN ('quarantined', 'conflict')"
_TOLD = "original_name, outcome, reason, detail, retried_as, resolved_at"
_INCOMPLETE = f"{_OURS} AND outcome = 'unpacked' AND json_extract(detail, '$.missing') > 0"


@dataclass(frozen=True, slots=True)
class Ids:
    """The arrival ids to follow, in the order of their making."""

    values: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, str]:
        """Return what the queries are given: the first id, and all as JSON."""
        return (self.values[0] if self.values else "~", json.dumps(self.values))


@dataclass(slots=True)
class Tally:
    """So many files, and their bytes."""

    files: int = 0
    bytes: int = 0


def pending(index: Reader, ids: Ids) -> int:
    """Return how many new objects still lack a derivative's row."""
    count: int = index.connection.execute(_PENDING, ids.parameters).fetchone()[0]
    return count


def outcome_of(index: Reader, arrival_id: str) -> Outcome | None:
    """Return what became of one file, None where nobody knows yet."""
    query = "SELECT outcome FROM arrivals WHERE arrival_id = ?"
    row = index.connection.execute(query, (arrival_id,)).fetchone()
    return None if row is None else Outcome(row[0])


def summary(index: Reader, ids: Ids, left: Tally) -> Mapping[str, int]:
    """Return the contract's summary without `seconds`.

    Each member of an archive file counts, as in the view `batches`; *left* are foreign
    files that stayed where they were, which only the summary counts.
    """
    counts = dict.fromkeys(("archived", "duplicate", "variant", "conflict", "quarantined"), 0)
    counts |= {"foreign": left.files, "unpacked": 0}
    arrived, size_bytes = left.files, left.bytes
    for outcome, files, their_bytes in index.connection.execute(_COUNTS, ids.parameters):
        arrived += files
        size_bytes += their_bytes
        if outcome in counts:
            counts[outcome] += files
    return {"arrived": arrived, **counts, **_derived(index, ids), "bytes": size_bytes}


def _derived(index: Reader, ids: Ids) -> dict[str, int]:
    counts = {"thumbnails": 0, "videos": 0, "derivative_failures": 0}
    for kind, status, count in index.connection.execute(_DERIVED, ids.parameters):
        if status == "made":
            counts[f"{kind}s"] += count
        elif status == "failed":
            counts["derivative_failures"] += count
    return counts


def troubles(index: Reader, ids: Ids, *, limit: int) -> tuple[list[Row], int]:
    """Return the first that were quarantined or are in conflict, and how many there are."""
    first = f"SELECT {_TOLD} FROM {_TROUBLES} ORDER BY arrival_id LIMIT ?3"
    rows = index.rows(first, (*ids.parameters, limit))
    if len(rows) < limit:
        return rows, len(rows)
    count: int = index.connection.execute(
        f"SELECT count(*) FROM {_TROUBLES}", ids.parameters
    ).fetchone()[0]
    return rows, count


def incomplete_media(index: Reader, ids: Ids, *, limit: int) -> list[Row]:
    """Return the first DICOMDIRs that named more than there is."""
    first = f"SELECT {_TOLD} FROM {_INCOMPLETE} ORDER BY arrival_id LIMIT ?3"
    return index.rows(first, (*ids.parameters, limit))


def batches(index: Reader, ids: Ids, *, limit: int) -> list[tuple[str, str]]:
    """Return source and name of the first batches that they belong to."""
    found = index.connection.execute(
        f"SELECT DISTINCT source, batch FROM {_OURS} AND batch IS NOT NULL LIMIT ?3",
        (*ids.parameters, limit),
    )
    return [(source, batch) for source, batch in found]
