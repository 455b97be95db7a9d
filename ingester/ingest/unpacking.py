"""Archive files, step by step, until the last of their members is done.

An archive file at the head of the line is unpacked a page at a time, and each page's
members go before everything else.  While they are on their way the next page is being
unpacked, so that disk and memory hold two pages of it at most.  When nothing more comes
out of it, it leaves the line and waits for its members' outcomes; only then has it its
own.  What one step does to the disk and the index stands in `containers.py`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from ingester.index.writer import Writer
from ingester.ingest import containers
from ingester.ingest.answers import Answers
from ingester.ingest.batch import Batch
from ingester.ingest.line import POISON, POISONOUS, Line
from ingester.ingest.pools import Pool
from ingester.ingest.values import (
    ArchiveProgress,
    Entry,
    IngestSettings,
    Item,
    Unpacking,
)
from ingester.model import ArrivalRecord, Clock
from ingester.quarantine import FILE_ERRORS
from ingester.spool import Spool


class Containers:
    """Knows the archive files that have left the line without an outcome.

    Parameters
    ----------
    pool : what unpacks, one page at a time
    on_ready : called from any thread when a page is unpacked
    on_committed : called after each commit with its row
    """

    def __init__(
        self,
        spool: Spool,
        writer: Writer,
        line: Line,
        batch: Batch,
        answers: Answers,
        pool: Pool,
        settings: IngestSettings,
        clock: Clock,
        on_ready: Callable[[], None],
        on_committed: Callable[[Sequence[ArrivalRecord]], None],
    ) -> None:
        self._spool = spool
        self._writer = writer
        self._line = line
        self._batch = batch
        self._answers = answers
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._on_ready = on_ready
        self._on_committed = on_committed
        self._under_way: dict[str, Unpacking] = {}  # by arrival id, from the first page on
        self._unpacked: list[Unpacking] = []

    def __len__(self) -> int:
        """Return how many archive files have left the line and wait."""
        return len(self._unpacked)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over them."""
        return (each.item for each in self._unpacked)

    @property
    def progress(self) -> list[ArchiveProgress]:
        """Return how far each archive file is that was begun."""
        return [containers.progress_of(each) for each in self._under_way.values()]

    @property
    def to_come(self) -> int:
        """Return how many members are known to be in archive files and lie nowhere yet."""
        return sum(each.to_come for each in self._under_way.values())

    def note(self, records: Sequence[ArrivalRecord]) -> None:
        """Note that files have their rows: members of archive files may be among them."""
        for record in records:
            archive = self._under_way.get(record.arrival_id.rpartition(".")[0])
            if archive is not None:
                archive.under_way -= 1
                archive.finished += 1
                archive.finished_bytes += record.size_bytes

    def advance(self, head: Unpacking, *, may_ask: bool) -> bool:
        """Take the next step of an archive file; False where it has to wait.

        Parameters
        ----------
        may_ask : whether another page may be begun
        """
        if head.is_over:
            again = self._batch.flush()
            if again:
                self._line.put_first(*again)
            else:
                self._unpacked.append(head)
                self._line.pop()
            return True
        # It stays at the head of the line until this succeeds, so it may be repeated.
        head.item.claim = self._spool.isolate(head.item.claim)
        self._under_way[head.item.claim.arrival_id] = head
        if may_ask:
            self._ask(head)
        if head.future is None or not head.future.done():
            return False
        try:
            self._line.put_items_first(containers.members(head))
        except BrokenProcessPool:
            self._pool.drop()
            head.future = None
            if self._is_poison(head.item):
                head.refusal, head.next = POISON, None
            return False
        except OSError as error:
            is_alone = error.errno in FILE_ERRORS or error.errno == errno.ENOENT
            if not is_alone or head.under_way:
                raise
            self._line.pop()
            self._under_way.pop(head.item.claim.arrival_id)
            self._add(self._answers.error(head.item, error))
            return True
        if may_ask:
            self._ask(head)
        return True

    def _ask(self, head: Unpacking) -> None:
        try:
            pool = self._pool.get()
            containers.ask(head, pool, self._writer, self._settings, self._on_ready)
        except BrokenProcessPool:
            self._pool.drop()

    def let_go(self) -> None:
        """Give archive files their outcome once every member has one; the inner ones first."""
        for each in list(self._unpacked):
            if each.under_way:
                continue
            if each.refusal is not None:
                self._add(self._answers.refusal(each.item, each.prepared, each.refusal))
            else:
                self._commit(each.item, containers.record(each, self._clock))
            self._unpacked.remove(each)
            self._under_way.pop(each.item.claim.arrival_id)

    def _add(self, entry: Entry | None) -> None:
        if entry is not None:
            self._batch.add(entry)

    def _commit(self, item: Item, record: ArrivalRecord) -> None:
        self._spool.keep([item.claim])
        self._writer.record([record])
        self._spool.release(item.claim)
        self._on_committed([record])

    def _is_poison(self, item: Item) -> bool:
        return self._writer.count_attempt(item.claim.arrival_id) >= POISONOUS
