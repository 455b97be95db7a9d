"""What a person decided about files set aside, conflicts and contradictions.

    accept        a quarantined file stays where it is and is no problem any more; of a
                  conflict, both versions stay, and the current one stays current
    make-current  another version of an object becomes the current one; none is removed
    discard       a quarantined file is removed for good (the caller does, after the row)

Every decision is a row of `resolutions` (who, when, what, a note) and sets
`arrivals.resolved_at`.  What cannot be decided is answered with a sentence that says
what can be done instead.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingester.index import current
from ingester.index.current import IssuerOf
from ingester.index.hierarchy import Hierarchy
from ingester.index.named import BROUGHT, NotNamed, Wish, named

__all__ = ["Decided", "Decision", "Wish", "decide"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person wants, and who, when and why; `by` is a login name."""

    wish: Wish
    at: str
    by: str | None = None
    note: str | None = None


@dataclass(slots=True)
class Decided:
    """What came of it: settled now, or before, and what could not be (with the reason)."""

    settled: list[str] = field(default_factory=list)
    settled_before: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    studies_before: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class _Cannot(Exception):
    """A decision cannot be made about an arrival; the sentence says what can."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    arrival_id: str
    outcome: str
    instance_id: int | None
    retried_as: str | None
    resolved_at: str | None

    @property
    def is_set_aside(self) -> bool:
        return self.outcome in ("quarantined", "foreign")


def decide(
    connection: sqlite3.Connection,
    hierarchy: Hierarchy,
    words: Sequence[str],
    study_instance_uid: str | None,
    decision: Decision,
    issuer_of: IssuerOf,
) -> Decided:
    """Decide about arrivals, as *words* name them, and about a study where one is named.

    A study means all its undecided conflicts, and what its objects contradict.
    """
    deciding = _Deciding(connection, decision)
    for text in words:
        deciding.about(text)
    if study_instance_uid is not None:
        deciding.about_study(study_instance_uid)
    if deciding.made_current:
        current.fill_anew(connection, hierarchy, deciding.made_current, issuer_of)
    deciding.settle_contradictions()
    return deciding.decided


@dataclass(slots=True)
class _Deciding:
    connection: sqlite3.Connection
    decision: Decision
    decided: Decided = field(default_factory=Decided)
    made_current: list[int] = field(default_factory=list)

    # ------------------------------------------------------------------ one arrival

    def about(self, text: str) -> None:
        """Decide about what *text* names."""
        try:
            for arrival_id in named(self.connection, text, self.decision.wish):
                self._one(arrival_id, self.decision.wish)
        except (NotNamed, _Cannot) as error:
            self.decided.failed.append((text, str(error)))

    def _one(self, arrival_id: str, wish: Wish, study_instance_uid: str | None = None) -> None:
        if arrival_id in self.decided.settled:
            return
        row = self.connection.execute(
            "SELECT arrival_id, outcome, instance_id, retried_as, resolved_at FROM arrivals"
            " WHERE arrival_id = ?",
            (arrival_id,),
        ).fetchone()
        arrival = _Arrival(*row)
        if arrival.retried_as is not None:
            raise _Cannot(f"it was sent back as {self._last_of(arrival)}: decide on that one")
        path = None
        if wish == "discard":
            is_new = self._discard(arrival)
        elif wish == "make-current":
            is_new, path = self._make_current(arrival)
        else:
            is_new = self._accept(arrival)
        (self.decided.settled if is_new else self.decided.settled_before).append(arrival_id)
        if is_new or self.decision.note:
            self._enter(arrival_id, study_instance_uid, path, wish)

    def _last_of(self, arrival: _Arrival) -> str:
        (last,) = self.connection.execute(
            "WITH RECURSIVE chain (id, length) AS (VALUES (?1, 0) UNION ALL"
            " SELECT a.retried_as, length + 1 FROM chain JOIN arrivals AS a ON a.arrival_id = id"
            " WHERE a.retried_as IS NOT NULL AND length < 1000)"
            " SELECT id FROM chain ORDER BY length DESC LIMIT 1",
            (arrival.arrival_id,),
        ).fetchone()
        return str(last)

    def _discard(self, arrival: _Arrival) -> bool:
        if arrival.outcome == "discarded":
            return False
        if not arrival.is_set_aside:
            raise _Cannot(
                "only what lies in quarantine is ever removed, no archived version: "
                f"{_INSTEAD.get(arrival.outcome, 'nothing is to be done about it')}"
            )
        self._settle(arrival, outcome="discarded")
        return True

    def _accept(self, arrival: _Arrival) -> bool:
        has_contradicted = self._has_contradicted(arrival)
        if has_contradicted:
            self.connection.execute(
                "UPDATE contradictions SET resolved_at = ? WHERE resolved_at IS NULL"
                " AND instance_id = ?",
                (self.decision.at, arrival.instance_id),
            )
        is_open = arrival.is_set_aside or arrival.outcome == "conflict"
        if is_open and arrival.resolved_at is None:
            self._settle(arrival)
            return True
        if not has_contradicted and not is_open:
            raise _Cannot(f"nothing about it is undecided: it was {arrival.outcome}")
        return has_contradicted

    def _has_contradicted(self, arrival: _Arrival) -> bool:
        row = self.connection.execute(
            "SELECT 1 FROM contradictions WHERE resolved_at IS NULL AND instance_id = ? LIMIT 1",
            (arrival.instance_id,),
        ).fetchone()
        return row is not None

    def _make_current(self, arrival: _Arrival) -> tuple[bool, str | None]:
        if arrival.instance_id is None:
            hint = f": mend it, then `ingester retry {arrival.arrival_id}`"
            raise _Cannot(f"it is not archived{hint if arrival.is_set_aside else ''}")
        (version,) = self.connection.execute(
            "SELECT version FROM instances WHERE instance_id = ?", (arrival.instance_id,)
        ).fetchone()
        path = current.make_current(self.connection, arrival.instance_id)
        is_undecided = arrival.outcome == "conflict" and arrival.resolved_at is None
        if version == "current" and not is_undecided:
            return False, None
        self.made_current.append(arrival.instance_id)
        self._settle(arrival)
        return True, path

    def _settle(self, arrival: _Arrival, outcome: str | None = None) -> None:
        self.connection.execute(
            "UPDATE arrivals SET outcome = ?, resolved_at = ? WHERE arrival_id = ?",
            (outcome or arrival.outcome, self.decision.at, arrival.arrival_id),
        )

    # ------------------------------------------------------------------- one study

    def about_study(self, uid: str) -> None:
        """Decide about all undecided conflicts of a study, and its contradictions."""
        try:
            self._study(uid)
        except _Cannot as error:
            self.decided.failed.append((uid, str(error)))

    def _study(self, uid: str) -> None:
        if (
            self.connection.execute(
                "SELECT 1 FROM studies WHERE study_instance_uid = ?", (uid,)
            ).fetchone()
            is None
        ):
            raise _Cannot("no study has this UID")
        wish, before = self.decision.wish, len(self.decided.settled)
        if wish == "discard":
            raise _Cannot(
                "no archived version is ever removed, and what lies in quarantine belongs to no "
                "study: name it by its id (see: ingester quarantine)"
            )
        undecided = self._undecided_of(uid)
        if wish == "make-current":
            chosen = self._newest_of(uid, undecided)
            for arrival_id in chosen:
                self._one(arrival_id, "make-current", uid)
            undecided = [each for each in undecided if each not in chosen]
        for arrival_id in undecided:
            self._one(arrival_id, "accept", uid)
        has_contradictions = self._has_contradictions(uid)
        is_new = has_contradictions or len(self.decided.settled) > before
        (self.decided.studies if is_new else self.decided.studies_before).append(uid)
        if has_contradictions or self.decision.note:
            self._enter(None, uid, None, wish)

    def _undecided_of(self, uid: str) -> list[str]:
        rows = self.connection.execute(
            "SELECT a.arrival_id FROM instances AS i"
            " JOIN arrivals AS a ON a.instance_id = i.instance_id"
            " WHERE i.study_instance_uid = ? AND a.outcome = 'conflict'"
            " AND a.resolved_at IS NULL AND a.retried_as IS NULL ORDER BY a.arrival_id",
            (uid,),
        )
        return [row[0] for row in rows]

    def _newest_of(self, uid: str, undecided: Sequence[str]) -> list[str]:
        """Return of each object the version to make current: the newest undecided conflict.

        Where all conflicts of an object were accepted, and nobody has chosen another
        version than the first, the newest of them: a person may think again.
        """
        rows = self.connection.execute(
            "SELECT i.sop_instance_uid, a.arrival_id,"
            " a.arrival_id IN (SELECT value FROM json_each(?2)),"
            " (SELECT count(*) FROM instances AS c JOIN arrivals AS f"
            f"   ON f.instance_id = c.instance_id AND f.{BROUGHT} AND f.outcome <> 'archived'"
            "   WHERE c.sop_instance_uid = i.sop_instance_uid AND c.version = 'current')"
            " FROM instances AS i JOIN arrivals AS a ON a.instance_id = i.instance_id"
            " WHERE i.study_instance_uid = ?1 AND a.outcome = 'conflict'"
            " AND i.version <> 'current' ORDER BY i.instance_id",
            (uid, json.dumps(list(undecided))),
        )
        chosen: dict[str, tuple[bool, str]] = {}
        for sop_instance_uid, arrival_id, is_undecided, was_chosen in rows:
            if not is_undecided and was_chosen:
                continue
            before = chosen.get(sop_instance_uid, (False, ""))
            chosen[sop_instance_uid] = max(before, (bool(is_undecided), arrival_id))
        if not chosen and not undecided:
            raise _Cannot("it has no conflict in which another version could be made current")
        return [arrival_id for _, arrival_id in chosen.values()]

    def _has_contradictions(self, uid: str) -> bool:
        found = self.connection.execute(
            f"SELECT 1 FROM contradictions WHERE resolved_at IS NULL AND {_OF_STUDY} LIMIT 1",
            (uid,),
        )
        return found.fetchone() is not None

    # ---------------------------------------------------------------- what follows

    def settle_contradictions(self) -> None:
        """Settle what the studies, and the versions of what was made current, contradict."""
        for uid in self.decided.studies:
            self.connection.execute(
                "UPDATE contradictions SET resolved_at = ?2"
                f" WHERE resolved_at IS NULL AND {_OF_STUDY}",
                (uid, self.decision.at),
            )
        self.connection.execute(
            "UPDATE contradictions SET resolved_at = ? WHERE resolved_at IS NULL AND instance_id"
            " IN (SELECT v.instance_id FROM instances AS i"
            "  JOIN instances AS v ON v.sop_instance_uid = i.sop_instance_uid"
            "  WHERE i.instance_id IN (SELECT value FROM json_each(?)))",
            (self.decision.at, json.dumps(self.made_current)),
        )

    def _enter(
        self,
        arrival_id: str | None,
        study_instance_uid: str | None,
        path: str | None,
        wish: Wish,
    ) -> None:
        made = self.decision
        self.connection.execute(
            "INSERT INTO resolutions (at, decided_by, decision, arrival_id, study_instance_uid,"
            " path, note, last_instance_id) VALUES (?, ?, ?, ?, ?, ?, ?,"
            " (SELECT max(instance_id) FROM instances))",
            (made.at, made.by, wish, arrival_id, study_instance_uid, path, made.note),
        )


_OF_STUDY = (
    "((level IN ('patient', 'study') AND ?1 IN (uid, other_uid)) OR (level = 'series' AND uid IN"
    " (SELECT series_instance_uid FROM instances WHERE study_instance_uid = ?1)))"
)
_INSTEAD = {
    "conflict": "accept it (without --discard), or make it current (--make-current)",
    "variant": "it is kept beside the other, and is no problem",
    "archived": "it is no problem",
    "duplicate": "it was not stored again anyway",
    "unpacked": "its members were arrivals of their own",
}
