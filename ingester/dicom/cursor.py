"""Where a walk stands: its window on the bytes, the data sets it is inside of, its limits.

The walk itself (`ingester.dicom.walk`) decides what comes next; here is what it asks:
for bytes, for the meaning of an end that comes too soon, for a way around damage.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from ingester.dicom.dictionary import (
    PIXEL_DATA,
    entry,
)
from ingester.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    INLINE,
    Bulk,
    Element,
    Encoding,
    Limits,
    Sequence,
    Value,
    incomplete,
    malformed,
    too_large,
)
from ingester.dicom.sources import Source, chunks
from ingester.errors import Reject

#: Fragments are cheap, so there may be more of them than of elements.
_FRAGMENTS_PER_ELEMENT = 4

_Unpack = Callable[[bytes, int], tuple[Any, ...]]


def _heads(encoding: Encoding) -> tuple[_Unpack, _Unpack, bool]:
    # How to read the fixed part of an element, and a long length.
    order = encoding.order
    element = Struct(order + ("HH2sH" if encoding.is_explicit else "HHL"))
    return element.unpack_from, Struct(order + "L").unpack_from, encoding.is_explicit


_HEADS = {
    encoding: _heads(encoding)
    for encoding in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, IMPLICIT_BIG)
}
_ITEM_HEADS = {order: Struct(order + "HHL").unpack_from for order in "<>"}


class Frame:
    """A data set (the root, or an item) or a sequence that the walk is inside of."""

    __slots__ = (
        "elements",
        "encoding",
        "end",
        "guess",
        "heads",
        "is_open",
        "is_root",
        "item_head",
        "last",
        "sequence",
    )

    def __init__(
        self,
        encoding: Encoding,
        end: int,
        *,
        is_open: bool,
        sequence: Sequence | None = None,
        is_root: bool = False,
    ) -> None:
        self.encoding = encoding
        self.heads = _HEADS[encoding]
        self.item_head = _ITEM_HEADS[encoding.order]
        self.end = end  # where it ends at the latest
        self.is_open = is_open  # of undefined length: a delimiter ends it
        self.sequence = sequence
        self.is_root = is_root
        self.elements: list[Element] = []
        self.last = -1  # the tag before
        self.guess = (0, 0)  # (start, length) of what merely looks like a sequence


#: So large a share of the header's room is for long values that may yet turn out plain.
_UNKNOWN_SHARE = 16


class Cursor:
    """The state of a walk; `elements` and `notes` hold what was found so far."""

    def __init__(
        self,
        source: Source,
        start: int,
        encoding: Encoding,
        limits: Limits = Limits(),  # noqa: B008 (immutable)
    ) -> None:
        self.notes: set[str] = set()
        self.size = source.size
        self._source = source
        self._limits = limits
        self._room = limits.elements
        self._budget = limits.header_bytes
        self._unknown = limits.header_bytes // _UNKNOWN_SHARE
        self._fragments = limits.elements * _FRAGMENTS_PER_ELEMENT
        self._pos = start
        self._buffer, self._base, self._edge = b"", start, start
        root = Frame(encoding, self.size, is_open=False, is_root=True)
        self.elements = root.elements
        self._stack = [root]
        self._depth = 0
        self._not_zero = -1

    def _window(self, pos: int, need: int) -> tuple[bytes, int, int]:
        # Returns (buffer, its position, the end of what is really there).
        buffer, base = self._source.at(pos, need)
        edge = base + len(buffer)
        if edge - pos < 12:
            # The last short element: a few zeros more, so that a long length can be read.
            buffer, base = buffer[max(pos - base, 0) :] + bytes(12), pos
        self._buffer, self._base, self._edge = buffer, base, edge
        return buffer, base, edge

    def _count(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise too_large()

    def _only_zeros(self, pos: int) -> bool:
        if pos <= self._not_zero:
            return False
        for piece in chunks(self._source, pos, self.size):
            rest = bytes(piece).lstrip(b"\0")
            if rest:
                # Remembered: nobody makes us look at the same zeros twice.
                self._not_zero = pos + len(piece) - len(rest)
                return False
            pos += len(piece)
        return True

    def _bytes_or_bulk(self, start: int, length: int) -> Value:
        if length > INLINE:
            return Bulk(start, length)
        window, base = self._source.at(start, length)
        return window[start - base : start - base + length]

    def _finish_with_stub(self, frame: Frame, pos: int) -> None:
        # Fewer bytes than the shortest element has are left.
        if not frame.is_root:
            raise self._cut_or_overrun(frame)
        window, base = self._source.at(pos, 8)
        rest = window[pos - base : frame.end - base]
        if not rest.strip(b"\0"):
            self.notes.add("trailing-zeros")
            self._stack.pop()
            return
        group = int.from_bytes(rest[:2], frame.encoding.byte_order)
        if group >= frame.last >> 16 if len(rest) > 1 else frame.last < PIXEL_DATA:
            raise incomplete("The file was cut short: it ends in the middle of an entry.")
        raise malformed("Bytes that are not DICOM follow the last entry of the file.")

    def _cut(self, frame: Frame, tag: int) -> Reject:
        # A value reaches beyond its frame: cut short, or bytes that are no element?
        is_plausible = tag > frame.last and tag >> 16 != 0xFFFF
        if is_plausible and (tag >> 16 & 1 or entry(tag).is_known):
            return self._cut_or_overrun(frame)
        return malformed("Bytes that are not DICOM follow the last entry of the file.")

    def _cut_or_overrun(self, frame: Frame) -> Reject:
        if frame.end < self.size:
            return malformed(
                "The header is damaged: an entry is longer than the list that holds it."
            )
        return incomplete("The file was cut short: it ends before its last entry does.")

    def _step_over(self) -> bool:
        # What is broken inside a sequence of known length hides nothing behind it:
        # go on after the innermost one.  What only seemed to be a sequence is bytes.
        guesses = [at for at, frame in enumerate(self._stack) if frame.guess[1]]
        while len(self._stack) > 1:
            frame = self._stack.pop()
            if frame.sequence is not None:
                self._depth -= 1
            if guesses and len(self._stack) == guesses[-1]:
                start, length = frame.guess
                self._pos = start + length
                parent = self._stack[-1].elements
                parent[-1] = (parent[-1][0], b"UN", self._bytes_or_bulk(start, length))
                return True
            if not guesses and not frame.is_open:
                self.notes.add("unreadable-sequence")
                self._pos = frame.end
                return True
        return False
