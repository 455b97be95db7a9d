"""What the ingest is told, what it says of a turn, and what waits in its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ingester.compare import CannotCompare
from ingester.model import (
    ArrivalRecord,
    Claim,
    Container,
    FileIdentity,
    Instance,
    KnownVersion,
    Prepared,
    Refusal,
    Stored,
    Verdict,
)
from ingester.pool import Answer
from ingester.prepare import Limits
from ingester.unpack import START, Extracted, Place, Survey, UnpackLimits

#: Files of one question to the pool, and how large it may grow.
CHUNK_FILES = 8
CHUNK_BYTES = 8 << 20

#: A batch is committed at so many files, bytes or seconds after its first file.
BATCH_FILES = 64
BATCH_BYTES = 64 << 20
BATCH_SECONDS = 0.05

#: After so many reading processes that a comparison broke, it is given up.
MOST_BREAKS = 3

#: Whatever failed is tried again after so many seconds at the latest.
LONGEST_BACK_OFF = 60.0


@dataclass(frozen=True, slots=True)
class SourceDefaults:
    """What a source's files may leave out (`[sources.X]`)."""

    character_set: str = ""
    issuer_of_patient_id: str = ""


def _never(_: Path) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How the ingest behaves; durations in seconds.

    `is_impatient` is `run --once` and `import`: a file that nobody has open and that is
    not whole gets its outcome at once.  `named_by_file` are sources whose files name
    their true sender in (0002,0016).  `is_network` tells mounts without leases.
    """

    intake: Literal["auto", "link", "copy"] = "auto"
    limits: Limits = field(default_factory=Limits)
    unpack_limits: UnpackLimits = field(default_factory=UnpackLimits)
    quiet: float = 2.0
    network_quiet: float = 10.0
    incomplete_after: float = 900.0
    is_impatient: bool = False
    sources: Mapping[str, SourceDefaults] = field(default_factory=dict)
    named_by_file: frozenset[str] = frozenset()
    is_network: Callable[[Path], bool] = _never
    window: int = 256

    def defaults_of(self, source: str) -> SourceDefaults:
        """Return what stands in where a source's files leave something out."""
        return self.sources.get(source, SourceDefaults())


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn left behind.

    `is_busy`: the next turn has something to do at once.  `wake_at`: the monotonic
    time at which it will, None where only an event can tell.  `trouble`: why the world
    holds everything up, in words.
    """

    is_busy: bool
    wake_at: float | None
    trouble: str | None


@dataclass(slots=True)
class Counts:
    """How many files met which outcome since the start, and their bytes."""

    outcomes: Counter[str] = field(default_factory=Counter)
    arrived: int = 0
    bytes: int = 0

    def add(self, record: ArrivalRecord) -> None:
        """Count one finished arrival."""
        self.arrived += 1
        self.bytes += record.size_bytes
        self.outcomes[record.outcome.value] += 1


@dataclass(slots=True, eq=False)
class Item:
    """A claimed file on its way to an outcome."""

    claim: Claim
    size: int
    is_overruled: bool = False  # a writer that never closes: take a copy
    must_copy: bool = False  # a link or a flush failed: other bytes are needed
    refusal: Refusal | None = None  # decided before reading (an unsafe member)
    is_read: bool = False  # it was read before in this run, and may have left a copy
    is_repeated: bool = False  # it may have got its name before, without its row
    is_awaited: bool = False  # a person brought it (`import`, `retry`), perhaps to mend
    tries: int = 0
    still: FileIdentity | None = None  # what it looked like when it last had to wait
    still_since: float = 0.0
    due: float = 0.0


@dataclass(slots=True, eq=False)
class Chunk:
    """Neighbours in the line that are read by one question to the pool."""

    items: list[Item]
    is_alone: bool = False  # read by itself, its attempt counted: it may be poison
    future: Future[list[Answer]] | None = None
    results: list[Answer] | None = None


@dataclass(slots=True, eq=False)
class Unpacking:
    """An archive file at its place in the line; its members come before it.

    `next` is where the page begins that was not asked for yet, None after the last;
    `future` is the page that was.  `done` are the members that an earlier run has seen
    to, None until the index was asked; `under_way` those without an outcome;
    `finished` and `finished_bytes` tell of those that have one.
    """

    item: Item
    prepared: Prepared
    container: Container
    next: Place | None = START
    future: Future[Extracted] | None = None
    done: frozenset[int] | None = None
    survey: Survey | None = None
    given_out: int = 0
    under_way: int = 0
    finished: int = 0
    finished_bytes: int = 0
    refusal: Refusal | None = None

    @property
    def is_over(self) -> bool:
        """Return whether nothing more will come out of it."""
        return self.next is None and self.future is None

    @property
    def to_come(self) -> int:
        """Return how many members are known to be in it and were not given out yet."""
        return max(0, self.survey.members - self.given_out) if self.survey is not None else 0


@dataclass(frozen=True, slots=True)
class ArchiveProgress:
    """How far the unpacking of one archive file is; totals None until it was surveyed."""

    arrival_id: str
    original_name: str
    source: str
    batch: str | None
    members: int
    members_total: int | None
    bytes: int
    bytes_total: int | None


class Directory(NamedTuple):
    """A DICOMDIR that waits until everything around it has its outcome."""

    item: Item
    prepared: Prepared


@dataclass(slots=True, eq=False)
class Entry:
    """A file whose fate is decided, on its way through the durable steps.

    The memos (`sealed`, `record`) let a batch that met a transient fault be taken
    through the same steps again.
    """

    item: Item
    prepared: Prepared | None
    refusal: Refusal | None = None
    instance: Instance | None = None
    is_known: bool = False  # its UID is: flushed only if it turns out to be stored
    archived_at: str = ""
    flushing: Future[None] | None = None  # mode, time and bytes on their way to the disk
    has_failed: bool = False  # a flush did: these bytes are never believed again
    answers: dict[str, Verdict | CannotCompare] = field(default_factory=dict)  # of comparisons
    is_suspect: bool = False  # a comparison with it may have ended a process: alone from now on
    breaks: int = 0  # of processes that looked at nothing else
    sealed: FileIdentity | None = None
    stored: Stored | None = None
    replaces: KnownVersion | None = None  # whose lost file it takes the place of
    record: ArrivalRecord | None = None
