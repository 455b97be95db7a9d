"""What is still to be made, handed out; what was made, put in its place and recorded.

The work list is a query, so nothing is lost when this is stopped at any line: the
file is put in its place first, then the row says so.  Each call of `turn` does one
bounded step and never waits; whoever calls it decides that intake goes first.

    while derivations.turn(): wake.wait(...)
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ingester import durable
from ingester.derivatives.mapping import ThumbnailSettings
from ingester.derivatives.plan import VideoSettings
from ingester.derivatives.request import DeriveRequest, DeriveResult
from ingester.derivatives.version import PIPELINE_VERSION
from ingester.derivatives.worker import clear
from ingester.model import Clock, Derivative, Kind, Status, moment

log = logging.getLogger(__name__)

type_path_of = Callable[[str, Kind], str]

_BATCH = 32
_BATCH_SECONDS = 0.5
_ASKED_AT_ONCE = 128
_FIRST_DELAY = 2.0
_LONGEST_PAUSE = 60.0
_LONGEST_DELAY = 600.0


class Pending(Protocol):
    """What the index says of an object that lacks derivatives."""

    @property
    def instance_id(self) -> int: ...  # noqa: D102 - the columns of `instances`
    @property
    def kinds(self) -> frozenset[Kind]: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102
    @property
    def transfer_syntax_uid(self) -> str: ...  # noqa: D102
    @property
    def number_of_frames(self) -> int | None: ...  # noqa: D102
    @property
    def rows(self) -> int | None: ...  # noqa: D102
    @property
    def columns(self) -> int | None: ...  # noqa: D102


class Index(Protocol):
    """The part of the index's writer that is needed here."""

    def pending_derivatives(
        self,
        pipeline_versions: Mapping[Kind, int],
        limit: int,
        *,
        exclude: Collection[int] = (),
    ) -> Sequence[Pending]:
        """Return objects that lack a derivative of this version."""
        ...

    def record_derivatives(self, derivatives: Sequence[Derivative]) -> None:
        """Record what was made."""
        ...


class Deriving(Protocol):
    """The part of `worker.Deriver` that is needed here."""

    @property
    def has_room(self) -> bool:
        """Say whether a request more would keep a worker busy."""
        ...

    def submit(self, request: DeriveRequest) -> None:
        """Have a request made."""
        ...

    def results(self) -> list[DeriveResult]:
        """Return what was finished."""
        ...


@dataclass(slots=True)
class Counts:
    """What was made since the start."""

    thumbnails: int = 0
    videos: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class DerivationSettings:
    """What a site chose about thumbnails and videos."""

    thumbnails: ThumbnailSettings = field(default_factory=ThumbnailSettings)
    videos: VideoSettings = field(default_factory=VideoSettings)


@dataclass(slots=True)
class _Delay:
    """When to ask again for what the world did not let us make."""

    due: float
    seconds: float


class Derivations:
    """Keep the deriver fed and the index told; driven from the main thread."""

    def __init__(
        self,
        index: Index,
        archive_root: Path,
        deriver: Deriving,
        settings: DerivationSettings,
        clock: Clock,
        *,
        path_of: type_path_of,
    ) -> None:
        """Take the pieces; *path_of* names an object's derivative, below the archive."""
        self._index = index
        self._root = archive_root
        self._deriver = deriver
        self._settings = settings
        self._clock = clock
        self._path_of = path_of
        self._queue: list[Pending] = []
        self._under_way: dict[int, DeriveRequest] = {}
        self._finished: list[tuple[DeriveRequest, DeriveResult]] = []
        self._finished_at = 0.0
        self._delays: dict[int, _Delay] = {}
        self._pause = _Delay(0.0, 0.0)
        self.counts = Counts()
        self.trouble: str | None = None

    @property
    def pending(self) -> int:
        """Return how many objects are known to wait, in work and put off included."""
        known = len(self._queue) + len(self._under_way) + len(self._finished)
        return known + len(self._delays)

    @property
    def wake_at(self) -> float | None:
        """Return when (monotonic) `turn` has something to do though nobody rang."""
        due = [max(each.due, self._pause.due) for each in self._delays.values()]
        if self._finished:
            due.append(self._finished_at + _BATCH_SECONDS)
        return min(due, default=None)

    def turn(self, *, feed: bool = True) -> bool:
        """Do one bounded step; True while anything is under way or was handed out.

        With *feed* False nothing new is begun (intake has work, or we are stopping).
        """
        for result in self._deriver.results():
            request = self._under_way.pop(result.instance_id, None)
            if request is None:
                continue
            if result.trouble is not None:
                self._put_off(request, result.trouble)
                continue
            if not self._finished:
                self._finished_at = self._clock.monotonic()
            self._finished.append((request, result))
        if feed and self._clock.monotonic() >= self._pause.due:
            self._feed()
        if self._is_batch_due():
            self._settle()
        return bool(self._under_way or self._finished)

    def finish(self) -> None:
        """Record what was finished, without waiting for more."""
        self.turn(feed=False)
        self._settle()

    def abandon(self) -> None:
        """Remove what was half made; call it when the workers have ended."""
        for request in self._under_way.values():
            clear(request.staging)
        self._under_way.clear()

    def _is_batch_due(self) -> bool:
        if not self._finished or len(self._finished) >= _BATCH or not self._under_way:
            return bool(self._finished)
        return self._clock.monotonic() >= self._finished_at + _BATCH_SECONDS

    def _feed(self) -> None:
        while self._deriver.has_room:
            if not self._queue:
                self._queue = self._asked()
            if not self._queue:
                return
            request = self._request(self._queue.pop(0))
            clear(request.staging)
            self._under_way[request.instance_id] = request
            self._deriver.submit(request)

    def _asked(self) -> list[Pending]:
        now = self._clock.monotonic()
        put_off = {each for each, delay in self._delays.items() if delay.due > now}
        finished = {request.instance_id for request, _ in self._finished}
        exclude = self._under_way.keys() | put_off | finished
        found = self._index.pending_derivatives(PIPELINE_VERSION, _ASKED_AT_ONCE, exclude=exclude)
        return list(found)

    def _request(self, pending: Pending) -> DeriveRequest:
        return DeriveRequest(
            instance_id=pending.instance_id,
            path=os.fspath(self._root / pending.path),
            path_in_archive=pending.path,
            staging=os.fspath(self._root / ".staging" / f"derive-{pending.instance_id}"),
            kinds=pending.kinds,
            thumbnails=self._settings.thumbnails,
            videos=self._settings.videos,
            transfer_syntax_uid=pending.transfer_syntax_uid,
            size_bytes=pending.size_bytes,
            number_of_frames=pending.number_of_frames or 1,
            rows=pending.rows or 0,
            columns=pending.columns or 0,
        )

    def _put_off(self, request: DeriveRequest, trouble: str) -> None:
        """Ask again later; and since the disk is everybody's, begin nothing for a moment."""
        now = self._clock.monotonic()
        before = self._delays.get(request.instance_id)
        seconds = min(_LONGEST_DELAY, 2 * before.seconds if before else _FIRST_DELAY)
        self._delays[request.instance_id] = _Delay(now + seconds, seconds)
        if self._pause.due <= now:
            seconds = min(_LONGEST_PAUSE, 2 * self._pause.seconds or _FIRST_DELAY)
            self._pause = _Delay(now + seconds, seconds)
        self.trouble = f"derivatives: {trouble}"
        log.warning("Put off instance %d: %s", request.instance_id, trouble)
        clear(request.staging)

    def _settle(self) -> None:
        """Put what was finished in its place, then record it, then forget it."""
        finished, self._finished = self._finished, []
        placed: list[tuple[DeriveRequest, list[Derivative]]] = []
        made_at = moment(self._clock.now())
        for request, result in finished:
            try:
                placed.append(
                    (request, install(self._root, request, result, self._path_of, made_at))
                )
            except OSError as error:
                self._put_off(request, os.strerror(error.errno or 0))
        for folder in sorted({(self._root / each.path_in_archive).parent for each, _ in placed}):
            durable.flush_folder(folder)
        self._index.record_derivatives([row for _, rows in placed for row in rows])
        for request, rows in placed:
            self._forget(request, rows)

    def _forget(self, request: DeriveRequest, rows: Sequence[Derivative]) -> None:
        for row in rows:
            if row.status is Status.FAILED:
                self.counts.failures += 1
            elif row.status is Status.MADE and row.kind is Kind.THUMBNAIL:
                self.counts.thumbnails += 1
            elif row.status is Status.MADE:
                self.counts.videos += 1
            if row.path is None:  # what an earlier pipeline made is nobody's now
                stale = self._root / self._path_of(request.path_in_archive, row.kind)
                if os.path.lexists(stale):
                    durable.unlink(stale)
        clear(request.staging)
        self._delays.pop(request.instance_id, None)
        self._pause = _Delay(0.0, 0.0)
        self.trouble = None


def install(
    root: Path, request: DeriveRequest, result: DeriveResult, path_of: type_path_of, made_at: str
) -> list[Derivative]:
    """Put a result's staged files beside their object; return the rows to record.

    The folder is flushed by the caller, once for many.

    Raises
    ------
    OSError
        A staged file is not there or not a file, or it cannot be renamed.
    """
    rows = []
    for made in result.made:
        path = None
        if made.staged is not None:
            path = path_of(request.path_in_archive, made.kind)
            staged = Path(request.staging) / made.staged
            status = os.lstat(staged)
            if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
                raise OSError(f"a staged {made.kind} is no file")
            durable.replace(staged, root / path)
        rows.append(
            Derivative(
                instance_id=request.instance_id,
                kind=made.kind,
                status=made.status,
                reason=made.reason,
                path=path,
                pipeline_version=PIPELINE_VERSION[made.kind],
                made_at=made_at,
                detail=made.detail,
            )
        )
    return rows
