"""Following files by their arrival ids until the index says what became of them.

Members of an archive file bear its id as the beginning of theirs, and the archive
file's own row comes last: when every given id has a row, all is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from ingester.cli.outcomes import ID_LENGTH, Ids, pending
from ingester.cli.progress import Progress
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.control import Document
from ingester.errors import Retry
from ingester.index.readers import Reader

_POLL_SECONDS = 0.25
_PAUSE = 5  # times as long as a question took
_ALIVE_EVERY = 8  # polls

_ROWS_AT_FIRST = "SELECT rowid, arrival_id FROM arrivals WHERE arrival_id >= ?"
_ROWS_SINCE = "SELECT rowid, arrival_id FROM arrivals WHERE rowid > ?"


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
            if each["arrival_id"][:ID_LENGTH] in self._ours and each["members_total"] is not None
        )

    def _count(self, rows: Iterable[tuple[int, str]]) -> None:
        for row, arrival_id in rows:
            self._last_row = max(self._last_row, row)
            if arrival_id[:ID_LENGTH] in self._ours:
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
