"""From the drop folders into the line: look, let settle, claim.

An event or the clock says that it is time to look.  One look lists everything that
lies there, a few files per turn; a file that somebody is still writing waits where it
is (`settle.py` judges that), everything else is claimed at once and put at the end of
the line, in the order of the listing.  What an earlier run had claimed goes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ingester.index.writer import Writer
from ingester.ingest import containers
from ingester.ingest.line import Line
from ingester.ingest.values import CHUNK_FILES, IngestSettings, Item
from ingester.model import Arrival, Claim, Clock, WriterState
from ingester.settle import Settling, probe_path
from ingester.spool import Spool


class Claiming:
    """Looks for files and claims those that are ready."""

    def __init__(
        self, spool: Spool, writer: Writer, line: Line, settings: IngestSettings, clock: Clock
    ) -> None:
        self._spool = spool
        self._writer = writer
        self._line = line
        self._settings = settings
        self._clock = clock
        self._settling = Settling(quiet=settings.quiet, empty_after=settings.incomplete_after)
        self._arrivals: Iterator[Arrival] | None = None
        #: Whether the drop folders are to be listed anew.
        self.must_look = False
        #: When a file that settles is due, None where none does.
        self.next_look: float | None = None

    @property
    def is_looking(self) -> bool:
        """Return whether a look has begun and is not through."""
        return self._arrivals is not None

    @property
    def settling(self) -> int:
        """Return how many files lie in the drop folders and are still being written."""
        return len(self._settling)

    def stop(self) -> None:
        """Look for nothing more."""
        self._arrivals, self.must_look = None, False

    def take_up(self, claims: Sequence[Claim]) -> None:
        """Put what an earlier run had claimed into the line, each to be read alone."""
        finished = self._writer.finished([claim.arrival_id for claim in claims])
        for claim in claims:
            if claim.arrival_id in finished:
                self._spool.release(claim)
            else:
                size = containers.size_of(claim.path)
                self._line.append_suspect(Item(claim, size=size, is_repeated=True))

    def note_time(self, now: float) -> None:
        """Look anew when a file that settles is due."""
        if self.next_look is not None and now >= self.next_look:
            self.must_look = True

    def begin_look(self) -> None:
        """Begin a look that is asked for, unless one goes on."""
        if self._arrivals is None and self.must_look:
            self.must_look, self.next_look = False, None
            self._settling.begin_round()
            self.take_up(self._spool.claimed_late())
            self._arrivals = self._spool.look()

    def claim_some(self, now: float, room: int) -> None:
        """Claim the next files of this look, as many as there is *room* for."""
        if self._arrivals is None or room < CHUNK_FILES:
            return
        ready: list[Arrival] = []
        overruled: set[str] = set()
        while len(ready) < room:
            arrival = next(self._arrivals, None)
            if arrival is None:
                self._arrivals = None
                self._settling.end_round()
                break
            self._weigh(arrival, now, ready, overruled)
        items: list[Item] = []
        try:
            for arrival, claim in self._spool.claim(ready, self._clock.now()):
                is_overruled = _key(arrival) in overruled
                is_awaited = arrival.arrival_id is not None
                size = arrival.identity.size
                items.append(Item(claim, size, is_overruled=is_overruled, is_awaited=is_awaited))
        finally:
            self._line.append(items)

    def _weigh(
        self, arrival: Arrival, now: float, ready: list[Arrival], overruled: set[str]
    ) -> None:
        """Add an arrival to those that are *ready* to be claimed, unless it must wait."""
        if arrival.is_received or not arrival.identity.is_regular:
            ready.append(arrival)
            return
        key = _key(arrival)
        writer = probe_path(key)
        due = self._still_settling(arrival, key, writer, now)
        if due is not None:
            self.next_look = due if self.next_look is None else min(self.next_look, due)
            return
        ready.append(arrival)
        self._settling.forget(key)  # also what then cannot be taken: nobody waits for that
        if writer is WriterState.WRITING:
            overruled.add(key)

    def _still_settling(
        self, arrival: Arrival, key: str, writer: WriterState, now: float
    ) -> float | None:
        settings = self._settings
        if settings.is_impatient and arrival.identity.size == 0 and writer is WriterState.FREE:
            return None
        quiet = settings.network_quiet if settings.is_network(arrival.root) else settings.quiet
        return self._settling.wait_until(key, arrival.identity, writer, now, quiet=quiet)


def _key(arrival: Arrival) -> str:
    return f"{arrival.root}/{arrival.relative}"
