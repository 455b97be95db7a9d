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
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool

from ingester.archive import Archive
from ingester.claims import folder_of, is_reachable
from ingester.errors import Retry
from ingester.index.writer import Writer
from ingester.ingest import containers
from ingester.ingest.line import POISON, POISONOUS, Line
from ingester.ingest.publish import Publisher
from ingester.ingest.recovery import finish_half_done, retry
from ingester.ingest.sealing import CannotLink, Touched
from ingester.ingest.values import (
    BATCH_BYTES,
    BATCH_FILES,
    BATCH_SECONDS,
    CHUNK_FILES,
    Chunk,
    Counts,
    Entry,
    IngestSettings,
    Item,
    Turn,
    Unpacking,
)
from ingester.model import (
    Arrival,
    ArrivalRecord,
    Claim,
    Clock,
    Container,
    ContainerKind,
    Instance,
    Prepared,
    Reason,
    Refusal,
    WriterState,
)
from ingester.pool import Answer
from ingester.settle import OVERRULED_AFTER, Settling, ignore_lease_breaks, probe_path
from ingester.spool import Spool

_logger = logging.getLogger(__name__)

#: Errors of one file alone; every other `OSError` is the world's.
_FILE_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.EIO})
#: Errors of the share that a file lies on: the files of others go on.
_SHARE_ERRORS = frozenset(
    {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)
_ZERO_TAIL_QUIET = 60.0
_LONGEST_BACK_OFF = 60.0
_FOR_EVER = float("inf")
_NESTED_ONCE = 1
_REMOVED = Refusal(
    Reason.UNREADABLE, "Somebody removed the file after it was taken, before it was archived."
)


class Ingest:
    """One writer's worth of ingest; driven from one thread, turn by turn.

    Parameters
    ----------
    make_pool : makes the executor that reads files; called again after a crash in it
    on_ready : called from any thread when a turn would find something to do
    on_recorded : called after each commit with its rows
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
        on_ready: Callable[[], None] = lambda: None,
        on_recorded: Callable[[Sequence[ArrivalRecord]], None] = lambda _: None,
    ) -> None:
        ignore_lease_breaks()
        self._spool = spool
        self._archive = archive
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._on_recorded = on_recorded
        self._line = Line(make_pool, archive.staging, writer, settings, on_ready)
        self._publisher = Publisher(spool, archive, writer, self._line.pool, settings, clock)
        self._settling = Settling(quiet=settings.quiet, empty_after=settings.incomplete_after)
        self._arrivals: Iterator[Arrival] | None = None
        self._must_look = False
        self._next_look: float | None = None
        self._parked: list[Item] = []
        self._late: list[tuple[Item, Prepared]] = []
        self._unpacked: list[Unpacking] = []
        self._batch: list[Entry] = []
        self._again: list[Chunk] = []
        self._batch_uids: set[str] = set()
        self._batch_since = 0.0
        self._trouble: str | None = None
        self._failures = 0
        self._resume_at = 0.0
        self.counts = Counts()
        #: Why nothing new is claimed (the archive is nearly full), None to go on.
        self.paused: str | None = None

    # ------------------------------------------------------------------- public

    @property
    def claimed(self) -> int:
        """Return how many files are claimed and have no outcome yet."""
        return len(self._line) + len(self._batch) + self._aside

    @property
    def _aside(self) -> int:
        return len(self._parked) + len(self._late) + len(self._unpacked)

    @property
    def waiting(self) -> int:
        """Return how many files were seen that are still being written."""
        return len(self._settling) + len(self._parked)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is under way and nothing waits to settle."""
        return not (self._must_look or self._arrivals or self.claimed or len(self._settling))

    @property
    def trouble(self) -> str | None:
        """Return why the world holds everything up, in words."""
        return self._trouble

    def recover(self) -> None:
        """Take up what an earlier run left half-done, before anything new.

        Half-quarantined files are finished, quarantine folders without a row get one,
        and every claim goes to the head of the line, alone: what killed the last run
        may be among them.
        """
        for record in finish_half_done(self._spool, self._writer, self._clock):
            self._after_commit([record])
        self._take_up(self._spool.claimed())
        while self._line.head is not None or self._batch:
            turn = self.turn(look=False)
            if turn.trouble:
                break
            if not turn.is_busy:
                self._line.wait(BATCH_SECONDS)

    def _take_up(self, claims: Sequence[Claim]) -> None:
        finished = self._writer.finished([claim.arrival_id for claim in claims])
        for claim in claims:
            if claim.arrival_id in finished:
                self._spool.release(claim)
            else:
                self._line.append_suspect(Item(claim, size=containers.size_of(claim.path)))

    def warm(self) -> None:
        """Start the reading processes before the first file is there."""
        self._line.warm()

    def turn(self, *, look: bool) -> Turn:
        """Take one bounded step; never waits for the pool.

        Parameters
        ----------
        look : list the drop folders anew (an event said so, or it is time)
        """
        self._must_look |= look
        now = self._clock.monotonic()
        if self._trouble is not None and now < self._resume_at:
            return Turn(False, self._resume_at, self._trouble)
        try:
            self._claim_some(now)
            self._take_up_parked(now)
            self._line.submit()
            is_busy = self._advance()
        except (OSError, sqlite3.Error, Retry) as error:
            return self._hold_up(error)
        self._trouble, self._failures = None, 0
        can_claim = self._arrivals is not None and self._room() >= CHUNK_FILES
        return Turn(is_busy or (can_claim and not self.paused), self._wake_at(), None)

    def drain(self, timeout: float) -> bool:
        """Finish what is in the line, for at most *timeout* seconds.

        What is still being written stays claimed and is taken up at the next start.
        """
        deadline = self._clock.monotonic() + timeout
        self._arrivals, self._must_look = None, False
        self.paused = self.paused or "stopping"
        while self._line.head is not None or self._batch:
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
        self._line.close()

    def retry(self, arrival_id: str) -> str:
        """Send a quarantined file back; returns the id of its new arrival.

        Raises
        ------
        Retry : where no such file lies in quarantine
        """
        retried_as = retry(self._spool, self._writer, arrival_id, self._clock)
        self._must_look = True
        return retried_as

    def batches_under_way(self) -> set[tuple[str, str | None]]:
        """Return (source, batch) of all files that are claimed without an outcome."""
        items = [*self._under_way(), *(each.item for each in self._unpacked)]
        return {(item.claim.source, item.claim.batch) for item in items}

    def _under_way(self) -> Iterator[Item]:
        yield from self._line
        yield from self._parked
        yield from (item for item, _ in self._late)
        yield from (entry.item for entry in self._batch)

    # ----------------------------------------------------------------- claiming

    def _room(self) -> int:
        return self._settings.window - len(self._line) - len(self._batch)

    def _claim_some(self, now: float) -> None:
        if self._next_look is not None and now >= self._next_look:
            self._must_look = True
        if self.paused:
            return
        if self._arrivals is None and self._must_look:
            self._must_look, self._next_look = False, None
            self._settling.begin_round()
            self._take_up(self._spool.claimed_late())
            self._arrivals = self._spool.look()
        room = self._room()
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
                items.append(Item(claim, arrival.identity.size, is_overruled=is_overruled))
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
            self._next_look = due if self._next_look is None else min(self._next_look, due)
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

    # ------------------------------------------------------------------ waiting

    def _park(self, item: Item, prepared: Prepared | None, most: float) -> bool:
        """Let a file that is not finished wait in its claim; False when it waited enough.

        It waits until it was unchanged for *most* seconds, looked at after 2, 4, … 60 s.
        """
        now = self._clock.monotonic()
        self._line.drop_copy(item)
        seen = prepared.identity if prepared is not None else None
        is_moving = prepared is not None and not prepared.is_steady
        if item.tries == 0 or is_moving or seen != item.still:
            item.still, item.still_since, item.tries = seen, now, 0
        if now - item.still_since >= most:
            return False
        item.tries += 1
        pause = min(2.0**item.tries, _LONGEST_BACK_OFF)
        if is_moving or (prepared is not None and prepared.writer is WriterState.WRITING):
            pause = min(pause, 1.0)
        item.due = now + min(pause, most)
        self._parked.append(item)
        return True

    def _take_up_parked(self, now: float) -> None:
        due = [item for item in self._parked if item.due <= now]
        if due:
            self._parked = [item for item in self._parked if item.due > now]
            self._line.append(due)

    def _hold_up(self, error: Exception) -> Turn:
        """Wait with everything: the world is not as it should be."""
        words = getattr(error, "strerror", None) or str(error)
        if self._failures == 0:
            _logger.warning("waiting: %s", words)
        self._failures += 1
        # Whatever was about to be claimed is still in the spool: look again.
        self._must_look = True
        self._trouble = f"waiting: {words}"
        pause = min(2.0 ** (self._failures - 1), _LONGEST_BACK_OFF)
        self._resume_at = self._clock.monotonic() + pause
        return Turn(False, self._resume_at, self._trouble)

    def _wake_at(self) -> float | None:
        times = [item.due for item in self._parked]
        if self._next_look is not None:
            times.append(self._next_look)
        if self._batch:
            times.append(self._batch_since + BATCH_SECONDS)
        return min(times, default=None)

    # ------------------------------------------------------------------ the line

    def _advance(self) -> bool:
        """Take what is ready from the head of the line; True if there is more."""
        budget = 2 * BATCH_FILES
        while budget > 0 and (head := self._line.head) is not None:
            if isinstance(head, Unpacking):
                if not self._advance_unpacking(head):
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
        self._flush_if_due()
        self._let_archives_go()
        if self._is_late_due:
            self._take_late()
        return budget <= 0 or self._is_late_due

    @property
    def _is_late_due(self) -> bool:
        is_over = self._arrivals is None or self.paused is not None
        return bool(self._late) and is_over and self._line.head is None and not self._batch

    def _consider_all(self, chunk: Chunk) -> None:
        """Decide about each file of a chunk, in order; what is left over goes back."""
        assert chunk.results is not None
        first: list[Chunk | Unpacking] = []
        try:
            while chunk.items and not first:
                if self._is_batch_full(chunk.results[0]):
                    first += self._flush()
                    continue
                unpacking = self._consider(chunk.items.pop(0), chunk.results.pop(0))
                first += [unpacking] if unpacking is not None else []
        finally:
            self._line.put_first(*first, *([chunk] if chunk.items else []))
        if chunk.is_alone:
            self._line.put_first(*self._flush())

    def _is_batch_full(self, answer: Answer) -> bool:
        if len(self._batch) >= BATCH_FILES:
            return True
        if not isinstance(answer, Prepared) or not isinstance(answer.found, Instance):
            return False
        if answer.found.sop_instance_uid in self._batch_uids:
            return True
        return sum(entry.item.size for entry in self._batch) >= BATCH_BYTES

    def _consider(self, item: Item, answer: Answer) -> Unpacking | None:
        """Decide what the reading of a file means for it."""
        if item.refusal is not None:
            self._add(Entry(item, None, refusal=item.refusal))
        elif isinstance(answer, Retry):
            self._park(item, None, _FOR_EVER)
            raise answer
        elif isinstance(answer, OSError):
            self._consider_error(item, answer)
        elif not answer.is_steady:
            self._park(item, answer, _FOR_EVER)
        elif answer.writer is WriterState.WRITING and not item.is_overruled:
            if not self._park(item, answer, OVERRULED_AFTER):
                item.is_overruled = True
                self._line.append([item])
        elif isinstance(answer.found, Refusal):
            self._consider_refusal(item, answer, answer.found)
        elif isinstance(answer.found, Container):
            return self._consider_container(item, answer, answer.found)
        else:
            self._consider_instance(item, answer, answer.found)
        return None

    def _consider_error(self, item: Item, error: OSError) -> None:
        if error.errno == errno.ENOENT and is_reachable(item.claim):
            _logger.warning("somebody removed the claimed file of %s", item.claim.arrival_id)
            self._add(Entry(item, None, refusal=_REMOVED))
        elif error.errno == errno.ENOENT:
            self._park(item, None, _FOR_EVER)  # its share is gone; it will come back
        elif error.errno in _FILE_ERRORS:
            most = 0.0 if self._settings.is_impatient else self._settings.incomplete_after
            if not self._park(item, None, most):
                words = f"The file cannot be read ({error.strerror}): see to its permissions."
                self._add(Entry(item, None, refusal=Refusal(Reason.UNREADABLE, words)))
        else:
            self._park(item, None, _FOR_EVER)
            if error.errno not in _SHARE_ERRORS:
                raise error

    def _consider_refusal(self, item: Item, prepared: Prepared, refusal: Refusal) -> None:
        is_final = (
            not refusal.may_grow
            or self._settings.is_impatient
            or item.claim.is_received
            or item.claim.parent_id is not None
            or refusal.reason is Reason.EMPTY  # it has waited before it was claimed
        )
        if is_final or not self._park(item, prepared, self._settings.incomplete_after):
            self._add(Entry(item, prepared, refusal=refusal))

    def _consider_instance(self, item: Item, prepared: Prepared, instance: Instance) -> None:
        is_suspect = prepared.has_zero_tail and prepared.writer is WriterState.UNKNOWN
        if is_suspect and self._park(item, prepared, _ZERO_TAIL_QUIET):
            return
        self._batch_uids.add(instance.sop_instance_uid)
        self._add(Entry(item, prepared, instance=instance))

    def _consider_container(
        self, item: Item, prepared: Prepared, container: Container
    ) -> Unpacking | None:
        if container.kind is ContainerKind.DICOMDIR:
            self._late.append((item, prepared))
            return None
        if item.claim.arrival_id.count(".") > _NESTED_ONCE:
            words = "An archive file that is nested more than once is not unpacked."
            self._add(Entry(item, prepared, refusal=Refusal(Reason.BOMB, words)))
            return None
        item.claim = self._spool.isolate(item.claim)
        return Unpacking(item, prepared, container)

    def _add(self, entry: Entry) -> None:
        if not self._batch:
            self._batch_since = self._clock.monotonic()
        self._publisher.begin(entry)
        self._batch.append(entry)

    # ------------------------------------------------------------------- commit

    def _flush_if_due(self) -> None:
        if not self._batch:
            return
        age = self._clock.monotonic() - self._batch_since
        if self._line.head is None or age >= BATCH_SECONDS or len(self._batch) >= BATCH_FILES:
            again = self._flush()
            self._line.put_first(*again)
            if again:
                self._line.submit()

    def _flush(self) -> list[Chunk]:
        """Commit the batch; returns what must be read again before anything else."""
        while self._batch:
            try:
                records, rest = self._publisher.commit(self._batch)
            except (Touched, CannotLink) as met:
                self._read_again(met)
                continue
            except BrokenProcessPool:
                self._line.start_anew()
                continue
            self._batch = rest
            self._after_commit(records)
        self._batch_uids = set()
        again, self._again = self._again, []
        return again

    def _read_again(self, met: Touched | CannotLink) -> None:
        entries = [met.entry]
        met.entry.item.must_copy |= isinstance(met, CannotLink)
        if isinstance(met, CannotLink) and met.is_general:
            there = folder_of(met.entry.item.claim)
            self._line.no_links.add(there)
            entries = [
                each
                for each in self._batch
                if each is met.entry
                or (
                    each.instance is not None
                    and each.prepared is not None
                    and not each.prepared.staged
                    and folder_of(each.item.claim) == there
                )
            ]
        for entry in entries:
            self._batch.remove(entry)
            self._again.append(Chunk([entry.item]))

    def _after_commit(self, records: Sequence[ArrivalRecord]) -> None:
        for record in records:
            self.counts.add(record)
        self._on_recorded(records)

    # --------------------------------------------------------------- containers

    def _advance_unpacking(self, head: Unpacking) -> bool:
        """Take the next step of an archive file; False while the pool unpacks."""
        if not head.is_over:
            if head.future is None:
                self._line.submit()
            if head.future is None or not head.future.done():
                return False
            try:
                self._line.put_items_first(containers.members(head, self._writer))
            except BrokenProcessPool:
                self._line.start_anew()
                if self._is_poison(head.item):
                    head.refusal, head.is_over = POISON, True
                return False
            except OSError as error:
                is_alone = error.errno in _FILE_ERRORS or error.errno == errno.ENOENT
                if not is_alone or self._has_members(head):
                    raise
                self._line.pop()
                self._consider_error(head.item, error)
            return True
        again = self._flush()
        if again:
            self._line.put_first(*again)
            return True
        self._unpacked.append(head)
        self._line.pop()
        return True

    def _is_poison(self, item: Item) -> bool:
        return self._writer.count_attempt(item.claim.arrival_id) >= POISONOUS

    def _has_members(self, archive: Unpacking) -> bool:
        """Return whether anything that came out of an archive file has no outcome yet."""
        start = archive.item.claim.arrival_id + "."
        items = (*self._under_way(), *(each.item for each in self._unpacked))
        return any(item.claim.arrival_id.startswith(start) for item in items)

    def _let_archives_go(self) -> None:
        """Give archive files their outcome once every member has one; the inner ones first."""
        for each in list(self._unpacked):
            if self._has_members(each):
                continue
            if each.refusal is not None:
                self._consider_refusal(each.item, each.prepared, each.refusal)
            else:
                record = containers.record(each.item, each.prepared, each.members, self._clock)
                self._commit_container(each.item, record)
            self._unpacked.remove(each)

    def _commit_container(self, item: Item, record: ArrivalRecord) -> None:
        self._writer.record([record])
        self._spool.release(item.claim)
        self._after_commit([record])

    def _take_late(self) -> None:
        """See to a DICOMDIR, now that everything around it has its outcome."""
        item, prepared = self._late[0]
        try:
            found = containers.keep_dicomdir(
                item, prepared, self._archive, self._writer, self._line.pool(), self._clock
            )
        except BrokenProcessPool:
            self._line.start_anew()
            if not self._is_poison(item):
                return
            found = POISON
        if isinstance(found, OSError):
            self._late.pop(0)
            self._consider_error(item, found)
        elif isinstance(found, Refusal):
            self._late.pop(0)
            self._consider_refusal(item, prepared, found)
        else:
            self._commit_container(item, found)
            self._late.pop(0)


def _key(arrival: Arrival) -> str:
    return f"{arrival.root}/{arrival.relative}"
