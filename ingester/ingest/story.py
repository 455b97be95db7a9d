"""The story of every file: claim, prepare, publish, commit, release.

This is where spool, archive and index meet, and nowhere else.  Files wait in one
line, in the order of their claims, and leave it in that order, so that which of
several versions comes first never depends on which was read fastest.  The same
lines run for a live drop, for what a crash left claimed, and for a retry.

    ingest = Ingest(spool, archive, writer, pool, settings, clock)
    ingest.recover()                   what an earlier run had claimed
    while running:
        turn = ingest.turn(look=...)   one bounded step
        wait until turn.wake_at, or an event
    ingest.drain(10)                   finish what is claimed

A file's way through this room, each step in the module of its name:

    claiming -> line -> answers -> batch -> publish (sealing, verdicts, adoption)
                        answers -> unpacking (containers) -> its members, in the line
                        answers -> media (completeness): a DICOMDIR, after all around it
                        answers -> waiting -> the line again
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain

from ingester.archive import Archive
from ingester.errors import Retry
from ingester.index.writer import Writer
from ingester.ingest.answers import Answers
from ingester.ingest.batch import Batch
from ingester.ingest.claiming import Claiming
from ingester.ingest.line import Line
from ingester.ingest.media import Media
from ingester.ingest.pools import Pool
from ingester.ingest.publish import Publisher
from ingester.ingest.recovery import finish_half_done, retry
from ingester.ingest.unpacking import Containers
from ingester.ingest.values import (
    BATCH_FILES,
    BATCH_SECONDS,
    CHUNK_FILES,
    LONGEST_BACK_OFF,
    ArchiveProgress,
    Chunk,
    Counts,
    Directory,
    IngestSettings,
    Turn,
    Unpacking,
)
from ingester.ingest.waiting import Waiting
from ingester.model import ArrivalRecord, Clock, Origin
from ingester.settle import ignore_lease_breaks
from ingester.spool import Spool

_logger = logging.getLogger(__name__)


class Ingest:
    """One writer's worth of ingest; driven from one thread, turn by turn.

    Parameters
    ----------
    make_pool : makes the executor that reads files; called again after a crash in it
    make_unpacking_pool : makes the one that unpacks archive files, best of one process: it
        goes on where it left off; None for the same as for reading
    on_ready : called from any thread when a turn would find something to do
    on_recorded : called after each commit with its rows
    lies_in_spool : whether a file of (source, batch) lies there unclaimed; asked where a
        DICOMDIR waits for what it names
    """

    def __init__(
        self,
        spool: Spool,
        archive: Archive,
        writer: Writer,
        make_pool: Callable[[], Executor],
        settings: IngestSettings,
        clock: Clock,
        *,
        make_unpacking_pool: Callable[[], Executor] | None = None,
        on_ready: Callable[[], None] = lambda: None,
        on_recorded: Callable[[Sequence[ArrivalRecord]], None] = lambda _: None,
        lies_in_spool: Callable[[Origin], bool] = lambda _: False,
    ) -> None:
        ignore_lease_breaks()
        self._spool = spool
        self._writer = writer
        self._window = settings.window
        self._clock = clock
        self._on_recorded = on_recorded
        self._reading = Pool(make_pool)
        self._unpacking = Pool(make_unpacking_pool or make_pool)
        self._line = Line(self._reading, archive.staging, writer, settings, on_ready)
        self._publisher = Publisher(spool, archive, writer, self._reading.get, settings, clock)
        self._claiming = Claiming(spool, writer, self._line, settings, clock)
        self._waiting = Waiting(clock)
        self._answers = Answers(self._line, self._waiting, settings)
        self._batch = Batch(self._publisher, self._line, clock, self._after_commit)
        self._containers = Containers(
            spool,
            writer,
            self._line,
            self._batch,
            self._answers,
            self._unpacking,
            settings,
            clock,
            on_ready=on_ready,
            on_committed=self._after_commit,
        )
        self._media = Media(
            spool,
            archive,
            writer,
            self._batch,
            self._answers,
            self._unpacking,
            settings,
            clock,
            on_their_way=self._on_their_way,
            may_come=self._may_come if settings.is_impatient else lies_in_spool,
            on_ready=on_ready,
            on_committed=self._after_commit,
        )
        self._trouble: str | None = None
        self._failures = 0
        self._resume_at = 0.0
        self.counts = Counts()
        #: Why nothing new is claimed (the archive is nearly full), None to go on.
        self.paused: str | None = None

    # ------------------------------------------------------------- what it shows

    @property
    def claimed(self) -> int:
        """Return how many files are claimed and have no outcome yet."""
        in_line = len(self._line) + len(self._batch) + len(self._waiting)
        return in_line + len(self._containers) + len(self._media)

    @property
    def waiting(self) -> int:
        """Return how many files were seen that are still being written."""
        return self._claiming.settling + len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is under way and nothing waits to settle."""
        claiming = self._claiming
        is_claiming = claiming.must_look or claiming.is_looking or claiming.settling
        return self._media.is_idle and not (is_claiming or self.claimed)

    @property
    def trouble(self) -> str | None:
        """Return why the world holds everything up, in words."""
        return self._trouble

    def batches_under_way(self) -> set[Origin]:
        """Return (source, batch) of all files that are claimed without an outcome."""
        items = chain(self._containers, self._media)
        return {*self._on_their_way(), *((each.claim.source, each.claim.batch) for each in items)}

    def _on_their_way(self) -> Iterator[Origin]:
        for item in chain(self._line, self._waiting, self._batch):
            yield item.claim.source, item.claim.batch

    def _may_come(self, _: Origin) -> bool:
        """Return whether anything may lie unclaimed that the look under way would find."""
        claiming = self._claiming
        return bool(claiming.must_look or claiming.is_looking or claiming.settling)

    @property
    def archives(self) -> list[ArchiveProgress]:
        """Return how far each archive file is that is being unpacked."""
        return self._containers.progress

    @property
    def to_come(self) -> int:
        """Return how many members of archive files are known of and were not unpacked yet."""
        return self._containers.to_come

    # ------------------------------------------------------------ how it is driven

    def recover(self) -> None:
        """Take up what an earlier run left half-done, before anything new.

        Half-quarantined files are finished, quarantine folders without a row get one,
        and every claim goes to the head of the line, alone: what killed the last run
        may be among them.
        """
        for record in finish_half_done(self._spool, self._writer, self._clock):
            self._after_commit([record])
        self._media.recall()
        self._claiming.take_up(self._spool.claimed())
        while self._line.head is not None or self._batch:
            if self._containers.progress:
                break  # nobody has to wait for a whole archive file: all keep their places
            turn = self.turn(look=False)
            if turn.trouble:
                break
            if not turn.is_busy:
                self._line.wait(BATCH_SECONDS)

    def warm(self) -> None:
        """Start the reading processes before the first file is there."""
        self._reading.warm()

    def turn(self, *, look: bool) -> Turn:
        """Take one bounded step; never waits for the pool.

        Parameters
        ----------
        look : list the drop folders anew (an event said so, or it is time)
        """
        self._claiming.must_look |= look
        now = self._clock.monotonic()
        if self._trouble is not None and now < self._resume_at:
            return Turn(False, self._resume_at, self._trouble)
        try:
            self._claim_some(now)
            self._line.append(self._waiting.take_due(now))
            self._line.submit()
            is_busy = self._advance()
        except (OSError, sqlite3.Error, Retry) as error:
            return self._hold_up(error)
        self._trouble, self._failures = None, 0
        can_claim = self._claiming.is_looking and self._room() >= CHUNK_FILES
        return Turn(is_busy or (can_claim and not self.paused), self._wake_at(), None)

    def drain(self, timeout: float) -> bool:
        """Finish what is in the line, for at most *timeout* seconds.

        What is still being written stays claimed and is taken up at the next start.
        """
        deadline = self._clock.monotonic() + timeout
        self._claiming.stop()
        self.paused = self.paused or "stopping"
        while (head := self._line.head) is not None or self._batch:
            if isinstance(head, Unpacking) and not (head.is_over or self._batch):
                return False  # the rest of an archive file is unpacked after the next start
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            turn = self.turn(look=False)
            if turn.trouble:
                return False
            if not turn.is_busy:
                self._line.wait(min(left, BATCH_SECONDS))
        return True

    def close(self) -> None:
        """End the pool and the threads; what is claimed is taken up at the next start."""
        self._publisher.close()
        self._reading.close()
        self._unpacking.close()

    def retry(self, arrival_id: str) -> str:
        """Send a quarantined file back; returns the id of its new arrival.

        Raises
        ------
        Retry : where no such file lies in quarantine
        """
        retried_as = retry(self._spool, self._writer, arrival_id, self._clock)
        self._claiming.must_look = True
        return retried_as

    # --------------------------------------------------------------- within a turn

    def _room(self) -> int:
        return self._window - len(self._line) - len(self._batch)

    def _claim_some(self, now: float) -> None:
        self._claiming.note_time(now)
        if not self.paused:
            self._claiming.begin_look()
            self._claiming.claim_some(now, self._room())

    def _advance(self) -> bool:
        """Take what is ready from the head of the line; True if there is more."""
        budget = 2 * BATCH_FILES
        while budget > 0 and (head := self._line.head) is not None:
            if isinstance(head, Unpacking):
                if not self._containers.advance(head, may_ask=self.paused is None):
                    break
                budget -= 1
                continue
            if head.future is None and head.results is None:
                self._line.submit()
            if not self._line.fetch(head):
                break
            budget -= len(head.items)
            self._line.pop()
            self._consider_all(head)
        self._batch.flush_if_due()
        self._containers.let_go()
        self._media.step()
        return budget <= 0

    def _consider_all(self, chunk: Chunk) -> None:
        """Decide about each file of a chunk, in order; what is left over goes back."""
        assert chunk.results is not None
        first: list[Chunk | Unpacking] = []
        try:
            while chunk.items and not first:
                if self._batch.is_full_for(chunk.results[0]):
                    first += self._batch.flush()
                    continue
                found = self._answers.consider(chunk.items.pop(0), chunk.results.pop(0))
                if isinstance(found, Unpacking):
                    first.append(found)
                elif isinstance(found, Directory):
                    self._media.add(found)
                elif found is not None:
                    self._batch.add(found)
        finally:
            self._line.put_first(*first, *([chunk] if chunk.items else []))
        if chunk.is_alone:
            self._line.put_first(*self._batch.flush())

    def _after_commit(self, records: Sequence[ArrivalRecord]) -> None:
        for record in records:
            self.counts.add(record)
        self._containers.note(records)
        self._media.note(records)
        self._on_recorded(records)

    def _hold_up(self, error: Exception) -> Turn:
        """Wait with everything: the world is not as it should be."""
        words = getattr(error, "strerror", None) or str(error)
        if self._failures == 0:
            _logger.warning("waiting: %s", words)
        self._failures += 1
        # Whatever was about to be claimed is still in the spool: look again.
        self._claiming.must_look = True
        self._trouble = f"waiting: {words}"
        pause = min(2.0 ** (self._failures - 1), LONGEST_BACK_OFF)
        self._resume_at = self._clock.monotonic() + pause
        return Turn(False, self._resume_at, self._trouble)

    def _wake_at(self) -> float | None:
        times = (
            self._waiting.next_due,
            self._claiming.next_look,
            self._batch.due,
            self._media.next_due,
        )
        return min((each for each in times if each is not None), default=None)
