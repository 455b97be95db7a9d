"""Which derivatives are still to be made: a query, never a list that could be lost.

An instance is pending while its row for a kind is missing, or was made by an older
pipeline.  All instances below a low-water mark are known to be done, so that asking
again and again does not read the whole index again and again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ingester.model import Kind


@dataclass(frozen=True, slots=True)
class PendingDerivative:
    """An instance, and the kinds of derivative it lacks."""

    instance_id: int
    kinds: frozenset[Kind]
    path: str  # relative to the archive
    size_bytes: int
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str | None
    number_of_frames: int | None
    rows: int | None
    columns: int | None
    source: str


@dataclass(slots=True)
class LowMarks:
    """Below its mark, an instance has its row of this kind and pipeline version."""

    _marks: dict[tuple[Kind, int], int] = field(default_factory=dict)

    def reset(self) -> None:
        """Forget the marks: rows were removed."""
        self._marks.clear()

    def lacking(
        self,
        connection: sqlite3.Connection,
        pipeline_versions: Mapping[Kind, int],
        limit: int,
        exclude: Collection[int],
    ) -> list[PendingDerivative]:
        """Return up to *limit* instances that lack something, the oldest first."""
        if limit <= 0:
            return []
        lacking: dict[int, set[Kind]] = {}
        top = connection.execute("SELECT coalesce(max(instance_id), 0) FROM instances")
        beyond: int = top.fetchone()[0] + 1
        for kind, version in pipeline_versions.items():
            mark = self._marks.get((kind, version), 0)
            found = connection.execute(
                "SELECT instance_id FROM instances AS i WHERE instance_id >= ?"
                " AND NOT EXISTS (SELECT 1 FROM derivatives AS d WHERE d.kind = ?"
                " AND d.instance_id = i.instance_id AND d.pipeline_version >= ?)"
                " ORDER BY instance_id LIMIT ?",
                (mark, kind, version, limit + len(exclude)),
            ).fetchall()
            self._marks[kind, version] = found[0][0] if found else beyond
            for (instance_id,) in found:
                lacking.setdefault(instance_id, set()).add(kind)
        chosen = sorted(set(lacking).difference(exclude))[:limit]
        return [
            PendingDerivative(row[0], frozenset(lacking[row[0]]), *row[1:])
            for row in connection.execute(
                "SELECT i.instance_id, i.path, i.size_bytes, i.sop_class_uid,"
                " i.transfer_syntax_uid, s.modality, i.number_of_frames, i.rows, i.columns,"
                " i.source FROM instances AS i"
                " JOIN series AS s ON s.series_instance_uid = i.series_instance_uid"
                " WHERE i.instance_id IN (SELECT value FROM json_each(?))"
                " ORDER BY i.instance_id",
                (json.dumps(chosen),),
            )
        ]
