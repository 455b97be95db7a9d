"""Decided files gathered for one commit.

A commit costs the same few flushes for one file as for sixty, so files whose fate is
decided are gathered for a moment.  Their bytes are being flushed meanwhile, and those
whose flush has ended are committed while the others go on.  A batch holds no UID twice,
because the verdict on the second depends on the row of the first.  A file that must be
read again leaves it, and goes before everything else that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from ingester.claims import folder_of
from ingester.ingest.line import Line
from ingester.ingest.publish import Publisher
from ingester.ingest.sealing import CannotLink, Touched
from ingester.ingest.values import (
    BATCH_BYTES,
    BATCH_FILES,
    BATCH_SECONDS,
    Chunk,
    Entry,
    Item,
)
from ingester.model import ArrivalRecord, Clock, Instance, Prepared
from ingester.pool import Answer

#: So many times its time a batch waits for the flushes of half its files.
_PATIENCE = 4


class Batch:
    """Gathers entries and takes them through the durable steps together.

    Parameters
    ----------
    on_committed : called after each commit with its rows
    """

    def __init__(
        self,
        publisher: Publisher,
        line: Line,
        clock: Clock,
        on_committed: Callable[[Sequence[ArrivalRecord]], None],
    ) -> None:
        self._publisher = publisher
        self._line = line
        self._clock = clock
        self._on_committed = on_committed
        self._entries: list[Entry] = []
        self._uids: set[str] = set()
        self._since = 0.0
        self._again: list[Chunk] = []

    def __len__(self) -> int:
        """Return how many files are gathered."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the files that are gathered."""
        return (entry.item for entry in self._entries)

    @property
    def due(self) -> float | None:
        """Return when the batch is to be committed, None where it is empty."""
        return self._since + BATCH_SECONDS if self._entries else None

    def is_full_for(self, answer: Answer) -> bool:
        """Return whether the batch must be committed before this file can join."""
        if len(self._entries) >= 2 * BATCH_FILES:
            return True
        if not isinstance(answer, Prepared) or not isinstance(answer.found, Instance):
            return False
        if answer.found.sop_instance_uid in self._uids:
            return True
        return sum(entry.item.size for entry in self._entries) >= BATCH_BYTES

    def add(self, entry: Entry) -> None:
        """Add a decided file; its bytes begin to become durable."""
        if entry.instance is not None:
            self._uids.add(entry.instance.sop_instance_uid)
        if not self._entries:
            self._since = self._clock.monotonic()
        self._publisher.begin(entry)
        self._entries.append(entry)

    def flush_if_due(self) -> None:
        """Commit where nothing more is coming, or the first has waited enough."""
        if not self._entries:
            return
        age = self._clock.monotonic() - self._since
        is_full = len(self._entries) >= BATCH_FILES
        if self._line.head is None:
            again = self.flush()
        elif age >= BATCH_SECONDS or is_full:
            is_patient = age < _PATIENCE * BATCH_SECONDS
            durable = self._flushed()
            if is_patient and durable < BATCH_FILES // 2:
                return
            again = self.flush(durable or None)
        else:
            return
        self._line.put_first(*again)
        if again:
            self._line.submit()

    def _flushed(self) -> int:
        """Return how many of the first entries need not be waited for."""
        for count, entry in enumerate(self._entries):
            if entry.flushing is not None and not entry.flushing.done():
                return count
        return len(self._entries)

    def flush(self, count: int | None = None) -> list[Chunk]:
        """Commit the first *count* entries, or all.

        Returns what must be read again before anything else.
        """
        later = [] if count is None else self._entries[count:]
        self._entries = self._entries[: len(self._entries) - len(later)]
        try:
            self._commit()
        finally:
            self._entries += later
            self._uids = {each.instance.sop_instance_uid for each in self._entries if each.instance}
        self._since = self._clock.monotonic()
        again, self._again = self._again, []
        return again

    def _commit(self) -> None:
        while self._entries:
            try:
                records, rest = self._publisher.commit(self._entries)
            except (Touched, CannotLink) as met:
                self._read_again(met)
                continue
            except BrokenProcessPool:
                self._line.start_anew()
                continue
            self._entries = rest
            self._on_committed(records)

    def _read_again(self, met: Touched | CannotLink) -> None:
        entries = [met.entry]
        met.entry.item.must_copy |= isinstance(met, CannotLink)
        if isinstance(met, CannotLink) and met.is_general:
            there = folder_of(met.entry.item.claim)
            self._line.no_links.add(there)
            entries = [
                each
                for each in self._entries
                if each is met.entry
                or (
                    each.instance is not None
                    and each.prepared is not None
                    and not each.prepared.staged
                    and folder_of(each.item.claim) == there
                )
            ]
        for entry in entries:
            self._entries.remove(entry)
            self._again.append(Chunk([entry.item]))
