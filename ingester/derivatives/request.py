"""What is asked of a worker, what it answers, and what it may use up meanwhile.

A request is trusted (we wrote it) and travels as a pickle.  A result comes from a
process that decoded somebody's pixels, so it travels as JSON and is rebuilt field by
field: a hijacked decoder can lie about a picture, it cannot run code up here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import cast

from ingester.derivatives.mapping import ThumbnailSettings
from ingester.derivatives.plan import VideoSettings, is_video_syntax
from ingester.model import DerivativeReason, Kind, Status, type_json

_GIB = 2**30
_BASE_BYTES = _GIB + _GIB // 2
_MOST_BYTES = 12 * _GIB
_THUMBNAIL_SECONDS = 60.0
_THUMBNAIL_CPU_SECONDS = 20
_MOST_SECONDS = 2 * 3600.0
#: Copies of a frame alive at once: encoded, decoded, float, 8 bits, resampled.
_COPIES = 12
_SECONDS_A_FRAME = 0.35
_SECONDS_A_MEGAPIXEL = 0.25
_SECONDS_A_MEBIBYTE = 4.0  # of a video stream: transcoding on a slow machine


@dataclass(frozen=True, slots=True)
class DeriveRequest:
    """Make these kinds of derivatives of one archived object.

    `staging` is a folder of this request's own that does not exist yet.  The sizes come
    from the index and set the limits.  With `stand_in` nothing is decoded: the thumbnail
    is a card that says why (after a crash).
    """

    instance_id: int
    path: str  # absolute
    path_in_archive: str
    staging: str
    kinds: frozenset[Kind]
    thumbnails: ThumbnailSettings = field(default_factory=ThumbnailSettings)
    videos: VideoSettings = field(default_factory=VideoSettings)
    transfer_syntax_uid: str = ""
    size_bytes: int = 0
    number_of_frames: int = 1
    rows: int = 0
    columns: int = 0
    stand_in: DerivativeReason | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """One derivative's outcome; `staged` is a name in the request's staging folder."""

    kind: Kind
    status: Status
    reason: DerivativeReason | None
    detail: dict[str, type_json]
    staged: str | None


@dataclass(frozen=True, slots=True)
class DeriveResult:
    """What became of a request; `trouble` says that the world was at fault: ask again."""

    instance_id: int
    made: tuple[Made, ...]
    trouble: str | None = None

    def to_json(self) -> bytes:
        """Return the result as it travels."""
        rows = [[m.kind, m.status, m.reason, m.detail, m.staged] for m in self.made]
        return json.dumps([self.instance_id, rows, self.trouble]).encode()

    @classmethod
    def from_json(cls, data: bytes) -> DeriveResult:
        """Rebuild a result, believing no more than its types.

        Raises
        ------
        ValueError
            It is not one.
        """
        try:
            instance_id, rows, trouble = json.loads(data)
            made = tuple(_made(*row) for row in rows)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError("a worker's answer makes no sense") from error
        if not isinstance(instance_id, int) or not isinstance(trouble, str | None):
            raise ValueError("a worker's answer makes no sense")
        return cls(instance_id, made, trouble)


def _made(kind: str, status: str, reason: str | None, detail: object, staged: object) -> Made:
    if not isinstance(detail, dict) or not isinstance(staged, str | None):
        raise ValueError("a worker's answer makes no sense")
    if staged is not None and ("/" in staged or staged.startswith(".")):
        raise ValueError("a worker names a file outside its folder")
    return Made(
        Kind(kind),
        Status(status),
        None if reason is None else DerivativeReason(reason),
        cast(dict[str, type_json], detail),
        staged,
    )


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one request may use up."""

    wall_seconds: float
    cpu_seconds: int
    memory_bytes: int  # address space, of the worker and of FFmpeg each
    file_bytes: int


def allowance(request: DeriveRequest) -> Allowance:
    """Return the limits that fit what a request declares to be.

    A lie costs the liar: what needs more than the header and the size of the file
    suggest is stopped.
    """
    megapixels = max(1, request.rows * request.columns) / 1e6
    frames = max(1, request.number_of_frames)
    mebibytes = request.size_bytes / 2**20
    wall, cpu = _THUMBNAIL_SECONDS, float(_THUMBNAIL_CPU_SECONDS)
    if is_video_syntax(request.transfer_syntax_uid):
        wall = cpu = _SECONDS_A_MEBIBYTE * mebibytes
    elif Kind.VIDEO in request.kinds and frames > 1:
        wall = cpu = frames * (_SECONDS_A_FRAME + _SECONDS_A_MEGAPIXEL * megapixels)
    # A file of 4 GiB takes its time to be read, whatever is made of it.
    wall = max(wall, _THUMBNAIL_SECONDS + mebibytes / 20)
    frame_bytes = megapixels * 1e6 * 4
    return Allowance(
        wall_seconds=min(_MOST_SECONDS, wall),
        cpu_seconds=int(min(_MOST_SECONDS, max(cpu, _THUMBNAIL_CPU_SECONDS + mebibytes / 20))),
        memory_bytes=int(min(_MOST_BYTES, _BASE_BYTES + _COPIES * frame_bytes)),
        file_bytes=max(_GIB, 2 * request.size_bytes),
    )
