"""What an MP4 file says of itself: frames, timing, codec, colour, layout.

FFmpeg can exit with 0 and leave a file without one frame, and its wheel brings no
ffprobe, so every video is read back here before anybody is told that it exists.
Only the boxes that matter are parsed, with their sizes checked against the file:
the same reader looks at MP4 streams that came inside an object.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

_LARGEST_TABLE = 64 * 2**20
_DEEPEST = 8
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"edts", b"dinf"}
# Bytes before the boxes inside a visual sample entry (ISO/IEC 14496-12 §12.1.3).
_VISUAL_ENTRY_BYTES = 78


class NotAnMp4(Exception):
    """The file is no MP4, is cut short, or has no video track; the text says which."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the first video track of an MP4 file says."""

    codec: str  # four-character code of the sample entry: avc1, hvc1, hev1, mp4v
    profile: int  # profile_idc of the codec's own record; 0 where there is none
    level: int  # level_idc (H.264: 51 is 5.1; HEVC: 153 is 5.1)
    chroma_format: int  # 1 is 4:2:0
    bit_depth: int
    width: int
    height: int
    frames: int
    timescale: int  # ticks in a second
    durations: tuple[tuple[int, int], ...]  # stts: (frames, ticks each)
    colour: tuple[int, int, int, bool] | None  # primaries, transfer, matrix, full range
    longest_keyframe_gap: int
    is_faststart: bool  # the index stands before the pictures
    is_reordered: bool  # shown in another order than stored (B-frames)
    has_audio: bool
    has_metadata: bool

    @property
    def ticks(self) -> int:
        """Return the sum of all frames' durations in ticks."""
        return sum(count * delta for count, delta in self.durations)

    @property
    def seconds(self) -> Fraction:
        """Return how long the pictures play."""
        return Fraction(self.ticks, self.timescale)

    @property
    def is_even(self) -> bool:
        """Say whether all frames last equally long, the last one aside."""
        deltas = {delta for _, delta in self.durations[:-1]}
        if self.durations:
            count, delta = self.durations[-1]
            if count > 1 or not deltas:
                deltas.add(delta)
        return len(deltas) == 1 and 0 not in deltas


@dataclass(slots=True)
class _Track:
    handler: bytes = b""
    timescale: int = 0
    entry: bytes = b""
    durations: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    keyframes: list[int] | None = None
    is_reordered: bool = False


def probe(path: Path | str) -> Probe:
    """Read the first video track of an MP4 file.

    Raises
    ------
    NotAnMp4
        No index, no video track, or boxes that contradict the file's size.
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        return _probe(file)


def _probe(file: BinaryIO) -> Probe:
    size = file.seek(0, 2)
    order: list[bytes] = []
    tracks: list[_Track] = []
    has_metadata = False
    for name, start, end in _boxes(file, 0, size):
        order.append(name)
        if name == b"moov":
            has_metadata = _read_index(file, start, end, tracks)
    if b"ftyp" not in order[:1] and b"moov" not in order:
        raise NotAnMp4("the file does not begin as an MP4 file")
    if b"moov" not in order or b"mdat" not in order:
        raise NotAnMp4("the file has no index or no pictures")
    videos = [each for each in tracks if each.handler == b"vide"]
    if not videos or not videos[0].timescale or len(videos[0].entry) < 8 + _VISUAL_ENTRY_BYTES:
        raise NotAnMp4("the file has no video track")
    return _described(
        videos[0],
        is_faststart=order.index(b"moov") < order.index(b"mdat"),
        has_audio=any(each.handler == b"soun" for each in tracks),
        has_metadata=has_metadata,
    )


def boxes_end(path: Path | str) -> int:
    """Return where the last whole box of a file ends; what follows is padding."""
    with open(path, "rb") as file:
        ends = [end for _, _, end in _boxes(file, 0, file.seek(0, 2))]
    return ends[-1] if ends else 0


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start of the content, end) of the boxes in a range of the file."""
    while start + 8 <= end:
        file.seek(start)
        length, name = struct.unpack(">L4s", file.read(8))
        content = start + 8
        if length == 1:
            wide = file.read(8)
            if len(wide) < 8:
                raise NotAnMp4("a box is cut short")
            length = int.from_bytes(wide, "big")
            content += 8
        elif length == 0:
            length = end - start
        if length < content - start or start + length > end:
            raise NotAnMp4("a box reaches past the end of what holds it")
        yield name, content, start + length
        start += length


def _read_index(file: BinaryIO, start: int, end: int, tracks: list[_Track], depth: int = 0) -> bool:
    """Collect the tracks below `moov`; True where a metadata item was met."""
    has_metadata = False
    if depth > _DEEPEST:
        raise NotAnMp4("the boxes nest too deep")
    for name, inner, inner_end in _boxes(file, start, end):
        if name == b"trak":
            tracks.append(_Track())
        if name in _CONTAINERS:
            has_metadata |= _read_index(file, inner, inner_end, tracks, depth + 1)
        elif name == b"meta":
            has_metadata |= _has_items(file, inner, inner_end)
        elif tracks:
            _read_leaf(name, _content(file, inner, inner_end, name), tracks[-1])
    return has_metadata


def _has_items(file: BinaryIO, start: int, end: int) -> bool:
    """Say whether a `meta` box lists anything; FFmpeg leaves an empty list."""
    return any(
        inner_end > inner
        for name, inner, inner_end in _boxes(file, start + 4, end)
        if name == b"ilst"
    )


_LEAVES = {b"hdlr", b"mdhd", b"stsd", b"stts", b"stsz", b"stss"}


def _content(file: BinaryIO, start: int, end: int, name: bytes) -> bytes:
    if name not in _LEAVES:
        return b""
    if end - start > _LARGEST_TABLE:
        raise NotAnMp4("a table is absurdly long")
    file.seek(start)
    return file.read(end - start)


def _read_leaf(name: bytes, data: bytes, track: _Track) -> None:
    try:
        if name == b"ctts":
            track.is_reordered = True
        elif name == b"hdlr":
            track.handler = data[8:12]
        elif name == b"mdhd":
            (track.timescale,) = struct.unpack_from(">L", data, 20 if data[0] == 1 else 12)
        elif name == b"stsd":
            track.entry = data[8:]
        elif name == b"stts":
            track.durations = _pairs(data)
        elif name == b"stsz":
            (track.frames,) = struct.unpack_from(">L", data, 8)
        elif name == b"stss":
            (count,) = struct.unpack_from(">L", data, 4)
            track.keyframes = list(struct.unpack_from(f">{count}L", data, 8))
    except (struct.error, IndexError) as error:
        raise NotAnMp4("a table is cut short") from error


def _pairs(data: bytes) -> list[tuple[int, int]]:
    (count,) = struct.unpack_from(">L", data, 4)
    if count * 8 > len(data) - 8:
        raise NotAnMp4("a table is cut short")
    flat = struct.unpack_from(f">{2 * count}L", data, 8)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _described(track: _Track, *, is_faststart: bool, has_audio: bool, has_metadata: bool) -> Probe:
    entry = track.entry
    width, height = struct.unpack_from(">HH", entry, 8 + 24)
    boxes = dict(_entry_boxes(entry))
    profile, level, chroma, depth = _codec_record(boxes)
    colour: tuple[int, int, int, bool] | None = None
    if len(boxes.get(b"colr", b"")) >= 11 and boxes[b"colr"][:4] == b"nclx":
        primaries, transfer, matrix, flags = struct.unpack_from(">HHHB", boxes[b"colr"], 4)
        colour = (primaries, transfer, matrix, bool(flags & 0x80))
    keyframes = track.keyframes if track.keyframes is not None else range(1, track.frames + 1)
    edges = [*keyframes, track.frames + 1]
    return Probe(
        codec=entry[4:8].decode("latin-1"),
        profile=profile,
        level=level,
        chroma_format=chroma,
        bit_depth=depth,
        width=width,
        height=height,
        frames=track.frames,
        timescale=track.timescale,
        durations=tuple(track.durations),
        colour=colour,
        longest_keyframe_gap=max(
            (later - earlier for earlier, later in pairwise(edges)), default=0
        ),
        is_faststart=is_faststart,
        is_reordered=track.is_reordered,
        has_audio=has_audio,
        has_metadata=has_metadata,
    )


def _entry_boxes(entry: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the boxes inside the sample entry; what is malformed ends the list."""
    (size,) = struct.unpack_from(">L", entry)
    position, end = 8 + _VISUAL_ENTRY_BYTES, min(size, len(entry))
    while position + 8 <= end:
        length, name = struct.unpack_from(">L4s", entry, position)
        if length < 8 or position + length > end:
            return
        yield name, entry[position + 8 : position + length]
        position += length


def _codec_record(boxes: dict[bytes, bytes]) -> tuple[int, int, int, int]:
    """Return profile, level, chroma format and bit depth of the codec's record.

    References
    ----------
    ISO/IEC 14496-15 §5.3.3.1 (avcC), §8.3.3.1 (hvcC).
    """
    record = boxes.get(b"avcC", b"")
    if len(record) >= 7:
        return record[1], record[3], *_avc_format(record)
    record = boxes.get(b"hvcC", b"")
    if len(record) >= 19:
        return record[1] & 0x1F, record[12], record[16] & 3, 8 + (record[17] & 7)
    return 0, 0, 0, 0


def _avc_format(record: bytes) -> tuple[int, int]:
    """Return chroma format and bit depth; profiles below High have only one."""
    if record[1] not in (100, 110, 122, 144, 244):
        return 1, 8
    position = 5
    for mask in (0x1F, 0xFF):  # sequence, then picture parameter sets
        if position >= len(record):
            return 0, 0
        sets = record[position] & mask
        position += 1
        for _ in range(sets):
            position += 2 + int.from_bytes(record[position : position + 2], "big")
    if position + 2 > len(record):
        return 0, 0  # not said; FFmpeg always does
    return record[position] & 3, 8 + (record[position + 1] & 7)
