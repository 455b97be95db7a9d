"""Following files by their arrival ids until the index says what became of them.

Members of an archive file bear its id as the beginning of theirs, and the archive
file's own row comes last: when every given id has a row, all is said.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ingester.cli.progress import Progress
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.errors import Retry
from ingester.index.readers import Reader, Row

_POLL_SECONDS = 0.25
_ALIVE_EVERY = 20  # polls
_ID_LENGTH = 24

_FINISHED = """
  SELECT count(*) FROM arrivals WHERE arrival_id IN (SELECT value FROM json_each(?))"""
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


def until_done(site: Site, ids: Ids, *, is_quiet: bool) -> None:
    """Wait until a running service has finished these arrivals and their derivatives.

    Raises
    ------
    Retry
        the service stopped meanwhile: the files wait in the spool.
    """
    clock = threading.Event()
    polls = 0
    with open_index(site.settings) as index:
        with Progress("ingest", "files", is_quiet=is_quiet) as progress:
            while (done := finished(index, ids)) < len(ids.values):
                progress.set(done, len(ids.values))
                polls += 1
                _make_sure_of_service(site, polls)
                clock.wait(_POLL_SECONDS)
        total = pending(index, ids)
        with Progress("derive", "objects", is_quiet=is_quiet) as progress:
            while left := pending(index, ids):
                progress.set(total - left, total)
                polls += 1
                _make_sure_of_service(site, polls)
                clock.wait(_POLL_SECONDS)


def _make_sure_of_service(site: Site, polls: int) -> None:
    if polls % _ALIVE_EVERY == 0 and site.ask("status") is None:
        raise Retry(
            "the service has stopped; the files are safe in the spool, and the next "
            "`ingester run` takes them up"
        )


def finished(index: Reader, ids: Ids) -> int:
    """Return how many of the ids have their outcome."""
    count: int = index.connection.execute(_FINISHED, (ids.parameters[1],)).fetchone()[0]
    return count


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
