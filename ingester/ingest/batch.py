"""Decided files gathered for one commit.

A commit costs the same few flushes for one file as for sixty, so files whose fate is
decided are gathered for a moment.  A batch holds no UID twice, because the verdict on
the second depends on the row of the first.  A file that must be read again leaves it,
and goes before everything else that waits.
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
        if len(self._entries) >= BATCH_FILES:
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
        if self._line.head is None or age >= BATCH_SECONDS or is_full:
            again = self.flush()
            self._line.put_first(*again)
            if again:
                self._line.submit()

    def flush(self) -> list[Chunk]:
        """Commit the batch; returns what must be read again before anything else."""
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
        self._uids = set()
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
