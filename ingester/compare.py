"""Two versions of one SOP Instance UID, compared value by value.

The same study comes from a CD in explicit and from the network in implicit encoding:
that is not a thousand conflicts.  What is compared is what the elements say, with
encoding, group lengths, padding and File Meta aside.

    compare(CompareRequest(new_path, old_path))  →  Verdict
        same values                              duplicate
        same header, pixels in another syntax    variant
        anything else                            conflict, naming the keywords
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ingester.dicom import part10
from ingester.dicom.attributes import specific_character_set
from ingester.dicom.dictionary import AMBIGUOUS, PIXEL_DATA, entry
from ingester.dicom.elements import Bulk, Element, Sequence, Value
from ingester.dicom.part10 import Parsed
from ingester.dicom.sources import File, Source, chunks
from ingester.dicom.values import text_of
from ingester.model import Outcome, Verdict
from ingester.prepare import Limits, reading_settings

_PIXELS = (PIXEL_DATA, 0x7FE00008, 0x7FE00009)
#: (FFFC,FFFC) and the offset tables say nothing about the object.
_ASIDE = frozenset((0xFFFCFFFC, 0x7FE00001, 0x7FE00002))

#: Attributes that describe how pixels are written, where the syntaxes differ
#: (PS3.5 §8.2, PS3.3 §C.7.6.3.1.2): a lossless re-encoding rightly changes them.
_OF_THE_ENCODING = frozenset((0x00280004, 0x00280006, *_PIXELS))

_CHARACTER_SET = 0x00080005
_MOST_NAMES = 64
_NATIVE = frozenset(
    (
        part10.IMPLICIT_VR_LITTLE_ENDIAN,
        part10.EXPLICIT_VR_LITTLE_ENDIAN,
        part10.EXPLICIT_VR_BIG_ENDIAN,
        "1.2.840.10008.1.2.1.99",
    )
)

_WORD = {
    b"US": 2,
    b"SS": 2,
    b"OW": 2,
    b"UL": 4,
    b"SL": 4,
    b"FL": 4,
    b"OF": 4,
    b"OL": 4,
    b"AT": 2,
    b"FD": 8,
    b"OD": 8,
    b"SV": 8,
    b"UV": 8,
    b"OV": 8,
}
_NUMBER_TEXT = frozenset((b"DS", b"IS"))
_BINARY = frozenset((b"OB", b"UN", *_WORD))
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Which files to compare; the new one is the one that just arrived."""

    new_path: str
    old_path: str
    limits: Limits = field(default_factory=Limits)
    character_set: str = ""  # stands in where a file names none, as in `prepare`


def compare(request: CompareRequest) -> Verdict:
    """Say whether the new file is the old one again, a variant of it, or in conflict.

    Raises
    ------
    OSError
        Where one of the files cannot be read.
    Reject
        Where one of them cannot be walked (the stored one may be damaged).
    """
    with (
        closing(_Version(request.new_path, request)) as new,
        closing(_Version(request.old_path, request)) as old,
    ):
        return _verdict(new, old)


class _Version:
    # An open file with its elements.

    def __init__(self, path: str, request: CompareRequest) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self.descriptor = os.open(Path(path), flags)
        try:
            self.parsed: Parsed = part10.read(
                File(self.descriptor, os.fstat(self.descriptor).st_size),
                reading_settings(request.limits),
            )
        except BaseException:
            os.close(self.descriptor)
            raise
        self.character_set = (
            specific_character_set(self.parsed.elements, set()) or request.character_set
        )

    def close(self) -> None:
        os.close(self.descriptor)

    @property
    def is_encapsulated(self) -> bool:
        return any(
            tag == PIXEL_DATA and type(value) is Bulk and value.spans is not None
            for tag, _, value in self.parsed.elements
        )

    @property
    def pixel_syntax(self) -> str:
        # Which syntaxes write pixels alike: all uncompressed ones do.
        uid = self.parsed.transfer_syntax_uid
        return "native" if uid in _NATIVE and not self.is_encapsulated else uid


class _Side:
    # One of two data sets at the same place in both files.

    def __init__(
        self, elements: list[Element], order: str, character_set: str, source: Source
    ) -> None:
        self.order = order
        self.character_set = specific_character_set(elements, set()) or character_set
        self.source = source
        self.values: dict[int, tuple[bytes, Value]] = {}
        for tag, vr, value in elements:
            if tag & 0xFFFF and tag not in _ASIDE and tag >> 16 > 2:
                self.values.setdefault(tag, (vr, value))

    @property
    def context(self) -> str:
        return self.order + self.character_set


def _verdict(new: _Version, old: _Version) -> Verdict:
    sides = [
        _Side(
            version.parsed.elements,
            version.parsed.encoding.order,
            version.character_set,
            version.parsed.source,
        )
        for version in (new, old)
    ]
    differing = set(_differences(sides[0], sides[1]))
    if new.pixel_syntax != old.pixel_syntax and any(tag in sides[0].values for tag in _PIXELS):
        if differing <= _OF_THE_ENCODING:
            return Verdict(Outcome.VARIANT)
    elif not differing:
        return Verdict(Outcome.DUPLICATE)
    pixels_differ = any(tag in differing for tag in _PIXELS)
    names = [entry(tag).name if not tag >> 16 & 1 else "" for tag in sorted(differing)]
    numbers = [f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in sorted(differing)]
    keywords = [
        name if name and not name[0].isdigit() else number
        for name, number in zip(names, numbers, strict=True)
    ]
    return Verdict(Outcome.CONFLICT, tuple(keywords[:_MOST_NAMES]), pixels_differ)


def _differences(new: _Side, old: _Side) -> Iterator[int]:
    # Yields the tags whose values differ, at the level of these two data sets.
    for tag in new.values.keys() | old.values.keys():
        one, other = new.values.get(tag), old.values.get(tag)
        if one is None or other is None:
            # A value that is there and empty says as little as one that is not,
            # but whether it is there is part of the object.
            yield tag
        elif tag == _CHARACTER_SET:
            continue  # it says how text is written, and the text is compared decoded
        elif not _is_equal(tag, one, other, new, old):
            yield tag


def _is_equal(
    tag: int, one: tuple[bytes, Value], other: tuple[bytes, Value], new: _Side, old: _Side
) -> bool:
    (vr, value), (other_vr, other_value) = one, other
    if type(value) is Sequence and type(other_value) is Sequence:
        if len(value.items) != len(other_value.items):
            return False
        for item, other_item in zip(value.items, other_value.items, strict=True):
            inner = _inner(item, value, new), _inner(other_item, other_value, old)
            if any(True for _ in _differences(*inner)):
                return False
        return True
    if type(value) is Sequence or type(other_value) is Sequence:
        # An empty sequence and an empty value of another VR are both nothing.
        return not _length(value) and not _length(other_value)
    vr = _common_vr(tag, vr, other_vr)
    if type(value) is Bulk or type(other_value) is Bulk:
        return _is_equal_bulk(vr, value, other_value, new, old)
    assert type(value) is bytes
    assert type(other_value) is bytes
    if value == other_value and new.context == old.context:
        return True
    return _plain(vr, value, new) == _plain(vr, other_value, old)


def _inner(item: list[Element], sequence: Sequence, side: _Side) -> _Side:
    return _Side(item, sequence.encoding.order, side.character_set, side.source)


def _length(value: Value) -> int:
    if type(value) is Sequence:
        return len(value.items)
    if type(value) is Bulk:
        return value.length
    assert type(value) is bytes
    return len(value)


def _common_vr(tag: int, vr: bytes, other: bytes) -> bytes:
    # UN and what the dictionary leaves open give way to what the other file says.
    for each in (vr, other):
        if each != b"UN" and each not in AMBIGUOUS:
            return each
    known = entry(tag).vr if not tag >> 16 & 1 else b"UN"
    if known == b"US or SS":
        return b"US"
    return b"OW" if known in AMBIGUOUS else known


def _plain(vr: bytes, value: bytes, side: _Side) -> object:
    # What a value says, whatever its byte order, padding and character set.
    if vr in _BINARY:
        word = _WORD.get(vr, 1)
        swapped = _swapped(value, word) if side.order == ">" else value
        return swapped[:-1] if vr in (b"OB", b"UN") and swapped[-1:] == b"\0" else swapped
    text = text_of(vr, value, side.context)[0]
    if vr in (b"ST", b"LT", b"UT", b"UR"):
        return text.rstrip(" \0")
    parts = [part.strip(" \0") for part in text.split("\\")]
    if vr in _NUMBER_TEXT:
        return [float(part) if _NUMBER.fullmatch(part) else part for part in parts]
    if vr == b"PN":
        # Trailing delimiters of an empty component may be left out (PS3.5 §6.2.1.1).
        return [
            "=".join(group.rstrip("^ ") for group in part.split("=")).rstrip("=") for part in parts
        ]
    return parts


def _name(group: str) -> str:
    return group.rstrip("^ ")


def _swapped(value: bytes | memoryview, word: int) -> bytes:
    if word == 1:
        return bytes(value)
    whole = len(value) - len(value) % word
    swapped = bytearray(value)
    for at in range(word):
        swapped[at:whole:word] = bytes(value[word - 1 - at : whole : word])
    return bytes(swapped)


# -- bulk --------------------------------------------------------------------------------


def _is_equal_bulk(vr: bytes, one: Value, other: Value, new: _Side, old: _Side) -> bool:
    is_split = type(one) is Bulk and one.spans is not None
    is_other_split = type(other) is Bulk and other.spans is not None
    if is_split != is_other_split:
        return False
    word = _WORD.get(vr, 1)
    left, right = _Stream(one, new, word), _Stream(other, old, word)
    while True:
        piece, other_piece = left.read(), right.read()
        if piece != other_piece:
            # One byte of padding makes an odd length even.
            return left.is_padding(piece, other_piece) and not left.read() and not right.read()
        if not piece:
            return True


class _Stream:
    # The bytes of a value in little endian, in pieces of the same size on both sides.
    _PIECE = 256 * 1024

    def __init__(self, value: Value, side: _Side, word: int) -> None:
        self.pieces = self._pieces(value, side)
        self.word = word if side.order == ">" else 1
        self.rest = b""

    @staticmethod
    def _pieces(value: Value, side: _Side) -> Iterator[bytes | memoryview]:
        if type(value) is bytes:
            yield value
        elif type(value) is Bulk:
            # Fragments are compared as one stream: their borders, and the offset
            # table that points at them, are a matter of encoding.
            spans = [(value.offset, value.length)] if value.spans is None else value.spans[1:]
            for offset, length in spans:
                yield from chunks(side.source, offset, offset + length)

    def read(self) -> bytes:
        while len(self.rest) < self._PIECE:
            piece = next(self.pieces, None)
            if piece is None:
                break
            self.rest += bytes(piece)
        piece, self.rest = self.rest[: self._PIECE], self.rest[self._PIECE :]
        return _swapped(piece, self.word)

    @staticmethod
    def is_padding(one: bytes, other: bytes) -> bool:
        shorter, longer = sorted((one, other), key=len)
        return len(longer) - len(shorter) == 1 and longer == shorter + b"\0"
