"""DICOMDIRs: kept, and what they name that is not there, told and kept true.

A DICOMDIR says which files lie beside it.  It is judged once everything around it has
its outcome and nothing more has come for a moment, for a CD is copied file by file.  It
is kept in `archive/.media/<id>/`, and its arrival's detail tells what is missing.  While
something is, it is judged anew whenever more of its batch has come.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ingester import kept
from ingester.archive import Archive
from ingester.claims import folder_of
from ingester.index.writer import Writer
from ingester.ingest import containers
from ingester.ingest.answers import Answers
from ingester.ingest.batch import Batch
from ingester.ingest.completeness import as_detail, missing_from
from ingester.ingest.line import POISON, POISONOUS
from ingester.ingest.pools import Pool
from ingester.ingest.values import Directory, Entry, IngestSettings, Item
from ingester.model import ArrivalRecord, Clock, Origin, Outcome, Refusal, first_id
from ingester.spool import Spool
from ingester.unpack import MediaListing, read_dicomdir

_logger = logging.getLogger(__name__)

_PIECE = 1 << 20
_THERE = frozenset({Outcome.ARCHIVED, Outcome.VARIANT, Outcome.CONFLICT, Outcome.DUPLICATE})
#: What is missing is waited for so long, should more of the batch come.
_HORIZON = timedelta(days=7)
#: Where something still lies in the spool, that is asked again after so many seconds.
_AGAIN_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class _Medium:
    """A DICOMDIR: new, or kept and told of as incomplete.

    `due` is when it may be judged, should nothing around it come meanwhile, and
    `due_at_last` when it is judged whatever may come.
    """

    arrival_id: str
    origin: Origin
    original_name: str
    path: Path
    new: Directory | None
    due: float = 0.0
    due_at_last: float = 0.0
    future: Future[MediaListing] | None = None

    def is_near(self, origin: Origin) -> bool:
        """Return whether what comes from *origin* may be something that it names."""
        return origin[0] == self.origin[0] and self.origin[1] in (None, origin[1])


class Media:
    """Knows the DICOMDIRs that wait, and those whose files have not all come.

    Parameters
    ----------
    pool : what reads a DICOMDIR
    on_their_way : lists the origins of the claimed files that have no outcome yet
    may_come : whether a file of an origin lies unclaimed, as far as is known
    on_ready : called from any thread when a DICOMDIR was read
    on_committed : called after each commit with its row
    """

    def __init__(
        self,
        spool: Spool,
        archive: Archive,
        writer: Writer,
        batch: Batch,
        answers: Answers,
        pool: Pool,
        settings: IngestSettings,
        clock: Clock,
        *,
        on_their_way: Callable[[], Iterable[Origin]],
        may_come: Callable[[Origin], bool],
        on_ready: Callable[[], None],
        on_committed: Callable[[Sequence[ArrivalRecord]], None],
    ) -> None:
        self._spool = spool
        self._archive = archive
        self._writer = writer
        self._batch = batch
        self._answers = answers
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._on_their_way = on_their_way
        self._may_come = may_come
        self._on_ready = on_ready
        self._on_committed = on_committed
        self._waiting: list[_Medium] = []
        self._incomplete: list[_Medium] = []

    # ------------------------------------------------------------- what it shows

    def __len__(self) -> int:
        """Return how many DICOMDIRs have no outcome yet."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over them."""
        return (each.new.item for each in self._waiting if each.new is not None)

    @property
    def is_idle(self) -> bool:
        """Return whether none waits to be judged, or to be judged anew."""
        return not self._waiting

    @property
    def next_due(self) -> float | None:
        """Return when the next one may be judged (monotonic), None where none waits."""
        times = [min(each.due, each.due_at_last) for each in self._waiting if each.future is None]
        return min(times, default=None)

    # ------------------------------------------------------------- what it is told

    def recall(self) -> None:
        """Take up those of earlier runs that were incomplete not long ago."""
        since = first_id(self._clock.now() - _HORIZON)
        for arrival_id, source, batch, name in self._writer.incomplete_media(since):
            self._incomplete.append(
                _Medium(
                    arrival_id, _origin(source, batch, name), name, self._kept(arrival_id), None
                )
            )

    def add(self, directory: Directory) -> None:
        """Let a new DICOMDIR wait for what lies around it."""
        claim = directory.item.claim
        origin = _origin(claim.source, claim.batch, claim.original_name)
        medium = _Medium(claim.arrival_id, origin, claim.original_name, claim.path, directory)
        self._let_wait(medium)

    def note(self, records: Sequence[ArrivalRecord]) -> None:
        """Note that files have their rows: more may come, and be what was missing."""
        if not (self._waiting or self._incomplete):
            return
        now = self._clock.monotonic()
        origins = {(each.source, each.batch) for each in records if each.outcome in _THERE}
        for medium in self._waiting:
            if any(map(medium.is_near, origins)):
                medium.due = now + self._quiet_of(medium)
        for medium in list(self._incomplete):
            if any(map(medium.is_near, origins)):
                self._incomplete.remove(medium)
                self._let_wait(medium)

    def _let_wait(self, medium: _Medium) -> None:
        now = self._clock.monotonic()
        medium.due = now + self._quiet_of(medium)
        medium.due_at_last = now + self._settings.incomplete_after
        self._waiting.append(medium)

    def _quiet_of(self, medium: _Medium) -> float:
        settings = self._settings
        if settings.is_impatient:
            return 0.0
        root = folder_of(medium.new.item.claim).parent if medium.new is not None else None
        is_network = root is not None and settings.is_network(root)
        return settings.network_quiet if is_network else settings.quiet

    # ------------------------------------------------------------------ its steps

    def step(self) -> None:
        """Take the next step of every DICOMDIR that is due."""
        if not self._waiting:
            return
        now = self._clock.monotonic()
        on_their_way = set(self._on_their_way())
        for medium in list(self._waiting):
            if medium.future is not None:
                self._take(medium)
            elif self._is_due(medium, now, on_their_way):
                self._ask(medium)

    def _is_due(self, medium: _Medium, now: float, on_their_way: set[Origin]) -> bool:
        if now >= medium.due_at_last:
            return True
        if any(medium.is_near(origin) for origin in on_their_way):
            medium.due = now + self._quiet_of(medium)
            return False
        if now < medium.due:
            return False
        if self._may_come(medium.origin):
            medium.due = now + max(self._quiet_of(medium), _AGAIN_SECONDS)
            return False
        return True

    def _ask(self, medium: _Medium) -> None:
        try:
            medium.future = self._pool.get().submit(read_dicomdir, str(medium.path))
        except BrokenProcessPool:
            self._pool.drop()
        else:
            medium.future.add_done_callback(lambda _: self._on_ready())

    def _take(self, medium: _Medium) -> None:
        """See to a DICOMDIR that was read; after an error this may be repeated."""
        assert medium.future is not None
        if not medium.future.done():
            return
        found: MediaListing | Refusal | OSError
        try:
            found = medium.future.result()
        except BrokenProcessPool:
            self._pool.drop()
            if self._writer.count_attempt(medium.arrival_id) < POISONOUS:
                medium.future = None
                return
            found = POISON
        except OSError as error:
            found = error
        if isinstance(found, MediaListing) and found.refusal is None:
            self._judge(medium, found)
        elif medium.new is None:
            _logger.warning("the DICOMDIR kept as %s can no longer be read", medium.arrival_id)
            self._waiting.remove(medium)
        else:
            self._refuse(medium, medium.new, found)

    def _judge(self, medium: _Medium, listing: MediaListing) -> None:
        missing = missing_from(listing, medium.original_name, medium.origin, self._writer)
        detail = as_detail(medium.arrival_id, listing, missing, self._clock.now())
        if medium.new is None:
            self._writer.put_detail(medium.arrival_id, detail)
        else:
            item = medium.new.item
            record = containers.unpacked(item, medium.new.prepared, self._clock, detail)
            with medium.path.open("rb") as file:
                kept.keep(self._archive, record, iter(lambda: file.read(_PIECE), b""))
            self._spool.keep([item.claim])
            self._writer.record([record])
            self._spool.release(item.claim)
            self._on_committed([record])
        self._waiting.remove(medium)
        if missing:
            medium.new, medium.future = None, None
            medium.path = self._kept(medium.arrival_id)
            self._incomplete.append(medium)

    def _refuse(
        self, medium: _Medium, new: Directory, found: MediaListing | Refusal | OSError
    ) -> None:
        entry: Entry | None
        if isinstance(found, OSError):
            entry = self._answers.error(new.item, found)
        else:
            refusal = found.refusal if isinstance(found, MediaListing) else found
            assert refusal is not None
            entry = self._answers.refusal(new.item, new.prepared, refusal)
        self._waiting.remove(medium)
        if entry is not None:
            self._batch.add(entry)

    def _kept(self, arrival_id: str) -> Path:
        return kept.home_of(self._archive, arrival_id) / kept.DIRECTORY


def _origin(source: str, batch: str | None, original_name: str) -> Origin:
    """Return where what lies around a DICOMDIR comes from.

    One that lies in the drop folder itself is a batch of its own name; each folder
    beside it is another.
    """
    return (source, None if batch == original_name else batch)
