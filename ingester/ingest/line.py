"""The line in which claimed files wait, and the pool that reads them ahead of it.

Files are read in other processes, several at once, but leave the line in the order
in which they were claimed.  A file that may have killed a reading process is read
alone, with its attempt counted durably beforehand, so that it cannot do so for ever.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ingester import durable
from ingester.claims import folder_of
from ingester.index.writer import Writer
from ingester.ingest.pools import Pool
from ingester.ingest.values import (
    CHUNK_BYTES,
    CHUNK_FILES,
    Chunk,
    IngestSettings,
    Item,
    Unpacking,
)
from ingester.model import Reason, Refusal
from ingester.pool import Answer, prepare_many
from ingester.prepare import PrepareRequest

_logger = logging.getLogger(__name__)

#: After so many attempts that ended the reading process a file is set aside unread.
POISONOUS = 3
POISON = Refusal(
    Reason.POISON, "Reading this file has ended the program three times; it was set aside unread."
)


class Line:
    """Chunks of claimed files and archive files, first come, first served.

    Parameters
    ----------
    pool : what reads the files
    staging : the folder for copies
    on_ready : called from any thread when an answer is there
    """

    def __init__(
        self,
        pool: Pool,
        staging: Path,
        writer: Writer,
        settings: IngestSettings,
        on_ready: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._staging = staging
        self._writer = writer
        self._settings = settings
        self._on_ready = on_ready
        self._line: deque[Chunk | Unpacking] = deque()
        self.no_links: set[Path] = set()  # folders of claims on other file systems

    def __len__(self) -> int:
        """Return how many files are in the line."""
        return sum(len(each.items) if isinstance(each, Chunk) else 1 for each in self._line)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the files in the line."""
        for each in self._line:
            yield from each.items if isinstance(each, Chunk) else [each.item]

    @property
    def head(self) -> Chunk | Unpacking | None:
        """Return what is to leave the line next."""
        return self._line[0] if self._line else None

    def append(self, items: Iterable[Item]) -> None:
        """Put files at the end, in chunks."""
        self._line.extend(_chunks(items))

    def append_suspect(self, item: Item) -> None:
        """Put a file at the end that is to be read alone."""
        self._line.append(Chunk([item], is_alone=True))

    def put_first(self, *first: Chunk | Unpacking) -> None:
        """Put these before everything else, in this order."""
        self._line.extendleft(reversed(first))

    def put_items_first(self, items: Iterable[Item]) -> None:
        """Put files before everything else, in this order."""
        self.put_first(*_chunks(items))

    def pop(self) -> Chunk | Unpacking:
        """Take the head out."""
        return self._line.popleft()

    # ------------------------------------------------------------------ reading

    def wait(self, timeout: float) -> None:
        """Wait until the head's answer is there, for at most *timeout* seconds."""
        future: Future[Any] | None = self._line[0].future if self._line else None
        if future is not None:
            wait([future], timeout)

    def submit(self) -> None:
        """Ask the pool for everything in the line that may be read by now.

        A suspect is read when it is at the head, and nothing else with it.
        """
        try:
            for index, each in enumerate(self._line):
                if isinstance(each, Unpacking):
                    continue
                if each.is_alone:
                    if index == 0 and each.future is None and each.results is None:
                        self._ask_alone(each)
                    return
                elif each.future is None and each.results is None:
                    self._ask(each)
        except BrokenProcessPool:
            self.start_anew()

    def _ask_alone(self, chunk: Chunk) -> None:
        (item,) = chunk.items
        attempts = self._writer.count_attempt(item.claim.arrival_id)
        if attempts > POISONOUS:
            item.refusal = POISON
        self._ask(chunk)

    def _ask(self, chunk: Chunk) -> None:
        requests = [self._request(item) for item in chunk.items if item.refusal is None]
        chunk.future = self._pool.get().submit(prepare_many, requests)
        chunk.future.add_done_callback(lambda _: self._on_ready())

    def _request(self, item: Item) -> PrepareRequest:
        claim, settings = item.claim, self._settings
        defaults = settings.defaults_of(claim.source)
        self.drop_copy(item)
        item.must_copy |= folder_of(claim) in self.no_links
        return PrepareRequest(
            path=str(claim.path),
            intake="copy" if item.must_copy or item.is_overruled else settings.intake,
            staging=str(self._staging / claim.arrival_id),
            is_received=claim.is_received or claim.parent_id is not None,
            character_set=defaults.character_set,
            issuer_of_patient_id=defaults.issuer_of_patient_id,
            limits=settings.limits,
        )

    def drop_copy(self, item: Item) -> None:
        """Remove a copy that an earlier reading of the file may have left."""
        if item.is_read:
            durable.unlink(self._staging / item.claim.arrival_id)
        item.is_read = True

    def fetch(self, chunk: Chunk) -> bool:
        """Bring a chunk's answers in; False while the pool still reads."""
        if chunk.results is not None:
            return True
        if chunk.future is None or not chunk.future.done():
            return False
        try:
            answers: Iterator[Answer] = iter(chunk.future.result())
        except BrokenProcessPool:
            self.start_anew()
            return False
        if chunk.is_alone:
            # It was read and the process lives: it is not what kills.
            self._writer.forget_attempts(chunk.items[0].claim.arrival_id)
        unread = OSError(errno.ENODATA, "decided before it was read")
        chunk.results = [next(answers) if item.refusal is None else unread for item in chunk.items]
        return True

    def start_anew(self) -> None:
        """Begin again with a new pool; every file that the old one was reading alone."""
        _logger.warning("a reading process died; what it was reading is read file by file")
        self._pool.drop()
        line: deque[Chunk | Unpacking] = deque()
        for each in self._line:
            if isinstance(each, Unpacking) or each.future is None or each.results is not None:
                line.append(each)
            else:
                line.extend(Chunk([item], is_alone=True) for item in each.items)
        self._line = line
        self._on_ready()


def _chunks(items: Iterable[Item]) -> Iterator[Chunk]:
    chunk: list[Item] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) >= CHUNK_FILES or size + item.size > CHUNK_BYTES):
            yield Chunk(chunk)
            chunk, size = [], 0
        chunk.append(item)
        size += item.size
    if chunk:
        yield Chunk(chunk)
