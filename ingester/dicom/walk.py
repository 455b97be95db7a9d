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

from ingester.dicom.cursor import Cursor, Frame
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
    IMPLICIT_LITTLE,
    INLINE,
    Bulk,
    Element,
    Encoding,
    Sequence,
    Value,
    incomplete,
    malformed,
    too_large,
)
from ingester.errors import Reject
from ingester.model import Reason

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

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


def _is_sequence(tag: int) -> bool:
    """Tell whether the dictionary knows the tag as a sequence."""
    return not tag >> 16 & 1 and entry(tag).vr == b"SQ"


class Walker(Cursor):
    """Walks one data set; `elements` and `notes` hold what was found so far."""

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

    def _read_elements(self, frame: Frame) -> None:
        # The hot loop: plain elements, until the data set ends or a sequence opens.
        buffer, base, edge = self._buffer, self._base, self._edge
        pos, end = self._pos, frame.end
        unpack, unpack_long, is_explicit = frame.heads
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
                if room < 0:
                    raise too_large()
                if (
                    length > INLINE
                    and (vr in BINARY or tag in LOOK_UP_TABLES)
                    and not (vr == b"UN" and self._may_be_plain(tag, length))
                ):
                    value = Bulk(start, length)
                    budget -= header
                else:
                    budget -= header + length
                    if budget < 0:
                        raise too_large()
                    if stop > edge:
                        buffer, base, edge = self._window(pos, header + length)
                        if stop > edge:
                            raise self._cut(frame, tag)
                    value = buffer[start - base : stop - base]
                if length & 1:
                    self.notes.add("odd-length")
                append((tag, vr, value))
                frame.last = last = tag
                pos = stop
            else:
                self._close_at_end(frame)
        finally:
            self._pos, self._room, self._budget = pos, room, budget

    # -- what is not a plain element ------------------------------------------------

    def _unusual(
        self, frame: Frame, tag: int, vr: bytes, header: int, length: int
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
        if tag == 0 and not length and frame.last > 0:
            raise malformed("Bytes that are not DICOM follow the last entry of the file.")
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

    def _strange_vr(self, frame: Frame, tag: int, vr: bytes, length: int) -> tuple[bytes, int, int]:
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

    def _delimiter(self, frame: Frame, tag: int) -> tuple[bytes, int, int] | None:
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

    def _open_undefined(self, frame: Frame, tag: int, vr: bytes, header: int) -> None:
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
        frame: Frame,
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
        sequence = Sequence(encoding, span=None if length is None else (start, length))
        frame.elements.append((tag, b"SQ" if vr == b"UN" else vr, sequence))
        frame.last = tag
        self._stack.append(Frame(encoding, end, is_open=length is None, sequence=sequence))
        self._pos = start

    def _next_item(self, frame: Frame, sequence: Sequence) -> None:
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
            if not length:
                sequence.items.append([])
                return
            is_open = length == UNDEFINED
            end = frame.end if is_open else pos + 8 + length
            if end > frame.end:
                raise self._cut_or_overrun(frame)
            item = Frame(sequence.encoding, end, is_open=is_open)
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

    def _read_fragments(self, frame: Frame, tag: int, vr: bytes, start: int) -> None:
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

    def _may_be_plain(self, tag: int, length: int) -> bool:
        """Tell whether a value without a representation is to be read all the same.

        The dictionary may know it as text or numbers; of private ones, only once the
        block's creator is known.  There is room for some of them in a header.
        """
        if length > self._unknown:
            return False
        if not tag >> 16 & 1 and (entry(tag).vr in BINARY or _is_sequence(tag)):
            return False
        self._unknown -= length
        return True

    def _close_at_end(self, frame: Frame) -> None:
        if frame.is_open:
            raise self._cut_or_overrun(frame)
        self._stack.pop()

    def _read_otherwise(self, frame: Frame) -> bool:
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

    def _leads_on(self, frame: Frame, tag: int, stop: int) -> bool:
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

    def _accept(self, frame: Frame, tag: int, vr: bytes, start: int, length: int) -> bool:
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
