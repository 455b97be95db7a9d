"""Objects that hold a video already: MPEG-2, H.264 or HEVC inside Pixel Data.

The fragments are joined into a file (offsets to offsets; never in memory, never
down a pipe, for an MP4 whose index comes last cannot be read from one), its first
bytes say which container it is, and FFmpeg is told that format by name, so that a
stream that claims to be a playlist reads no other file.  What every player opens is
copied as it is; all else is encoded anew.

References
----------
PS3.5 §8.2.5 to §8.2.12, §A.4.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ingester import durable
from ingester.derivatives import video
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.mp4 import NotAnMp4, Probe, boxes_end
from ingester.derivatives.plan import VideoSettings
from ingester.derivatives.reading import ObjectFile, PixelElement
from ingester.derivatives.timing import cine_timing
from ingester.derivatives.values import integer
from ingester.model import DerivativeReason, type_json

_ITEM = b"\xfe\xff\x00\xe0"
_COPY_BYTES = 16 * 2**20
_MOST_COMPLAINTS = 2**20
#: Formats that state no time of their own.
_ELEMENTARY = ("h264", "hevc", "mpegvideo")
_BLACK = 16

#: Decimal rates as FFmpeg prints them, and what they stand for.
_NTSC = {
    "23.98": Fraction(24000, 1001),
    "29.97": Fraction(30000, 1001),
    "47.95": Fraction(48000, 1001),
    "59.94": Fraction(60000, 1001),
    "119.88": Fraction(120000, 1001),
}


@dataclass(frozen=True, slots=True)
class Described:
    """What FFmpeg says of a stream."""

    codec: str
    profile: str
    pixel_format: str
    width: int
    height: int
    aspect: float  # width of a pixel divided by its height
    rate: Fraction | None
    is_interlaced: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream taken out of its object into a file, and what it is.

    `rate` is what to impose on a stream without times (`None` where it has them),
    `timing_source` who says it, `stated` the object's Number of Frames.
    """

    path: Path
    container: str
    facts: Described
    rate: Fraction | None
    timing_source: str
    stated: int


def extract(path: Path | str, pixels: PixelElement, out: Path) -> None:
    """Join the fragments of encapsulated Pixel Data into a file.

    Fragment boundaries carry no meaning in a stream; the Basic Offset Table is the
    first item and is left out.

    Raises
    ------
    DecodeError
        There is nothing in the element (`corrupt-pixels`).
    OSError
        The object cannot be read or the disk is full.
    """
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target = durable.create(out, 0o600)
        try:
            for offset, length in _stream_ranges(source, pixels):
                _append(source, offset, length, target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    if out.stat().st_size == 0:
        raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "the pixel data holds no stream")


def _stream_ranges(source: int, pixels: PixelElement) -> list[tuple[int, int]]:
    """Return (offset, length) of each piece of the stream, without the offset table."""
    size = os.fstat(source).st_size
    if pixels.length is not None:
        return [(pixels.offset, min(pixels.length, size - pixels.offset))]
    ranges = []
    offset = pixels.offset
    while offset + 8 <= size:
        head = os.pread(source, 8, offset)
        if head[:4] != _ITEM:
            break
        (length,) = struct.unpack_from("<L", head, 4)
        ranges.append((offset + 8, min(length, size - offset - 8)))
        offset += 8 + length
    return ranges[1:]


def _append(source: int, offset: int, length: int, target: int) -> None:
    end = offset + length
    while offset < end:
        copied = os.sendfile(target, source, offset, min(_COPY_BYTES, end - offset))
        if copied == 0:
            return  # cut short: FFmpeg makes what it can of the rest
        offset += copied


def sniff(head: bytes, transfer_syntax: str) -> str:
    """Return FFmpeg's name of the container that begins with *head*.

    Raises
    ------
    DecodeError
        It is none of those that DICOM allows (`corrupt-pixels`).
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:1] == b"\x47" and head[188:189] in (b"\x47", b""):
        return "mpegts"
    if head[4:5] == b"\x47" and head[196:197] == b"\x47":
        return "mpegts"  # packets of 192 bytes, as on Blu-ray
    if head[:4] == b"\0\0\1\xba":
        return "mpeg"
    if head[:4] == b"\0\0\1\xb3":
        return "mpegvideo"
    unit = re.match(rb"\x00{2,3}\x01(..)", head, re.DOTALL)
    if unit:
        first, second = unit.group(1)
        is_hevc = first in (0x40, 0x42, 0x44, 0x46, 0x4E) and second == 1
        if transfer_syntax.endswith((".107", ".108")) or is_hevc:
            return "hevc"
        return "h264"
    raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "the stream is in no known container")


def _opening(stream: Path, container: str, rate: Fraction | None = None) -> list[str]:
    """Return the options that open a stream as what it is and nothing else."""
    timed = [] if rate is None else ["-r", f"{rate.numerator}/{rate.denominator}"]
    return ["-protocol_whitelist", "file", *timed, "-f", container, "-i", f"file:{stream}"]


def describe(stream: Path, container: str) -> Described:
    """Ask FFmpeg what the first video stream is.

    Raises
    ------
    DecodeError
        It finds no video in it (`corrupt-pixels`).
    """
    done = subprocess.run(
        [
            *(video.ffmpeg_program(), "-nostdin", "-hide_banner", "-threads", "1"),
            *_opening(stream, container),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"LC_ALL": "C"},
        check=False,  # without an output file it always ends with 1
    )
    said = done.stderr[:_MOST_COMPLAINTS].decode("utf-8", "replace")
    return parse_description(said)


_STREAM_LINE = re.compile(r"^\s+Stream #0:\d+.*?: Video: (?P<rest>.*)$", re.MULTILINE)


def parse_description(said: str) -> Described:
    """Read the line in which FFmpeg describes a video stream."""
    line = _STREAM_LINE.search(said)
    parts = _split(line.group("rest")) if line else []
    size = next(filter(None, (re.match(r"(\d+)x(\d+)\b", each) for each in parts[2:])), None)
    if line is None or size is None:
        raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "FFmpeg finds no video in the stream")
    codec = re.match(r"(\w+)(?: \(([^)]*)\))?", parts[0])
    shape = re.match(r"(\w+)(?:\(([^)]*)\))?", parts[1])
    aspect = re.search(r"\[SAR (\d+):(\d+)", line.group("rest"))
    rate = re.search(r"([\d.]+) fps\b", line.group("rest"))
    return Described(
        codec=codec.group(1) if codec else "",
        profile=(codec.group(2) or "") if codec else "",
        pixel_format=shape.group(1) if shape else "",
        width=int(size.group(1)),
        height=int(size.group(2)),
        aspect=int(aspect[1]) / int(aspect[2]) if aspect and int(aspect[2]) else 1.0,
        rate=_rate(rate.group(1)) if rate else None,
        is_interlaced=bool(shape and re.search(r"(top|bottom) ", shape.group(2) or "")),
    )


def _split(line: str) -> list[str]:
    """Split at the commas outside brackets."""
    return [each.strip() for each in re.split(r",(?![^(\[]*[)\]])", line)]


def _rate(printed: str) -> Fraction | None:
    if printed in _NTSC:
        return _NTSC[printed]
    try:
        rate = Fraction(printed)
    except ValueError:
        return None
    return rate if rate > 0 else None


def open_stream(found: ObjectFile, path: Path | str, stream: Path) -> Stream:
    """Take the stream out of the object at *path* into the file *stream*.

    Raises
    ------
    DecodeError
        There is no stream that FFmpeg knows.
    OSError
        The object cannot be read or the disk is full.
    """
    if found.pixels is None:
        raise DecodeError(DerivativeReason.NO_PIXELS, "the object has no pixel data")
    extract(path, found.pixels, stream)
    with open(stream, "rb") as file:
        container = sniff(file.read(200), found.declared_syntax)
    if container == "mov":
        _without_padding(stream)
    facts = describe(stream, container)
    rate, source = _timing(found.header, container, facts)
    stated = integer(found.header, "NumberOfFrames") or 0
    return Stream(stream, container, facts, rate, source, stated)


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


def _without_padding(stream: Path) -> None:
    """Cut the byte that pads an MP4 file of odd length inside an object."""
    try:
        end = boxes_end(stream)
    except NotAnMp4:
        return  # FFmpeg will say what it can make of it
    if stream.stat().st_size == end + 1:
        os.truncate(stream, end)


def _timing(header: Dataset, container: str, facts: Described) -> tuple[Fraction | None, str]:
    """Return the rate to impose on a stream without times, and who says it."""
    if container not in _ELEMENTARY:
        return None, "stream"
    stated = cine_timing(header, max(1, integer(header, "NumberOfFrames") or 1))
    if stated.source != "default" and stated.repeats is None and stated.time_scale is None:
        return stated.rate, stated.source
    return (facts.rate, "stream") if facts.rate else (stated.rate, "default")


def _made(stream: Stream, out: Path, settings: VideoSettings) -> tuple[Probe, str]:
    """Copy where that plays everywhere, else transcode."""
    sound = ["-map", "0:a:0?", "-c:a", "copy"] if settings.audio == "copy" else ["-an"]
    chosen = ["-map", "0:v:0", *sound, "-sn", "-dn"]
    opening = _opening(stream.path, stream.container, stream.rate)
    if _is_copied(stream.facts, stream.container, settings):
        is_hevc = stream.facts.codec == "hevc"
        copying = ["-c:v", "copy", *(["-tag:v", "hvc1"] if is_hevc else [])]
        try:
            _run([*opening, *chosen, *copying, *video.CONTAINER, os.fspath(out)], out)
            made = video.read_back(out)
            is_timed = stream.container not in _ELEMENTARY
            _check_copy(made, is_hevc=is_hevc, is_timed=is_timed)
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


def _is_copied(facts: Described, container: str, settings: VideoSettings) -> bool:
    """Say whether a copy is worth trying; what it yields is checked afterwards."""
    if container == "mpegvideo" or facts.is_interlaced or abs(facts.aspect - 1) > 0.01:
        return False
    if facts.codec == "hevc":
        return settings.hevc == "copy" and container not in _ELEMENTARY
    return facts.codec == "h264" and facts.pixel_format == "yuv420p"


def _check_copy(made: Probe, *, is_hevc: bool, is_timed: bool) -> None:
    if is_hevc:
        is_good = made.codec == "hvc1" and made.is_faststart and made.frames > 0
    else:
        video.check_playable(made)
        short, long = sorted((made.width, made.height))
        is_good = long <= video.LARGEST[0] and short <= video.LARGEST[1]
    # A bare stream states no order of display: with B-frames a copy would stutter.
    if not is_good or not made.is_even or (made.is_reordered and not is_timed):
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
                *("-threads", "1", *_opening(stream.path, stream.container)),
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
