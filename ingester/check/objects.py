"""An object found in the tree becomes a row: the road that rebuild and repair share.

The file is read by the same `prepare`, its row is written by the same
`Writer.record` as a file that arrives; only publishing is done already.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path

from ingester.check.findings import Finding, FindingKind
from ingester.model import ArrivalRecord, Instance, Outcome, Prepared, Stored, Version
from ingester.moments import moment_of
from ingester.pool import Answer, prepare_many
from ingester.prepare import Limits, PrepareRequest

#: Source -> (character set, issuer of patient id) that its files may leave out.
Defaults = Callable[[str], tuple[str, str]]

#: How many files one question to the executor asks about, and how many are asked ahead.
_CHUNK = 8
_AHEAD = 16

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


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """Reads objects of the archive where they lie."""

    root: Path
    defaults: Defaults = no_defaults
    limits: Limits = field(default_factory=Limits)
    executor: Executor | None = None

    def read(self, paths: Iterable[str]) -> Iterator[Found]:
        """Read files, some ahead of the others, and yield them in the order given."""
        waiting: list[tuple[list[str], Future[list[Answer]] | None]] = []
        for chunk in _chunks(paths):
            requests = [self._request(path) for path in chunk]
            future = self.executor.submit(prepare_many, requests) if self.executor else None
            waiting.append((chunk, future))
            if len(waiting) >= (_AHEAD if self.executor else 1):
                yield from self._answered(*waiting.pop(0))
        for each in waiting:
            yield from self._answered(*each)

    def _answered(self, paths: list[str], future: Future[list[Answer]] | None) -> Iterator[Found]:
        if future is not None:
            answers = future.result()
        else:
            answers = prepare_many([self._request(path) for path in paths])
        for path, answer in zip(paths, answers, strict=True):
            yield self._found(path, answer)

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
        if not isinstance(answer, Prepared):
            return Found(path, None, Finding.of(FindingKind.UNREADABLE, path, f"({answer})"))
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
