"""The whole header as one JSON text, keyed by DICOM keyword.

The text is put together value by value: what was seen before (most of a series
repeats) comes from memory.  Names follow the contract, section 4: the keyword,
"ggggeeee" where there is none, "<creator>:ggggxxee" for private elements.
"""

from __future__ import annotations

from functools import lru_cache
from json.encoder import encode_basestring as quoted

from ingester.dicom.character_sets import codec, says_something, shown
from ingester.dicom.dictionary import AMBIGUOUS, LOOK_UP_TABLES, entry, is_creator, private_vr
from ingester.dicom.elements import Bulk, Element, Sequence, Value
from ingester.dicom.part10 import Parsed
from ingester.dicom.values import json_value, remembered_value, text_of

#: A sequence whose JSON is longer than this is given by its number of items (bytes).
_LONGEST_SEQUENCE = 64 * 1024

#: Longer values are not worth remembering (bytes).
_REMEMBERED = 256

#: Value representations that say too little.
_OPEN = AMBIGUOUS | {b"UN"}

_CHARACTER_SET, _PIXEL_REPRESENTATION = 0x00080005, 0x00280103


def header_text(parsed: Parsed, context: str, notes: set[str]) -> str:
    """Return the JSON text of File Meta and data set; add to *notes* what is odd.

    *context* is the byte order ("<" or ">") and the Specific Character Set.
    """
    is_signed = _is_signed(parsed.elements, context[0], False)
    members = _members(parsed.meta, "<", False, notes)
    members += _members(parsed.elements, context, is_signed, notes)
    return "{" + ",".join(members) + "}"


def specific_character_set(elements: list[Element], notes: set[str]) -> str:
    """Return the character set that a data set names for itself, or ""."""
    for tag, _, value in elements:
        if tag == _CHARACTER_SET and type(value) is bytes:
            named = value.decode("latin_1").strip(" \0")
            if not codec(named)[1]:
                notes.add("unknown-character-set")
            return named
        if tag > _CHARACTER_SET:
            break
    return ""


def character_set_of(elements: list[Element], default: str, notes: set[str]) -> str:
    """Return the character set that applies to a data set, or to an item of a sequence.

    That is what it names for itself, else the *default*: of its source, of the data set
    that it lies in.  A set that nobody knows says nothing, nor does plain ASCII, which
    needs no name.
    """
    named = specific_character_set(elements, notes)
    return named if says_something(named) or not default else default


def _members(elements: list[Element], context: str, is_signed: bool, notes: set[str]) -> list[str]:
    if len({tag for tag, _, _ in elements}) != len(elements):
        # Of duplicate tags the first one counts.
        elements = list({element[0]: element for element in reversed(elements)}.values())[::-1]
    members: list[str] = []
    names: set[str] = set()
    creators: dict[int, str] = {}
    for tag, vr, value in elements:
        if tag & 0x10000:
            name, vr = private_element(tag, vr, value, creators, names, context)
            names.add(name)
            if type(value) is bytes:
                convert = remembered_value if len(value) <= _REMEMBERED else json_value
                text, note = convert(vr, value, False, context, False)
                text = f'"{name}":{text}'
            else:
                text, note = f'"{name}":{_long(value, context, is_signed, notes)}', None
        elif type(value) is bytes:
            if vr in _OPEN:
                vr = _settled(tag, vr, elements, context[0], is_signed)
            convert_member = _remembered_member if len(value) <= _REMEMBERED else _member
            text, note = convert_member(tag, vr, value, context)
        else:
            text, note = f'"{entry(tag).name}":{_long(value, context, is_signed, notes)}', None
        if note:
            notes.add(note)
        members.append(text)
    return members


def _member(tag: int, vr: bytes, value: bytes, context: str) -> tuple[str, str | None]:
    known, name, is_single, is_known = entry(tag)
    text, note = json_value(vr, value, is_single, context, tag in LOOK_UP_TABLES)
    if note is None and vr not in (known, b"UN") and is_known and vr not in known.split(b" or "):
        note = "vr-differs"
    return f'"{name}":{text}', note


_remembered_member = lru_cache(maxsize=16384)(_member)


def _long(value: Value, context: str, is_signed: bool, notes: set[str]) -> str:
    if type(value) is Bulk:
        return f'{{"bytes":{value.length}}}'
    assert type(value) is Sequence
    return _sequence_text(value, context, is_signed, notes)


def _sequence_text(sequence: Sequence, context: str, is_signed: bool, notes: set[str]) -> str:
    # Recursion is bounded by the limit on nesting, which the walk has kept.
    order = sequence.encoding.order
    texts: list[str] = []
    length = 0
    for item in sequence.items:
        inner = order + character_set_of(item, context[1:], notes)
        text = "{" + ",".join(_members(item, inner, is_signed, notes)) + "}"
        length += len(text) + 1
        if length <= _LONGEST_SEQUENCE:
            texts.append(text)
    if length <= _LONGEST_SEQUENCE:
        whole = f"[{','.join(texts)}]"
        if len(whole) <= _LONGEST_SEQUENCE // 4 or len(whole.encode()) <= _LONGEST_SEQUENCE:
            return whole
    return f'{{"items":{len(sequence.items)}}}'


def _settled(tag: int, vr: bytes, elements: list[Element], order: str, is_signed: bool) -> bytes:
    # Settles what the encoding left open: US or SS, a known attribute written as UN.
    if vr == b"UN":
        vr = entry(tag).vr
    if vr == b"US or SS":
        return b"SS" if _is_signed(elements, order, is_signed) else b"US"
    if vr == b"SQ" or vr in AMBIGUOUS:
        return b"UN"
    return vr


def _is_signed(elements: list[Element], order: str, inherited: bool) -> bool:
    for tag, _, value in elements:
        if tag == _PIXEL_REPRESENTATION and type(value) is bytes and len(value) == 2:
            return int.from_bytes(value, "big" if order == ">" else "little") == 1
    return inherited


# -- private elements --------------------------------------------------------------------


def private_element(
    tag: int,
    vr: bytes,
    value: Value,
    creators: dict[int, str],
    names: set[str],
    context: str,
) -> tuple[str, bytes]:
    """Return (name, VR) of a private element.

    Parameters
    ----------
    creators : those of the data set so far, by tag; this one is added if it is one
    names : those given so far in the data set
    """
    if is_creator(tag):
        if type(value) is bytes:
            creators.setdefault(tag, shown(text_of(b"LO", value, context)[0]).strip(" \0"))
        return f"{tag:08X}", b"LO" if vr == b"UN" else vr
    creator = creators.get((tag & 0xFFFF0000) | (tag >> 8 & 0xFF), "")
    if not creator:
        return f"{tag:08X}", vr
    if vr == b"UN":
        vr = private_vr(tag, creator)
        vr = b"UN" if vr == b"SQ" else vr
    name = _private_name(tag & 0xFFFF00FF, creator)
    # One creator may hold two blocks of a group: the second is named by number.
    return (f"{tag:08X}" if name in names else name), vr


@lru_cache(maxsize=32768)
def _private_name(tag: int, creator: str) -> str:
    name: str = quoted(f"{creator}:{tag >> 16:04X}xx{tag & 0xFF:02X}")
    return name[1:-1]
