"""One data set, element by element to its last byte, without recursion.

The walk proves that an object is whole: every length lies inside the file and the
last element ends where the file ends.  It believes nothing, allocates nothing that a
length merely claims, keeps small values, and leaves bulk (pixel data, look-up tables,
long binary values) where it is, as an offset and a length.

    walker = Walker(source, start, EXPLICIT_LITTLE, limits)
    elements = walker.walk()       # or Reject: incomplete, malformed, too-deep, too-large
    walker.notes                   # slugs of oddities

An element is a tuple (tag, VR, value); a value is `bytes`, a `Bulk` or a `Sequence`.

References
----------
PS3.5 §7.1 (elements), §7.5 (sequences), §A.4 (encapsulation), §6.2.2 (UN).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from ingester.dicom.dictionary import (
    AMBIGUOUS,
    BINARY,
    LONG,
    LOOK_UP_TABLES,
    PIXEL_DATA,
    SHORT,
    entry,
    implicit_vr,
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
from ingester.model import Reason

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

#: Fragments are cheap, so there may be more of them than of elements.
_FRAGMENTS_PER_ELEMENT = 4

_DELIMITERS = 0xFFFE0000
_KNOWN = SHORT | LONG
#: Younger than many writers, which give them the short length of the VRs of 1993.
_RECENT = LONG - {b"OB", b"OW", b"SQ", b"UN"}
_PLAIN = (_KNOWN | AMBIGUOUS) - {b"SQ", b"UN"}
_FRAGMENTED = frozenset((b"OB", b"OW", b"UN", b"OB or OW"))
_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0")
#: What broken writers put where they know no VR; the length that follows has 16 bits.
_NO_VR = frozenset((b"??", b"--", b"  ", b"\0\0"))


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


def _is_sequence(tag: int) -> bool:
    """Tell whether the dictionary knows the tag as a sequence."""
    return not tag >> 16 & 1 and entry(tag).vr == b"SQ"


class _Frame:
    # A data set (the root, or an item) or a sequence that the walk is inside of.
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


class Walker:
    """Walks one data set; `elements` and `notes` hold what was found so far."""

    def __init__(
        self,
        source: Source,
        start: int,
        encoding: Encoding,
        limits: Limits = Limits(),  # noqa: B008 (immutable)
        *,
        end: int | None = None,
        is_kept: bool = True,
    ) -> None:
        self.notes: set[str] = set()
        self.size = source.size if end is None else end
        self._source = source
        self._limits = limits
        self._is_kept = is_kept
        self._room = limits.elements
        self._budget = limits.header_bytes
        self._fragments = limits.elements * _FRAGMENTS_PER_ELEMENT
        self._pos = start
        self._buffer, self._base, self._edge = b"", start, start
        root = _Frame(encoding, self.size, is_open=False, is_root=True)
        self.elements = root.elements
        self._stack = [root]
        self._depth = 0

    def walk(self) -> list[Element]:
        """Walk to the last byte and return the elements of the data set.

        Raises
        ------
        Reject
            `incomplete`, `malformed`, `too-deep` or `too-large`.
        """
        while self._stack:
            frame = self._stack[-1]
            try:
                if frame.sequence is None:
                    self._read_elements(frame)
                else:
                    self._next_item(frame, frame.sequence)
            except Reject as reject:
                reason = reject.refusal.reason
                if reason not in (Reason.MALFORMED, Reason.INCOMPLETE):
                    raise
                if self._read_otherwise(frame):
                    continue
                if reason is Reason.INCOMPLETE or not self._step_over():
                    raise
        return self.elements

    def _read_elements(self, frame: _Frame) -> None:
        # The hot loop: plain elements, until the data set ends or a sequence opens.
        buffer, base, edge = self._buffer, self._base, self._edge
        pos, end = self._pos, frame.end
        unpack, unpack_long, is_explicit, is_kept = (*frame.heads, self._is_kept)
        append, last, room, budget = frame.elements.append, frame.last, self._room, self._budget
        value: Value
        try:
            while pos < end:
                if pos + 12 > edge:
                    if end - pos < 8:
                        self._finish_with_stub(frame, pos)
                        pos = end
                        break
                    buffer, base, edge = self._window(pos, 12)
                header = 8
                if is_explicit:
                    group, number, vr, length = unpack(buffer, pos - base)
                    if vr in LONG:
                        (length,) = unpack_long(buffer, pos - base + 8)
                        header = 12
                else:
                    group, number, length = unpack(buffer, pos - base)
                    vr = implicit_vr(group << 16 | number)
                tag = group << 16 | number
                if (
                    not last < tag < _DELIMITERS
                    or vr not in _PLAIN
                    or length == UNDEFINED
                    or not tag
                ):
                    self._pos = pos
                    step = self._unusual(frame, tag, vr, header, length)
                    if step is None:
                        pos = self._pos
                        break
                    vr, header, length = step
                    if not vr:
                        pos = self._pos
                        continue
                start = pos + header
                stop = start + length
                room -= 1
                if stop > end:
                    raise self._cut(frame, tag)
                if length > INLINE and (vr in BINARY or tag in LOOK_UP_TABLES):
                    value = Bulk(start, length)
                    budget -= header
                else:
                    budget -= header + length
                    if room < 0 or budget < 0:
                        raise too_large()
                    if stop > edge:
                        buffer, base, edge = self._window(pos, header + length)
                        if stop > edge:
                            raise self._cut(frame, tag)
                    value = buffer[start - base : stop - base] if is_kept else b""
                if length & 1:
                    self.notes.add("odd-length")
                append((tag, vr, value))
                frame.last = last = tag
                pos = stop
            else:
                self._close_at_end(frame)
        finally:
            self._pos, self._room, self._budget = pos, room, budget

    def _window(self, pos: int, need: int) -> tuple[bytes, int, int]:
        # Returns (buffer, its position, the end of what is really there).
        buffer, base = self._source.at(pos, need)
        edge = base + len(buffer)
        if edge - pos < 12:
            # The last short element: a few zeros more, so that a long length can be read.
            buffer, base = buffer[max(pos - base, 0) :] + bytes(12), pos
        self._buffer, self._base, self._edge = buffer, base, edge
        return buffer, base, edge

    # -- what is not a plain element ------------------------------------------------

    def _unusual(
        self, frame: _Frame, tag: int, vr: bytes, header: int, length: int
    ) -> tuple[bytes, int, int] | None:
        # Returns (VR, header, length) of an element to read as a plain one; an empty
        # VR to go on at self._pos; None where another frame is on top now.
        if tag >= _DELIMITERS and tag >> 16 == 0xFFFE:
            return self._delimiter(frame, tag)
        if tag == 0 and frame.is_root and self._only_zeros(self._pos):
            self.notes.add("trailing-zeros")
            self._pos = frame.end
            self._stack.pop()
            return None
        if frame.encoding.is_explicit and vr not in _KNOWN:
            vr, header, length = self._strange_vr(frame, tag, vr, length)
        if tag < frame.last:
            self.notes.add("descending-tags")
        elif tag >> 16 == 0xFFFF:
            raise self._cut(frame, tag)
        if self._pos + header > frame.end:
            raise self._cut(frame, tag)
        if length == UNDEFINED:
            self._open_undefined(frame, tag, vr, header)
            return None
        if vr == b"SQ":
            self._open(frame, tag, vr, header, length, frame.encoding)
            return None
        if vr == b"UN" and self._may_be_sequence(tag, header, length):
            # PS3.5 §6.2.2: what is written as UN is implicit little endian inside.
            self._open(frame, tag, vr, header, length, IMPLICIT_LITTLE)
            self._stack[-1].guess = self._pos, length
            return None
        return vr, header, length

    def _may_be_sequence(self, tag: int, header: int, length: int) -> bool:
        if length < 8 or not (tag & 0x10000 or _is_sequence(tag)):
            return False
        start = self._pos + header
        buffer, base, edge = self._window(self._pos, header + 8)
        return start + 8 <= edge and buffer[start - base : start - base + 4] in _ITEM_TAGS

    def _strange_vr(
        self, frame: _Frame, tag: int, vr: bytes, length: int
    ) -> tuple[bytes, int, int]:
        if vr in _NO_VR:
            self.notes.add("unknown-vr")
            return b"UN", 8, length
        if not _LETTERS.issuperset(vr):
            raise malformed("The header is damaged: one of its entries is not written as DICOM.")
        self.notes.add("unknown-vr")
        if length:  # two bytes that a long form would have left zero
            return b"UN", 8, length
        buffer, base, edge = self._window(self._pos, 12)
        if edge < self._pos + 12:
            raise self._cut(frame, tag)
        (long,) = frame.heads[1](buffer, self._pos - base + 8)
        return b"UN", 12, long

    def _delimiter(self, frame: _Frame, tag: int) -> tuple[bytes, int, int] | None:
        if not frame.is_root and frame.is_open:
            if tag == ITEM_END:
                self._pos += 8
            elif tag in (ITEM, SEQUENCE_END):
                self.notes.add("missing-delimiter")
            else:
                raise malformed("The header is damaged: a list inside it has no proper end.")
            self._stack.pop()
            return None
        buffer, base, _ = self._window(self._pos, 12)
        length = frame.item_head(buffer, self._pos - base)[2]
        if tag == ITEM and self._pos + 8 + length <= frame.end:
            self.notes.add("stray-item")
            self._count()
            self._pos += 8 + length
            return b"", 8, 0
        if tag == ITEM or tag not in (ITEM_END, SEQUENCE_END) or length:
            raise malformed("The header is damaged: the end of a list stands where there is none.")
        self.notes.add("stray-delimiter")
        self._count()
        self._pos += 8
        return b"", 8, 0

    def _open_undefined(self, frame: _Frame, tag: int, vr: bytes, header: int) -> None:
        if vr == b"SQ" or (vr == b"UN" and tag != PIXEL_DATA):
            encoding = (
                frame.encoding if vr == b"SQ" or not frame.encoding.is_explicit else IMPLICIT_LITTLE
            )
            self._open(frame, tag, vr, header, None, encoding)
        elif vr in _FRAGMENTED:
            self._read_fragments(frame, tag, vr, self._pos + header)
        else:
            raise malformed("The header is damaged: the length of an entry is missing.")

    def _open(
        self,
        frame: _Frame,
        tag: int,
        vr: bytes,
        header: int,
        length: int | None,
        encoding: Encoding,
    ) -> None:
        start = self._pos + header
        end = frame.end if length is None else start + length
        if end > frame.end:
            raise self._cut(frame, tag)
        self._count()
        self._depth += 1
        if self._depth > self._limits.nesting:
            raise Reject(
                Reason.TOO_DEEP, "The header is nested deeper than the configured limit allows."
            )
        sequence = Sequence(encoding)
        frame.elements.append((tag, b"SQ" if vr == b"UN" else vr, sequence))
        frame.last = tag
        self._stack.append(_Frame(encoding, end, is_open=length is None, sequence=sequence))
        self._pos = start

    def _next_item(self, frame: _Frame, sequence: Sequence) -> None:
        pos = self._pos
        if pos + 8 > frame.end:
            if pos == frame.end and not frame.is_open:
                self._leave_sequence()
                return
            raise self._cut_or_overrun(frame)
        buffer, base, _ = self._window(pos, 12)
        group, number, length = frame.item_head(buffer, pos - base)
        tag = group << 16 | number
        self._pos = pos + 8
        if tag == ITEM:
            self._count()
            is_open = length == UNDEFINED
            end = frame.end if is_open else pos + 8 + length
            if end > frame.end:
                raise self._cut_or_overrun(frame)
            item = _Frame(sequence.encoding, end, is_open=is_open)
            sequence.items.append(item.elements)
            self._stack.append(item)
        elif tag == SEQUENCE_END and frame.is_open:
            self._leave_sequence()
        elif tag in (SEQUENCE_END, ITEM_END) and not length:
            self.notes.add("stray-delimiter")
            self._count()
        else:
            raise malformed(
                "The header is damaged: a list inside it holds something else than items."
            )

    def _leave_sequence(self) -> None:
        self._stack.pop()
        self._depth -= 1

    def _read_fragments(self, frame: _Frame, tag: int, vr: bytes, start: int) -> None:
        spans: list[tuple[int, int]] = []
        pos, end, unpack = start, frame.end, frame.item_head
        buffer, base, edge = self._buffer, self._base, self._edge
        while True:
            if pos + 12 > edge:
                if pos + 8 > end:
                    raise self._cut_or_overrun(frame)
                buffer, base, edge = self._window(pos, 12)
            group, number, length = unpack(buffer, pos - base)
            if group != 0xFFFE or number not in (0xE000, 0xE0DD):
                if frame.is_root and self._only_zeros(pos):
                    raise incomplete("The file was cut short: only zeros follow the image.")
                raise malformed(
                    "The compressed image is damaged: its parts do not follow one another."
                )
            pos += 8
            if number == 0xE0DD:
                break
            if pos + length > end:
                raise self._cut_or_overrun(frame)
            spans.append((pos, length))
            pos += length
            self._fragments -= 1
            if self._fragments < 0:
                raise too_large()
        self._count()
        total = sum(length for _, length in spans[1:])
        frame.elements.append((tag, vr, Bulk(start, total, tuple(spans))))
        frame.last = tag
        self._pos = pos

    # -- ends, good and bad ----------------------------------------------------------

    def _close_at_end(self, frame: _Frame) -> None:
        if frame.is_open:
            raise self._cut_or_overrun(frame)
        self._stack.pop()

    def _finish_with_stub(self, frame: _Frame, pos: int) -> None:
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
            raise incomplete(
                "The file was cut short: it ends in the middle of an entry. Send or copy it again."
            )
        raise malformed("Bytes that are not DICOM follow the last entry of the file.")

    def _cut(self, frame: _Frame, tag: int) -> Reject:
        # A value reaches beyond its frame: cut short, or bytes that are no element?
        is_plausible = tag > frame.last and tag >> 16 != 0xFFFF
        if is_plausible and (tag >> 16 & 1 or entry(tag).is_known):
            return self._cut_or_overrun(frame)
        return malformed("Bytes that are not DICOM follow the last entry of the file.")

    def _cut_or_overrun(self, frame: _Frame) -> Reject:
        if frame.end < self.size:
            return malformed(
                "The header is damaged: an entry is longer than the list that holds it."
            )
        return incomplete(
            "The file was cut short: it ends before its last entry does. Send or copy it again."
        )

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

    def _bytes_or_bulk(self, start: int, length: int) -> Value:
        if length > INLINE:
            return Bulk(start, length)
        window, base = self._source.at(start, length)
        return window[start - base : start - base + length]

    def _read_otherwise(self, frame: _Frame) -> bool:
        # One element may be written in a form that its VR does not have: with the
        # other width of length, or as if the encoding were implicit.  Believed where
        # that leads to the next element, or to the very end.
        if frame.sequence is not None or not frame.encoding.is_explicit:
            return False
        pos = self._pos
        buffer, base, edge = self._window(pos, 12)
        if pos + 12 > edge:
            return False
        group, number, vr, short = frame.heads[0](buffer, pos - base)
        (implicit,) = frame.heads[1](buffer, pos - base + 4)
        (before,) = frame.heads[1](buffer, pos - base)
        tag = group << 16 | number
        is_last = pos + 8 == frame.end
        if vr in _RECENT and not is_last and self._leads_on(frame, tag, pos + 8 + short):
            return self._accept(frame, tag, vr, pos + 8, short)
        if vr not in _KNOWN:
            for length in (implicit, short):
                if tag > frame.last and self._leads_on(frame, tag, pos + 8 + length):
                    return self._accept(frame, tag, b"UN", pos + 8, length)
        if frame.elements and frame.elements[-1][2] == b"" and frame.elements[-1][1] in SHORT:
            last, vr, _ = frame.elements[-1]
            if before and self._leads_on(frame, last, pos + 4 + before):
                frame.elements.pop()
                return self._accept(frame, last, vr, pos + 4, before)
        return False

    def _leads_on(self, frame: _Frame, tag: int, stop: int) -> bool:
        if stop >= frame.end:
            return stop == frame.end
        buffer, base, edge = self._window(stop, 12)
        if stop + 8 > min(edge, frame.end):
            return False
        group, number, vr, _ = frame.heads[0](buffer, stop - base)
        following = group << 16 | number
        if group == 0xFFFE:
            return frame.is_open
        return following > tag and vr in _KNOWN

    def _accept(self, frame: _Frame, tag: int, vr: bytes, start: int, length: int) -> bool:
        self.notes.add("form-of-length")
        self._count()
        value = self._bytes_or_bulk(start, length)
        if vr not in BINARY and length > INLINE:
            self._budget -= length
            if self._budget < 0:
                raise too_large()
            buffer, base, _ = self._window(start, length)
            value = buffer[start - base : start - base + length]
        frame.elements.append((tag, vr, value))
        frame.last = tag
        self._pos = start + length
        # The windows went ahead: start again here.
        self._buffer, self._base, self._edge = b"", self._pos, self._pos
        return True

    def _only_zeros(self, pos: int) -> bool:
        return not any(bytes(piece).strip(b"\0") for piece in chunks(self._source, pos, self.size))

    def _count(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise too_large()
