"""One object in, its thumbnail and its video out, or the reasons why not.

`derive` runs in a worker: it decodes, so it is the part that may crash, hang or eat
memory.  It takes and returns small values, writes into a staging folder of the
request's own and never raises for the file's fault.  `convert` is the same road for
one file without any archive.

    request ─► derive ─► staging/thumbnail.jpg, staging/video.mp4, a result for each
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingester import durable
from ingester.derivatives import decoders, transcode, video
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.frames import FrameSource
from ingester.derivatives.mapping import pixel_aspect
from ingester.derivatives.plan import (
    Motion,
    Playback,
    VideoPlan,
    VideoSettings,
    is_video_syntax,
    plan_video,
    playing_order,
)
from ingester.derivatives.reading import ObjectFile, open_object
from ingester.derivatives.request import DeriveRequest, DeriveResult, Made
from ingester.derivatives.stream import Stream, open_stream
from ingester.derivatives.thumbnail import (
    Thumbnail,
    ThumbnailMaker,
    card_thumbnail,
    encoded,
    may_show_text,
    reduced,
    render_thumbnail,
    thumbnail_of_frames,
)
from ingester.derivatives.timing import ROTATE_RATE, SCROLL_RATE, Timing, cine_timing
from ingester.derivatives.values import integer
from ingester.model import DerivativeReason, Kind, Status, type_json

_LONGEST_SECONDS = 2 * 3600
_MOST_FRAMES = 20_000
_SKIPPED = frozenset(
    (
        DerivativeReason.NO_PIXELS,
        DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX,
        DerivativeReason.TOO_LARGE,
        DerivativeReason.SINGLE_FRAME,
        DerivativeReason.NOT_A_CINE,
    )
)
#: Errors of the world, not of the file: worth another attempt later.
_NOT_THE_WORLDS = (errno.EFBIG, errno.ELOOP, errno.EISDIR)
_STAGED = {Kind.THUMBNAIL: "thumbnail.jpg", Kind.VIDEO: "video.mp4"}


def derive(request: DeriveRequest) -> DeriveResult:
    """Make what *request* asks for in its staging folder.

    The file's faults are results; where the world is at fault (disk full, object not
    there) the result says so in `trouble`, and the caller asks again later.
    """
    folder = Path(request.staging)
    try:
        durable.make_folder(folder, 0o700)
        made = tuple(_derived(request, folder))
    except OSError as error:
        if error.errno not in _NOT_THE_WORLDS:
            return DeriveResult(request.instance_id, (), trouble=os.strerror(error.errno or 0))
        made = tuple(
            _not_made(kind, DerivativeReason.TOO_LARGE, "a file would grow too large")
            for kind in sorted(request.kinds)
        )
    except MemoryError:
        error_ = DecodeError(DerivativeReason.TOO_LARGE, "the frames do not fit memory")
        made = tuple(_refused(request, folder, error_))
    return DeriveResult(request.instance_id, made)


def _derived(request: DeriveRequest, folder: Path) -> Iterator[Made]:
    if request.stand_in is not None:
        card = card_thumbnail(request.path, request.stand_in)
        yield _staged_thumbnail(card, folder)
        return
    try:
        with open_object(request.path) as found:
            if is_video_syntax(found.declared_syntax) and found.pixels is not None:
                yield from _Stream(request, folder, found).derived()
            else:
                yield from _derived_frames(request, folder, found)
    except DecodeError as error:  # not even a header
        yield from _refused(request, folder, error)


def _derived_frames(request: DeriveRequest, folder: Path, found: ObjectFile) -> Iterator[Made]:
    try:
        with FrameSource(found) as source:
            yield from _Frames(request, folder, source).derived()
    except DecodeError as error:
        plan = plan_video(
            found.header,
            frames=max(1, integer(found.header, "NumberOfFrames") or 1),
            has_pixels=error.reason is not DerivativeReason.NO_PIXELS,
            transfer_syntax=found.declared_syntax,
        )
        yield from _refused(request, folder, error, plan.reason)


def _refused(
    request: DeriveRequest,
    folder: Path,
    error: DecodeError,
    by_rule: DerivativeReason | None = None,
) -> Iterator[Made]:
    """Yield what is left to say of an object whose frames cannot be opened."""
    if Kind.THUMBNAIL in request.kinds:
        if error.reason is DerivativeReason.NO_PIXELS:
            yield _staged_thumbnail(render_thumbnail(request.path, request.thumbnails), folder)
        else:
            yield _staged_thumbnail(card_thumbnail(request.path, error.reason), folder)
    if Kind.VIDEO in request.kinds:
        yield _not_made(Kind.VIDEO, by_rule or error.reason, error.message)


class _Frames:
    """The derivatives of an object whose frames this program decodes."""

    def __init__(self, request: DeriveRequest, folder: Path, source: FrameSource) -> None:
        self._request = request
        self._folder = folder
        self._source = source
        self._maker: ThumbnailMaker | None = None

    def derived(self) -> Iterator[Made]:
        """Yield the video's outcome, then the thumbnail's, from one pass."""
        if Kind.VIDEO in self._request.kinds:
            try:
                yield self._video()
            except DecodeError as error:
                yield _not_made(Kind.VIDEO, error.reason, error.message)
        if Kind.THUMBNAIL in self._request.kinds:
            yield _staged_thumbnail(self._thumbnail(), self._folder)

    def _video(self) -> Made:
        source, settings = self._source, self._request.videos
        plan = planned(source, settings)
        if plan.reason is not None:
            stated = integer(source.header, "NumberOfFrames") or 1
            if plan.reason is DerivativeReason.SINGLE_FRAME and stated > 1:
                raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "all frames but one are missing")
            return _not_made(Kind.VIDEO, plan.reason)
        clip = Clip.of(source, plan, settings)
        self._maker = ThumbnailMaker(source, self._request.thumbnails)
        out = self._folder / _STAGED[Kind.VIDEO]
        detail = clip.encode(self._maker, out)
        _seal(out)
        return Made(Kind.VIDEO, Status.MADE, None, detail, out.name)

    def _thumbnail(self) -> Thumbnail:
        try:
            if self._maker is not None and self._maker.is_satisfied:
                return self._maker.finish()
            return thumbnail_of_frames(self._source, self._request.thumbnails)
        except DecodeError as error:
            return card_thumbnail(self._request.path, error.reason)


def planned(source: FrameSource, settings: VideoSettings) -> VideoPlan:
    """Return what the video of an opened object shows, or why there is none."""
    return plan_video(
        source.header,
        frames=source.number_of_frames,
        has_pixels=True,
        transfer_syntax=source.transfer_syntax,
        scroll=settings.scroll,
    )


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a video in the order of playing, with their timing."""

    source: FrameSource
    motion: Motion
    order: tuple[int, ...]  # indices of stored frames
    timing: Timing
    playback: Playback
    settings: VideoSettings

    @classmethod
    def of(cls, source: FrameSource, plan: VideoPlan, settings: VideoSettings) -> Clip:
        """Decide order and timing.

        Raises
        ------
        DecodeError
            It would be longer than anybody watches (`too-large`).
        """
        frames = source.number_of_frames
        most = min(settings.max_frames, _MOST_FRAMES)
        if frames > most:
            raise DecodeError(DerivativeReason.TOO_LARGE, f"there are more than {most} frames")
        motion = plan.motion or Motion.CINE
        timing = _timing_of(source, motion, settings)
        playback = Playback.of(source.header, frames)
        order = playing_order(
            plan.order or tuple(range(frames)),
            playback,
            trim=settings.trim,
            sweep=settings.sweep,
        )
        seconds = _seconds(order, timing)
        if seconds > _LONGEST_SECONDS:
            raise DecodeError(DerivativeReason.TOO_LARGE, "the clip is longer than two hours")
        times = math.ceil(Fraction(settings.min_seconds) / seconds) if seconds else 1
        return cls(source, motion, order * max(1, times), timing, playback, settings)

    def encode(self, maker: ThumbnailMaker, out: Path) -> dict[str, type_json]:
        """Make the video, showing each frame that passes to *maker*; return the detail."""
        source, lead = self.source, maker.candidates[0]
        size = video.fitted(
            source.layout.columns,
            source.layout.rows,
            aspect=pixel_aspect(source, lead),
            rate=self.timing.rate,
            max_edge=self.settings.max_edge,
        )
        broken: list[int] = []
        repeats = self.timing.repeats
        made, _ = video.encode(
            self._passing(maker, broken),
            out,
            size=size,
            is_colour=maker.mapper.is_colour,
            rate=self.timing.rate,
            repeats=None if repeats is None else [repeats[index] for index in self.order],
        )
        detail: dict[str, type_json] = {
            "kind": self.motion.value,
            **video.described(made, self.timing.rate),
            "timing_source": self.timing.source,
            "encoded": "encoded",
            "decoder": source.decoder,
            "versions": {**decoders.versions(source.decoder), "ffmpeg": video.ffmpeg_version()},
            **self._remarks(),
        }
        if maker.mapper.detail.get("low_confidence"):
            detail["low_confidence"] = True
        if source.is_partial or broken:
            detail["partial"] = True
        if broken:
            detail["broken_frames"] = sorted({index + 1 for index in broken})
        return detail

    def _passing(self, maker: ThumbnailMaker, broken: list[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the pictures; a frame that does not decode is black, and noted."""
        source, mapper = self.source, maker.mapper
        shape = (source.layout.rows, source.layout.columns)
        black = np.zeros((*shape, 3) if mapper.is_colour else shape, np.uint8)
        for index in self.order:
            try:
                picture = mapper.map(source.frame(index), index)
            except DecodeError:
                broken.append(index)
                if 2 * len(broken) > len(self.order):
                    raise
                yield black
                continue
            maker.offer(index, picture)
            yield picture

    def _remarks(self) -> dict[str, type_json]:
        """Return what of the detail applies to this clip only."""
        remarks: dict[str, type_json] = {}
        if self.timing.notes:
            remarks["timing_notes"] = list(self.timing.notes)
        if self.timing.time_scale is not None:
            remarks["time_scale"] = round(float(self.timing.time_scale), 6)
        shown = [1 if self.timing.repeats is None else self.timing.repeats[i] for i in self.order]
        if set(shown) != {1} or self.order != tuple(range(self.source.number_of_frames)):
            # Pairs: a stored frame, counted from 1, and how many frames show it.
            remarks["frame_map"] = [
                [i + 1, times] for i, times in zip(self.order, shown, strict=True) if times
            ]
        if self.playback.trim is not None:
            remarks["trim"] = list(self.playback.trim)
        if self.playback.is_sweep:
            remarks["sweep"] = True
        if may_show_text(self.source.header):
            remarks["phi"] = "possible"
        return remarks


def _timing_of(source: FrameSource, motion: Motion, settings: VideoSettings) -> Timing:
    if motion is Motion.SCROLL:
        return Timing(SCROLL_RATE, "default")
    if motion is Motion.ROTATE:
        return Timing(ROTATE_RATE, "default")
    return cine_timing(
        source.header,
        source.number_of_frames,
        prefer_recommended_rate=settings.prefer_recommended_rate,
    )


def _seconds(order: tuple[int, ...], timing: Timing) -> Fraction:
    if timing.repeats is None:
        return len(order) / timing.rate
    return sum(timing.repeats[index] for index in order) / timing.rate


class _Stream:
    """The derivatives of an object that holds a video already."""

    def __init__(self, request: DeriveRequest, folder: Path, found: ObjectFile) -> None:
        self._request = request
        self._folder = folder
        self._found = found
        self._stream = folder / "stream"

    def derived(self) -> Iterator[Made]:
        """Yield the thumbnail's outcome, then the video's."""
        request = self._request
        try:
            opened = open_stream(self._found, request.path, self._stream)
            if Kind.THUMBNAIL in request.kinds:
                yield _staged_thumbnail(self._thumbnail(opened), self._folder)
            if Kind.VIDEO in request.kinds:
                yield self._video(opened)
        except DecodeError as error:
            yield from _refused(request, self._folder, error)
        finally:
            durable.unlink(self._stream)

    def _thumbnail(self, opened: Stream) -> Thumbnail:
        try:
            picture, number = transcode.first_picture(opened, self._folder / "picture")
        except DecodeError as error:
            return card_thumbnail(self._request.path, error.reason)
        image = reduced(picture, 1 / opened.facts.aspect)
        detail: dict[str, type_json] = {
            "rendering": "pixels",
            "frame": number + 1,
            "window": None,
            "window_source": None,
            "decoder": "ffmpeg",
            "width": image.width,
            "height": image.height,
            "versions": {"ffmpeg": video.ffmpeg_version()},
        }
        if may_show_text(self._found.header):
            detail["phi"] = "possible"
        return Thumbnail(encoded(image), Status.MADE, None, detail)

    def _video(self, opened: Stream) -> Made:
        out = self._folder / _STAGED[Kind.VIDEO]
        try:
            _, detail = transcode.make_video(opened, out, self._request.videos)
        except DecodeError as error:
            return _not_made(Kind.VIDEO, error.reason, error.message)
        if may_show_text(self._found.header):
            detail["phi"] = "possible"
        _seal(out)
        return Made(Kind.VIDEO, Status.MADE, None, detail, out.name)


def _staged_thumbnail(thumbnail: Thumbnail, folder: Path) -> Made:
    name = _STAGED[Kind.THUMBNAIL]
    durable.write_file(folder / name, thumbnail.jpeg, 0o440)
    return Made(Kind.THUMBNAIL, thumbnail.status, thumbnail.reason, thumbnail.detail, name)


def _not_made(kind: Kind, reason: DerivativeReason, message: str = "") -> Made:
    status = Status.SKIPPED if reason in _SKIPPED else Status.FAILED
    detail: dict[str, type_json] = {"message": message} if message else {}
    return Made(kind, status, reason, detail, None)


def _seal(path: Path) -> None:
    """Make a finished derivative read-only, and that durable with its bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        durable.seal(descriptor, path, mode=0o440, mtime_ns=None)
        durable.flush_file(descriptor, path)
    finally:
        os.close(descriptor)
