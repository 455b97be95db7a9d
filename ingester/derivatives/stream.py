"""A video stream taken out of its object, and what FFmpeg says of it.

The fragments of Pixel Data are joined into a file (offsets to offsets; never in
memory, never down a pipe, for an MP4 whose index comes last cannot be read from
one).  The first bytes say which container it is, and FFmpeg is told that format by
name, so that a stream that claims to be a playlist opens no other file.

References
----------
PS3.5 §8.2.5 to §8.2.12, §A.4.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pydicom.dataset import Dataset

from ingester import durable
from ingester.derivatives import video
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.mp4 import NotAnMp4, boxes_end
from ingester.derivatives.reading import ObjectFile, PixelElement
from ingester.derivatives.timing import cine_timing
from ingester.derivatives.values import integer
from ingester.model import DerivativeReason

_ITEM = b"\xfe\xff\x00\xe0"
_COPY_BYTES = 16 * 2**20
_MOST_COMPLAINTS = 2**20
#: Formats that state no time of their own.
ELEMENTARY = ("h264", "hevc", "mpegvideo")

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

    @property
    def has_times(self) -> bool:
        """Say whether the container states when each frame is shown."""
        return self.container not in ELEMENTARY

    def opening(self, rate: Fraction | None = None) -> list[str]:
        """Return FFmpeg's options that open it as what it is and nothing else."""
        return _opening(self.path, self.container, rate)


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
    if container not in ELEMENTARY:
        return None, "stream"
    stated = cine_timing(header, max(1, integer(header, "NumberOfFrames") or 1))
    if stated.source != "default" and stated.repeats is None and stated.time_scale is None:
        return stated.rate, stated.source
    return (facts.rate, "stream") if facts.rate else (stated.rate, "default")


# A coded slice that is no key picture, of any importance (ISO/IEC 14496-10 §7.3.1).
_SLICE = re.compile(rb"\x00\x00\x01[\x01\x21\x41\x61](.{8})", re.DOTALL)
_B_SLICES = (1, 6)


def has_b_slices(stream: Path) -> bool:
    """Say whether a bare H.264 stream has frames that are shown in another order.

    It states no times, and FFmpeg would copy it with those of the order of storage:
    frames would be shown at the wrong moments, and nothing in the file would tell.
    """
    with open(stream, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(_slice_type(each.group(1)) in _B_SLICES for each in _SLICE.finditer(data))


def _slice_type(head: bytes) -> int:
    """Return the second Exp-Golomb number of a slice header (§7.3.3, §9.1)."""
    bits = "".join(f"{each:08b}" for each in head)
    first = bits.find("1")
    bits = bits[2 * first + 1 :]  # past first_mb_in_slice
    zeros = bits.find("1")
    code = bits[zeros : 2 * zeros + 1]
    return int(code, 2) - 1 if first >= 0 and zeros >= 0 and code else -1
