"""Long values compared piece by piece, so that their size costs time and no memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ingester.compare.values import Writing, common_vr, is_equal, is_padded, is_text, swapped
from ingester.dicom.elements import Bulk
from ingester.dicom.sources import Source, chunks

#: How much of a value is in memory (bytes); a multiple of every word.
_PIECE = 256 * 1024

#: Text that one file calls UN is bulk there; what is longer is no text (bytes).
_LONGEST_TEXT = 16 * 2**20


class Held(NamedTuple):
    """A value where it lies: in memory, or somewhere in *source*."""

    content: bytes | Bulk
    writing: Writing
    source: Source

    @property
    def length(self) -> int:
        """Return how many bytes it has."""
        return self.content.length if isinstance(self.content, Bulk) else len(self.content)

    @property
    def is_encapsulated(self) -> bool:
        """Return whether it lies in fragments (PS3.5 §A.4)."""
        return isinstance(self.content, Bulk) and self.content.spans is not None

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes; fragments as one stream, for their borders say nothing."""
        if not isinstance(self.content, Bulk):
            yield self.content
            return
        spans = self.content.spans
        whole = ((self.content.offset, self.content.length),)
        for offset, length in whole if spans is None else spans[1:]:  # the first: offset table
            yield from chunks(self.source, offset, offset + length)


def is_equal_bulk(one: Held, other: Held) -> bool:
    """Tell whether two values say the same, one of which at least is long."""
    if one.is_encapsulated != other.is_encapsulated:
        return False
    left, right = _little_endian(one), _little_endian(other)
    piece = other_piece = b""
    while piece == other_piece:
        piece, other_piece = next(left, b""), next(right, b"")
        if not piece and not other_piece:
            return True
    if is_padded(piece, other_piece) and not next(left, b"") and not next(right, b""):
        return True
    vr = common_vr(one.writing, other.writing)
    if not is_text(vr) or max(one.length, other.length) > _LONGEST_TEXT:
        return False
    return is_equal(b"".join(one.pieces()), one.writing, b"".join(other.pieces()), other.writing)


def _little_endian(value: Held) -> Iterator[bytes]:
    # Yields pieces of the same size whatever the source, the last one shorter.
    rest = bytearray()
    for piece in value.pieces():
        rest += piece
        while len(rest) >= _PIECE:
            yield swapped(memoryview(rest)[:_PIECE], value.writing.word)
            del rest[:_PIECE]
    if rest:
        yield swapped(bytes(rest), value.writing.word)
