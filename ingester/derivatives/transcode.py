"""A stream made into a video and a picture: copied where it plays, else encoded anew.

What every player opens (H.264 up to High, 8-bit 4:2:0, progressive, evenly timed) is
copied as it is.  HEVC, MPEG-2, interlaced and deep streams are encoded like any cine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingester import durable
from ingester.derivatives import video
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.mp4 import Probe
from ingester.derivatives.plan import VideoSettings
from ingester.derivatives.stream import Described, Stream, has_b_slices
from ingester.model import DerivativeReason, type_json

_BLACK = 16  # mean of the 8-bit samples


def make_video(
    stream: Stream, out: Path, settings: VideoSettings
) -> tuple[Probe, dict[str, type_json]]:
    """Make *out* of a stream; return what it is and the row's detail.

    Raises
    ------
    DecodeError
        Nothing in it can be decoded or encoded.
    OSError
        The disk is full.
    """
    made, encoded = _made(stream, out, settings)
    detail: dict[str, type_json] = {
        "kind": "cine",
        **video.described(made, Fraction(made.frames * made.timescale, made.ticks)),
        "timing_source": stream.timing_source,
        "encoded": encoded,
        "decoder": "ffmpeg",
        "versions": {"ffmpeg": video.ffmpeg_version()},
    }
    if stream.stated > 1 and abs(stream.stated - made.frames) > 1:
        detail["stated_frames"] = stream.stated
    return made, detail


def _made(stream: Stream, out: Path, settings: VideoSettings) -> tuple[Probe, str]:
    """Copy where that plays everywhere, else transcode."""
    sound = ["-map", "0:a:0?", "-c:a", "copy"] if settings.audio == "copy" else ["-an"]
    chosen = ["-map", "0:v:0", *sound, "-sn", "-dn"]
    opening = stream.opening(stream.rate)
    if _is_copied(stream, settings):
        is_hevc = stream.facts.codec == "hevc"
        copying = ["-c:v", "copy", *(["-tag:v", "hvc1"] if is_hevc else [])]
        try:
            _run([*opening, *chosen, *copying, *video.CONTAINER, os.fspath(out)], out)
            made = video.read_back(out)
            _check_copy(made, is_hevc=is_hevc)
            return made, "copied"
        except DecodeError:
            durable.unlink(out)  # not what players expect, whatever the reason: encode it
    filters = ["-vf", ",".join(_transcoding(stream.facts, settings))]
    timed = ["-fps_mode", "passthrough"]
    _run([*opening, *chosen, *filters, *video.ENCODER, *timed, *video.CONTAINER, str(out)], out)
    made = video.read_back(out)
    video.check_playable(made)
    return made, "transcoded"


def _run(arguments: Sequence[str], out: Path) -> None:
    with video.Ffmpeg(arguments, out, has_input=False) as ffmpeg:
        ffmpeg.finish()


def _is_copied(stream: Stream, settings: VideoSettings) -> bool:
    """Say whether a copy is worth trying; what it yields is checked afterwards."""
    facts = stream.facts
    if facts.is_interlaced or abs(facts.aspect - 1) > 0.01:
        return False
    is_timed = stream.has_times
    if facts.codec == "hevc":
        return settings.hevc == "copy" and is_timed
    is_plain = facts.codec == "h264" and facts.pixel_format == "yuv420p"
    return is_plain and (is_timed or not has_b_slices(stream.path))


def _check_copy(made: Probe, *, is_hevc: bool) -> None:
    if is_hevc:
        is_good = made.codec == "hvc1" and made.is_faststart and made.frames > 0
    else:
        video.check_playable(made)
        short, long = sorted((made.width, made.height))
        is_good = long <= video.LARGEST[0] and short <= video.LARGEST[1]
    if not is_good or not made.is_even:
        raise DecodeError(DerivativeReason.ENCODER_FAILED, "the copied stream plays unevenly")


def _transcoding(facts: Described, settings: VideoSettings) -> list[str]:
    """Return the filters: deinterlace, fit, pad, then the colours of the rest."""
    size = video.fitted(
        facts.width,
        facts.height,
        aspect=1 / facts.aspect if facts.aspect > 0 else 1.0,
        rate=facts.rate or Fraction(30),
        max_edge=settings.max_edge,
    )
    filters = ["bwdif=mode=send_frame"] if facts.is_interlaced else []
    colours = "scale=out_range=tv:out_color_matrix=bt709:flags=accurate_rnd+full_chroma_int"
    return [*filters, *size.filters(), colours, "format=yuv420p", "setsar=1", video.TAGS]


def first_picture(stream: Stream, scratch: Path) -> tuple[NDArray[np.uint8], int]:
    """Return the first frame of a stream that is not black, and its number from 0.

    Where the first is black (a fade, a test lead), the one after a tenth is tried, then
    the middle; the first stays where all are.

    Raises
    ------
    DecodeError
        No frame can be decoded (`corrupt-pixels`).
    """
    first: NDArray[np.uint8] | None = None
    for number in dict.fromkeys((0, stream.stated // 10, stream.stated // 2)):
        picture = _picture(stream, number, scratch)
        if picture is not None and picture.mean() >= _BLACK:
            return picture, number
        first = picture if first is None else first
    if first is None:
        raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "no frame of the stream decodes")
    return first, 0


def _picture(stream: Stream, number: int, scratch: Path) -> NDArray[np.uint8] | None:
    """Return the frame at a number as RGB, None where it does not decode."""
    durable.unlink(scratch)
    try:
        _run(
            [
                *("-threads", "1", *stream.opening()),
                # By count, not by time: bare streams cannot be sought in.
                *("-map", "0:v:0", "-vf", f"select=gte(n\\,{number})", "-frames:v", "1"),
                *("-fps_mode", "passthrough", "-an", "-sn", "-dn"),
                *("-f", "rawvideo", "-pix_fmt", "rgb24", os.fspath(scratch)),
            ],
            scratch,
        )
        pixels = np.fromfile(scratch, np.uint8)
    except (DecodeError, FileNotFoundError):
        return None
    finally:
        durable.unlink(scratch)
    facts = stream.facts
    if pixels.size != facts.width * facts.height * 3:
        return None
    return pixels.reshape(facts.height, facts.width, 3)
