"""Which bytes of encapsulated Pixel Data belong to which frame.

The item headers are walked once, by their offsets only; then fragments are grouped
into frames by the Extended Offset Table, the Basic Offset Table, their count, or,
where none of these agrees with what is there, by looking for where codestreams begin
(PS3.5 §A.4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from ingester.derivatives.values import value

_ITEM = b"\xfe\xff\x00\xe0"
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cj", b"\xff\x0a", b"\0\0\0\x0cJ")
_MOST_FRAGMENTS = 10_000_000


class Stream(Protocol):
    """What is needed of a file."""

    size: int

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move the position."""
        ...

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to *size* bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Fragment:
    """Where a fragment's value lies, and where its item begins."""

    item: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """The fragments of each frame, and whether the data ends too early."""

    frames: tuple[tuple[Fragment, ...], ...]
    is_cut_short: bool

    def read(self, stream: Stream, index: int) -> bytes:
        """Return the bytes of one frame."""
        parts = []
        for fragment in self.frames[index]:
            stream.seek(fragment.offset)
            parts.append(stream.read(fragment.length))
        return b"".join(parts)


def index_frames(
    stream: Stream, offset: int, header: Dataset, declared: int, *, is_one_to_one: bool
) -> Encapsulated:
    """Walk the items from *offset* and group them into frames.

    *declared* is Number of Frames, 0 where it is not known; *is_one_to_one* says that
    the syntax has exactly one fragment per frame (RLE).
    """
    fragments, is_cut_short = _walk(stream, offset)
    if not fragments:
        return Encapsulated((), is_cut_short)
    table, fragments = fragments[0], fragments[1:]
    if not fragments:
        # No offset table item at all: the only item is the frame.
        return Encapsulated(((table,),) if table.length else (), is_cut_short)
    first = fragments[0].item
    starts = _extended_offsets(header) or _basic_offsets(stream, table)
    groups = _group(fragments, [first + each for each in starts])
    if groups is not None and (not declared or len(groups) >= declared or is_cut_short):
        return Encapsulated(groups, is_cut_short)
    if is_one_to_one or len(fragments) == declared:
        return Encapsulated(tuple((each,) for each in fragments), is_cut_short)
    if declared == 1:
        return Encapsulated((tuple(fragments),), is_cut_short)
    return Encapsulated(_by_codestream(stream, fragments), is_cut_short)


def _walk(stream: Stream, offset: int) -> tuple[list[Fragment], bool]:
    fragments: list[Fragment] = []
    while len(fragments) < _MOST_FRAGMENTS:
        stream.seek(offset)
        head = stream.read(8)
        if len(head) < 8:  # nothing after the last item: only the delimiter is missing
            return fragments, bool(head)
        if head[:4] != _ITEM:
            return fragments, False
        length = struct.unpack_from("<L", head, 4)[0]
        value_at = offset + 8
        here = max(0, min(length, stream.size - value_at))
        if here or length == 0:
            fragments.append(Fragment(offset, value_at, here))
        if here < length:
            return fragments, True
        offset = value_at + length
    return fragments, True


def _basic_offsets(stream: Stream, table: Fragment) -> list[int]:
    stream.seek(table.offset)
    data = stream.read(table.length - table.length % 4)
    return list(struct.unpack(f"<{len(data) // 4}L", data))


def _extended_offsets(header: Dataset) -> list[int]:
    data = value(header, "ExtendedOffsetTable")
    if not isinstance(data, bytes) or len(data) % 8:
        return []
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def _group(fragments: list[Fragment], starts: list[int]) -> tuple[tuple[Fragment, ...], ...] | None:
    """Group by the offsets of frames, or None where they do not fit the items."""
    if not starts or starts[0] != fragments[0].item or starts != sorted(set(starts)):
        return None
    known = {fragment.item for fragment in fragments}
    if not known.issuperset(starts):
        return None
    wanted = set(starts)
    groups: list[list[Fragment]] = []
    for fragment in fragments:
        if fragment.item in wanted:
            groups.append([])
        groups[-1].append(fragment)
    return tuple(tuple(group) for group in groups)


def _by_codestream(stream: Stream, fragments: list[Fragment]) -> tuple[tuple[Fragment, ...], ...]:
    """Begin a frame with each fragment that begins like a codestream."""
    groups: list[list[Fragment]] = []
    for fragment in fragments:
        stream.seek(fragment.offset)
        if not groups or stream.read(8).startswith(_STARTS):
            groups.append([])
        groups[-1].append(fragment)
    return tuple(tuple(group) for group in groups)
