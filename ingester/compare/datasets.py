"""Two data sets compared element by element, their sequences item by item.

Elements meet by name: the keyword, or for private ones the creator and the last two
digits, for the block that a creator got is a matter of encoding (PS3.5 §7.8.1).  Names
are the keys of `headers.attributes`; inside sequences they are paths, such as
`RequestAttributesSequence/ScheduledProcedureStepID`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from ingester.compare.bulk import Held, is_equal_bulk
from ingester.compare.values import Writing, is_equal
from ingester.dicom.attributes import character_set_of, private_element
from ingester.dicom.dictionary import PIXEL_DATA, entry, is_creator, private_vr
from ingester.dicom.elements import Bulk, Element, Sequence, Value
from ingester.dicom.sources import Source

#: Pixel Data, and its kinds in floating point.
PIXELS = (PIXEL_DATA, 0x7FE00008, 0x7FE00009)

_CHARACTER_SET = 0x00080005
_PHOTOMETRIC_INTERPRETATION, _PLANAR_CONFIGURATION = 0x00280004, 0x00280006

#: What says how the object is written, not what it is: the character set (text is
#: compared decoded), extended offset tables, padding behind the data set.
ASIDE = frozenset((_CHARACTER_SET, 0x7FE00001, 0x7FE00002, 0xFFFCFFFC))

#: Between these a re-encoding may have to choose (PS3.5 §8.2).
_COLOURS = frozenset(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")) | {
    "YBR_PARTIAL_422",
    "YBR_PARTIAL_420",
}

#: A private creator has at most 64 characters; whoever writes more is not quoted.
_LONGEST_NAME = 80

Path = tuple[str, ...]


class _Slot(NamedTuple):
    # What a data set says under one name; several values only against the rules.
    tag: int
    name: str
    known: bytes  # the dictionary's VR
    values: list[tuple[bytes, Value]]


class DataSet:
    """One of two data sets at the same place in both files.

    Parameters
    ----------
    order, character_set : how its values are written, unless it names a set itself
    source : what the offsets of bulk refer to
    """

    def __init__(
        self, elements: list[Element], order: str, character_set: str, source: Source
    ) -> None:
        self.order = order
        self.character_set = character_set_of(elements, character_set, set())
        self.source = source
        #: By name, and whether it is a private creator: the text is its name then.
        self.slots: dict[tuple[str, bool], _Slot] = {}
        self._creators: dict[int, str] = {}
        self._names: set[str] = set()
        for tag, vr, value in elements:
            is_writing = tag in ASIDE or not tag & 0xFFFF  # group lengths
            if tag >> 16 != 2 and (not is_writing or type(value) is Sequence):
                self._put(tag, vr, value)

    def _put(self, tag: int, vr: bytes, value: Value) -> None:
        known, name, *_ = entry(tag)
        key = name, False
        if tag & 0x10000:
            context = self.order + self.character_set
            name, _ = private_element(tag, vr, value, self._creators, self._names, context)
            self._names.add(name)
            key = name, False
            if is_creator(tag):
                known = b"LO"
                if type(value) is bytes:
                    if not self._creators[tag]:
                        return  # it reserves a block for nobody
                    key = f"{tag >> 16:04X} {self._creators[tag]}", True
            else:
                creator = self._creators.get((tag & 0xFFFF0000) | (tag >> 8 & 0xFF), "")
                known = private_vr(tag, creator) if creator else b"UN"
        slot = self.slots.setdefault(key, _Slot(tag, _told(name, tag), known, []))
        slot.values.append((vr, value))

    def first(self, tag: int) -> Value | None:
        """Return the (first) value of a public element."""
        slot = self.slots.get((entry(tag).name, False))
        return slot.values[0][1] if slot else None

    def item(self, elements: list[Element], sequence: Sequence) -> DataSet:
        """Return an item of one of its sequences."""
        return DataSet(elements, sequence.encoding.order, self.character_set, self.source)

    def held(self, slot: _Slot, vr: bytes, value: bytes | Bulk) -> Held:
        """Return a value with all that is needed to understand it."""
        return Held(value, Writing(vr, slot.known, self.order, self.character_set), self.source)


def _told(name: str, tag: int) -> str:
    # The key that `headers.attributes` has after JSON's escapes, or a number for it.
    name = json.loads(f'"{name}"') if "\\" in name else name
    return name if len(name) <= _LONGEST_NAME else f"{tag:08X}"


def length_of(value: Value) -> int:
    """Return the bytes of a value, or the items of a sequence."""
    if type(value) is Sequence:
        return len(value.items)
    if type(value) is Bulk:
        return value.length
    assert type(value) is bytes
    return len(value)


def are_recompressed(new: DataSet, old: DataSet, *, is_root: bool = True) -> bool:
    """Tell whether both hold pixels that cannot be compared as they are written.

    The two files have different transfer syntaxes for pixels; an icon inside may be
    native in both all the same.
    """
    for tag in PIXELS:
        values = new.first(tag), old.first(tag)
        if all(value and type(value) is not Sequence and length_of(value) for value in values):
            return is_root or any(type(value) is Bulk and value.spans for value in values)
    return False


def differences(
    new: DataSet, old: DataSet, *, is_other_syntax: bool, is_root: bool = True
) -> Iterator[Path]:
    """Yield the name of every element whose value differs, in the order of tags.

    Parameters
    ----------
    is_other_syntax : the files' transfer syntaxes write pixels differently: pixels, and
        what their encoding forces upon the header, are left out where both have them
    """
    is_recompressed = is_other_syntax and are_recompressed(new, old, is_root=is_root)
    slots = {**old.slots, **new.slots}
    for key in old.slots.keys() & new.slots.keys():
        # A private element may have another tag there: told alike, whichever came first.
        slots[key] = min(old.slots[key], new.slots[key], key=lambda each: each.tag)
    # By tag, because bulk in a deflated stream is cheap to read only in its order.
    for key in sorted(slots, key=lambda each: (slots[each].tag, each)):
        name = slots[key].name
        one, other = new.slots.get(key), old.slots.get(key)
        if is_recompressed and _is_of_the_encoding(one, other):
            continue
        if one is None or other is None or len(one.values) != len(other.values):
            # An empty value says as little as none, but that it is there says something.
            yield (name,)
        else:
            yield from dict.fromkeys(
                _slot_differences(new, one, old, other, is_other_syntax=is_other_syntax)
            )


def is_of_the_encoding(tag: int, one: object, other: object) -> bool:
    """Tell whether a re-encoding of the pixels may have brought a difference about.

    *one* and *other* are the values, None where there is none.
    """
    if tag == _PLANAR_CONFIGURATION:
        return True  # encoders leave it out where there is one sample
    if tag == _PHOTOMETRIC_INTERPRETATION:
        return {str(one), str(other)} <= _COLOURS
    return tag in PIXELS and one is not None and other is not None


def _is_of_the_encoding(one: _Slot | None, other: _Slot | None) -> bool:
    tags = {each.tag for each in (one, other) if each}
    return is_of_the_encoding(min(tags), _single(one), _single(other))


def _single(slot: _Slot | None) -> object:
    if slot is None or len(slot.values) > 1:
        return None
    value = slot.values[0][1]
    return value.decode("latin_1").strip(" \0") if type(value) is bytes else value


def _slot_differences(
    new: DataSet, one: _Slot, old: DataSet, other: _Slot, *, is_other_syntax: bool
) -> Iterator[Path]:
    for (vr, value), (other_vr, other_value) in zip(one.values, other.values, strict=True):
        if type(value) is Sequence and type(other_value) is Sequence:
            if len(value.items) != len(other_value.items):
                yield (one.name,)
                continue
            for item, other_item in zip(value.items, other_value.items, strict=True):
                for path in differences(
                    new.item(item, value),
                    old.item(other_item, other_value),
                    is_other_syntax=is_other_syntax,
                    is_root=False,
                ):
                    yield (one.name, *path)
        elif not _is_equal(new, (one, vr, value), old, (other, other_vr, other_value)):
            yield (one.name,)


def _is_equal(
    new: DataSet,
    one: tuple[_Slot, bytes, Value],
    old: DataSet,
    other: tuple[_Slot, bytes, Value],
) -> bool:
    value, other_value = _as_bytes(one[2]), _as_bytes(other[2])
    if value is None or other_value is None:
        # A sequence here and something else there: both are nothing, or they differ.
        return not length_of(one[2]) and not length_of(other[2])
    held, other_held = new.held(one[0], one[1], value), old.held(other[0], other[1], other_value)
    if type(value) is bytes and type(other_value) is bytes:
        return is_equal(value, held.writing, other_value, other_held.writing)
    return is_equal_bulk(held, other_held)


def _as_bytes(value: Value) -> bytes | Bulk | None:
    # What looks like a sequence in one file may be mere bytes by the VR of the other.
    if isinstance(value, Sequence):
        return Bulk(*value.span) if value.span else None
    return value
