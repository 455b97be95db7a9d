"""Following files by their arrival ids until the index says what became of them.

Members of an archive file bear its id as the beginning of theirs, and the archive
file's own row comes last: when every given id has a row, all is said.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingester.cli.progress import Progress
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.control import Document
from ingester.errors import Retry
from ingester.index.readers import Reader, Row

_POLL_SECONDS = 0.25
_PAUSE = 5  # times as long as a question took
_ALIVE_EVERY = 8  # polls
_ID_LENGTH = 24

_ROWS_AT_FIRST = "SELECT rowid, arrival_id FROM arrivals WHERE arrival_id >= ?"
_ROWS_SINCE = "SELECT rowid, arrival_id FROM arrivals WHERE rowid > ?"
_OURS = f"""
  arrivals WHERE arrival_id >= ?1 AND substr(arrival_id, 1, {_ID_LENGTH}) IN
  (SELECT value FROM json_each(?2))"""
_NEW_INSTANCES = f"""
  SELECT DISTINCT instance_id FROM {_OURS} AND outcome IN ('archived', 'variant', 'conflict')"""
_PENDING = f"""
  SELECT count(*) FROM ({_NEW_INSTANCES}) AS ours
  WHERE (SELECT count(*) FROM derivatives AS d WHERE d.instance_id = ours.instance_id) < 2"""
_DERIVED = f"""
  SELECT kind, status, count(*) FROM derivatives
  WHERE instance_id IN ({_NEW_INSTANCES}) GROUP BY kind, status"""


@dataclass(frozen=True, slots=True)
class Ids:
    """The arrival ids to follow, in the order of their making."""

    values: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, str]:
        """Return what the queries are given: the first id, and all as JSON."""
        return (self.values[0] if self.values else "~", json.dumps(self.values))


class Following:
    """Counts the arrivals that come of given ids; each look reads only the new rows."""

    def __init__(self, index: Reader, ids: Ids) -> None:
        self._index = index
        self._left = set(ids.values)
        self._ours = frozenset(ids.values)
        self._last_row = 0
        self._to_come = 0
        self.arrived = 0  # with an outcome, members of archive files included
        with index.consistent():
            last = index.connection.execute("SELECT max(rowid) FROM arrivals").fetchone()[0]
            if ids.values:
                self._count(index.connection.execute(_ROWS_AT_FIRST, ids.parameters[:1]))
        self._last_row = last or 0

    @property
    def is_over(self) -> bool:
        """Return whether every id has its outcome."""
        return not self._left

    @property
    def total(self) -> int:
        """Return how many arrivals there will be, as far as is known."""
        return self.arrived + len(self._left) + self._to_come

    def look(self) -> None:
        """Count what was recorded since the last look."""
        self._count(self._index.connection.execute(_ROWS_SINCE, (self._last_row,)))

    def note(self, status: Document) -> None:
        """Note what the service tells of archive files that it is unpacking."""
        self._to_come = sum(
            each["members_total"] - each["members"]
            for each in status.get("unpacking", ())
            if each["arrival_id"][:_ID_LENGTH] in self._ours and each["members_total"] is not None
        )

    def _count(self, rows: Iterable[tuple[int, str]]) -> None:
        for row, arrival_id in rows:
            self._last_row = max(self._last_row, row)
            if arrival_id[:_ID_LENGTH] in self._ours:
                self.arrived += 1
                self._left.discard(arrival_id)
                if "." in arrival_id:
                    self._to_come = max(0, self._to_come - 1)


def until_done(site: Site, ids: Ids, *, is_quiet: bool) -> None:
    """Wait until a running service has finished these arrivals and their derivatives.

    Raises
    ------
    Retry
        the service stopped meanwhile: the files wait in the spool.
    """
    polls = _Polls(site)
    with open_index(site.settings) as index:
        following = Following(index, ids)
        with Progress("ingest", "files", is_quiet=is_quiet) as progress:
            while not following.is_over:
                progress.set(following.arrived, following.total)
                told = polls.wait()
                following.look()
                if told is not None:
                    following.note(told)
        total = pending(index, ids)
        with Progress("derive", "objects", is_quiet=is_quiet) as progress:
            while left := pending(index, ids):
                progress.set(total - left, total)
                polls.wait()


class _Polls:
    """Pauses between questions to the index, and sees now and then that the service lives."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._bell = threading.Event()
        self._count = 0
        self._last = time.monotonic()

    def wait(self) -> Document | None:
        """Pause; return what the service says of itself, where it was asked again.

        Raises
        ------
        Retry
            the service has stopped
        """
        took = time.monotonic() - self._last
        self._bell.wait(max(_POLL_SECONDS, _PAUSE * took))
        self._count += 1
        told = None
        if self._count % _ALIVE_EVERY == 1:
            told = self._site.ask("status")
            if told is None:
                raise Retry(
                    "the service has stopped; the files are safe in the spool, and the next "
                    "`ingester run` takes them up"
                )
        self._last = time.monotonic()
        return told


def pending(index: Reader, ids: Ids) -> int:
    """Return how many new objects still lack a derivative's row."""
    count: int = index.connection.execute(_PENDING, ids.parameters).fetchone()[0]
    return count


def outcomes(index: Reader, ids: Ids) -> list[Row]:
    """Return the arrivals that came of these ids, members of archive files included."""
    return index.rows(
        "SELECT arrival_id, original_name, outcome, reason, size_bytes, instance_id, detail"
        f" FROM {_OURS} ORDER BY arrival_id",
        ids.parameters,
    )


def derived(index: Reader, ids: Ids) -> dict[str, int]:
    """Return the summary's numbers of derivatives."""
    counts = {"thumbnails": 0, "videos": 0, "derivative_failures": 0}
    for kind, status, count in index.connection.execute(_DERIVED, ids.parameters):
        if status == "made":
            counts[f"{kind}s"] += count
        elif status == "failed":
            counts["derivative_failures"] += count
    return counts


def summary(
    index: Reader, ids: Ids, *, foreign: Sequence[int], seconds: float
) -> dict[str, int | float]:
    """Return the summary of the contract; *foreign* are sizes of files left where they are."""
    counts: dict[str, int | float] = dict.fromkeys(
        ("archived", "duplicate", "variant", "conflict", "quarantined", "foreign", "unpacked"), 0
    )
    arrived = outcomes(index, ids)
    for arrival in arrived:
        if arrival["outcome"] in counts:
            counts[arrival["outcome"]] += 1
    counts["foreign"] += len(foreign)
    return {
        "arrived": len(arrived) + len(foreign),
        **counts,
        **derived(index, ids),
        "bytes": sum(arrival["size_bytes"] for arrival in arrived) + sum(foreign),
        "seconds": round(seconds, 3),
    }
