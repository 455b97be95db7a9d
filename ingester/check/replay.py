"""A person's decisions, taken again when the rebuild comes to where they were taken.

A version that was made current speaks for its study from then on: what came later was
compared with what it says.  So the decisions stand among the objects, each behind the
last object that there was (`resolutions.last_instance_id`), and a rebuild that takes both
in that order comes to the same rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from ingester.check.former import FormerIndex
from ingester.index.current import IssuerOf
from ingester.index.writer import Writer

_COLUMNS = ("resolution_id", "at", "decision", "path", "last_instance_id")
#: Where a decision stands that does not say it: behind everything.
_LAST = 2**63


@dataclass(frozen=True, slots=True)
class _Decision:
    """What one command made current, and the last object that there was before."""

    behind: int
    paths: tuple[str, ...]


@dataclass(slots=True)
class Replay:
    """Takes the old index's decisions again; *issuer_of* tells what files leave out."""

    writer: Writer
    issuer_of: IssuerOf
    _left: deque[_Decision] = field(default_factory=deque)
    _uids: frozenset[str] = frozenset()

    @classmethod
    def of(cls, former: FormerIndex, writer: Writer, issuer_of: IssuerOf) -> Replay:
        """Return what there is to take again."""
        decisions = list(_decisions(former))
        uids = frozenset(_uid_of(path) for each in decisions for path in each.paths)
        return cls(writer, issuer_of, deque(decisions), uids)

    def is_about(self, path: str) -> bool:
        """Say whether this is a version of an object that somebody decided about."""
        return _uid_of(path) in self._uids

    def is_due(self, instance_id: int | None) -> bool:
        """Say whether a decision stands before the object of this number."""
        return bool(self._left) and instance_id is not None and self._left[0].behind < instance_id

    def until(self, instance_id: int) -> None:
        """Take what was decided before the object of this number came."""
        while self.is_due(instance_id):
            self._take(self._left.popleft())

    def rest(self) -> None:
        """Take what is left: every object is there."""
        while self._left:
            self._take(self._left.popleft())

    def _take(self, decision: _Decision) -> None:
        self.writer.make_current(decision.paths, self.issuer_of)


def _decisions(former: FormerIndex) -> Iterator[_Decision]:
    told = sorted(
        (number, str(at), path, behind if isinstance(behind, int) else _LAST)
        for number, at, wish, path, behind in former.rows("resolutions", _COLUMNS)
        if isinstance(number, int) and wish == "make-current" and isinstance(path, str)
    )
    # What one command decided was decided at once.
    for (_, behind), rows in groupby(told, key=lambda row: (row[1], row[3])):
        yield _Decision(behind, tuple(path for _, _, path, _ in rows))


def _uid_of(path: str) -> str:
    """Return the SOP Instance UID that an object's file is named by."""
    return path.rpartition("/")[2].removesuffix(".dcm").partition("~")[0]
