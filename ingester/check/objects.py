"""An object found in the tree becomes a row: the road that rebuild and repair share.

The file is read by the same `prepare`, its row is written by the same
`Writer.record` as a file that arrives; only publishing is done already.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from ingester.archive import escape_source, instance_path
from ingester.check.findings import Finding, FindingKind
from ingester.errors import Retry
from ingester.model import ArrivalRecord, Instance, Outcome, Prepared, Stored, Version
from ingester.moments import moment_of
from ingester.pool import Answer, prepare_many
from ingester.prepare import Limits, PrepareRequest
from ingester.quarantine import FILE_ERRORS

#: Source -> (character set, issuer of patient id) that its files may leave out.
Defaults = Callable[[str], tuple[str, str]]

#: How many files one question to the executor asks about, and how many are asked ahead.
_CHUNK = 8
_AHEAD = 16
#: So often a file is read alone that takes its reader down.
_MOST_BREAKS = 2

T = TypeVar("T")
R = TypeVar("R")

_NAME = re.compile(r"(?P<uid>[0-9.]+)(~(?P<version>[0-9a-f]{12}))?\.dcm", re.ASCII)


def no_defaults(_source: str) -> tuple[str, str]:
    """Return that sources leave nothing out."""
    return "", ""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the tree, read: its record, or why it can have none."""

    path: str
    record: ArrivalRecord | None
    finding: Finding | None


class Pool:
    """What reads: processes of an executor, made anew where one of them died."""

    def __init__(self, make: Callable[[], Executor] | None) -> None:
        """Take what makes the executor; None runs everything here."""
        self._make = make
        self._executor: Executor | None = None

    def submit(self, fn: Callable[[T], R], argument: T) -> Callable[[], R]:
        """Begin *fn*; returns what waits for its answer.

        The answer may be `BrokenProcessPool`: then `renew`, and ask again.
        """
        if self._make is None:
            return partial(fn, argument)
        if self._executor is None:
            self._executor = self._make()
        try:
            return self._executor.submit(fn, argument).result
        except BrokenProcessPool as error:
            return partial(_raise, error)

    def renew(self) -> None:
        """Give up the processes that there are."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None


def _raise(error: BaseException) -> NoReturn:
    raise error


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """Reads objects of the archive where they lie."""

    root: Path
    defaults: Defaults = no_defaults
    limits: Limits = field(default_factory=Limits)
    pool: Pool = field(default_factory=lambda: Pool(None))

    def read(self, paths: Iterable[str]) -> Iterator[Found]:
        """Read files, some ahead of the others, and yield them in the order given."""
        waiting: deque[tuple[list[str], Callable[[], list[Answer]]]] = deque()
        for chunk in _chunks(paths):
            waiting.append((chunk, self._begin(chunk)))
            if len(waiting) >= _AHEAD:
                yield from self._answered(*waiting.popleft())
        while waiting:
            yield from self._answered(*waiting.popleft())

    def _begin(self, paths: Sequence[str]) -> Callable[[], list[Answer]]:
        return self.pool.submit(prepare_many, [self._request(path) for path in paths])

    def _answered(self, paths: list[str], answer: Callable[[], list[Answer]]) -> Iterator[Found]:
        try:
            answers = answer()
        except BrokenProcessPool:
            self.pool.renew()
            for path in paths:
                yield self._read_alone(path)
            return
        for path, each in zip(paths, answers, strict=True):
            yield self._found(path, each)

    def _read_alone(self, path: str) -> Found:
        """Read a file by itself: one of several took its reader down."""
        for _ in range(_MOST_BREAKS):
            try:
                (answer,) = self._begin([path])()
            except BrokenProcessPool:
                self.pool.renew()
            else:
                return self._found(path, answer)
        why = "Reading it stopped the reader, several times."
        return Found(path, None, Finding.of(FindingKind.UNREADABLE, path, why))

    def _request(self, path: str) -> PrepareRequest:
        character_set, issuer = self.defaults(path.split("/", 1)[0])
        return PrepareRequest(
            path=f"{self.root}/{path}",
            intake="read",
            staging="",
            is_received=True,
            character_set=character_set,
            issuer_of_patient_id=issuer,
            limits=self.limits,
        )

    def _found(self, path: str, answer: Answer) -> Found:
        if isinstance(answer, OSError):
            self._blame(path, answer)
            why = f"({answer.strerror})"
            return Found(path, None, Finding.of(FindingKind.UNREADABLE, path, why))
        if isinstance(answer, Retry):
            raise answer
        if not isinstance(answer.found, Instance) or not answer.is_steady:
            message = getattr(answer.found, "message", "")
            return Found(path, None, Finding.of(FindingKind.NOT_AN_OBJECT, path, message))
        name = _NAME.fullmatch(path.rpartition("/")[2])
        if name is None or name["uid"] != answer.found.sop_instance_uid:
            why = "Its name is not its SOP Instance UID."
            return Found(path, None, Finding.of(FindingKind.NOT_AN_OBJECT, path, why))
        return Found(
            path, _record(path, answer, answer.found, is_other=bool(name["version"])), None
        )

    def _blame(self, path: str, error: OSError) -> None:
        """Tell a file that cannot be read from an archive that has gone away meanwhile.

        Raises
        ------
        Retry : the archive has; what was read of it so far is not all of it
        """
        is_the_files = error.errno in FILE_ERRORS or (
            error.errno == errno.ENOENT and (self.root / path).parent.is_dir()
        )
        if not is_the_files:
            raise Retry(f"The archive {self.root} cannot be read now ({error.strerror}).")


def home_of(record: ArrivalRecord) -> str:
    """Return where an object of this source, date, study and UID belongs."""
    assert record.instance is not None
    assert record.stored is not None
    return instance_path(
        escape_source(record.source),
        record.instance.study.study_date,
        record.instance.study_instance_uid,
        record.instance.sop_instance_uid,
        record.stored.sha256 if "~" in record.stored.path else None,
    )


def _record(path: str, prepared: Prepared, instance: Instance, *, is_other: bool) -> ArrivalRecord:
    at = moment_of(prepared.identity.mtime_ns)
    stored = Stored(
        path=path,
        sha256=prepared.sha256,
        data_set_sha256=prepared.data_set_sha256 or prepared.sha256,
        size_bytes=prepared.identity.size,
        archived_at=at,
        version=Version.CONFLICT if is_other else Version.CURRENT,
    )
    return ArrivalRecord(
        arrival_id=arrival_id_of(path, prepared.identity.mtime_ns),
        source=path.split("/", 1)[0],
        batch=None,
        original_name=path,
        arrived_at=at,
        finished_at=at,
        size_bytes=prepared.identity.size,
        sha256=prepared.sha256,
        outcome=Outcome.CONFLICT if is_other else Outcome.ARCHIVED,
        detail={"from_archive": True},
        instance=instance,
        stored=stored,
    )


def arrival_id_of(path: str, mtime_ns: int) -> str:
    """Return an id for an object whose arrival nobody remembers: the same every time."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{max(mtime_ns, 0) // 1000:016x}{digest[:8]}"


def _chunks(paths: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for path in paths:
        chunk.append(path)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
