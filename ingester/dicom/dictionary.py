"""What the Standard's dictionary says of a tag, looked up once.

pydicom carries the dictionary (PS3.6, PS3.7, and the private ones its users have
collected); this module asks it once per tag and keeps the answers, bounded, for a
hostile file can name every tag there is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from pydicom import datadict
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.tag import Tag

PIXEL_DATA = 0x7FE00010

_TAG = re.compile(r"[0-9A-F]{8}")

#: Value representations with a 16-bit length in explicit encodings (PS3.5 §7.1.2).
SHORT = frozenset((b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO")) | {
    *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
#: Those with two reserved bytes and a 32-bit length.
LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)

#: Values that are bytes to us, whatever they mean.
BINARY = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN", b"OB or OW", b"US or OW", b"US or SS or OW")
)

#: What the dictionary leaves open, to be settled by other attributes.
AMBIGUOUS = frozenset((b"OB or OW", b"US or SS", b"US or OW", b"US or SS or OW"))

#: Look-up table values, whatever their value representation says.
LOOK_UP_TABLES = frozenset(
    (
        *range(0x00281200, 0x00281205),
        *range(0x00281211, 0x00281215),
        *range(0x00281221, 0x00281225),
        0x00281408,
        0x00283006,
    )
)


class Entry(NamedTuple):
    """The dictionary's words on one public tag."""

    vr: bytes
    name: str  # the keyword, or "ggggeeee" where there is none
    is_single: bool  # value multiplicity 1
    is_known: bool


@lru_cache(maxsize=65536)
def entry(tag: int) -> Entry:
    """Return the entry of a public tag; an unknown one is UN and named by number."""
    number = f"{tag:08X}"
    found = DicomDictionary.get(tag)
    if found is not None:
        vr, multiplicity, _, _, keyword = found
        known = vr.encode() if vr != "NONE" else b"UN"
        return Entry(known, keyword or number, multiplicity == "1", True)
    if tag & 0xFFFF == 0:  # a group length, retired everywhere but in groups 0000 and 0002
        return Entry(b"UL", number, True, True)
    mask = datadict.mask_match(tag)
    if mask is not None:
        vr, multiplicity, *_ = RepeatersDictionary[mask]
        return Entry(vr.encode(), number, multiplicity == "1", True)
    return Entry(b"UN", number, False, False)


@lru_cache(maxsize=65536)
def private_vr(tag: int, creator: str) -> bytes:
    """Return the VR that pydicom's private dictionary knows, else UN."""
    try:
        vr: str = datadict.get_private_entry(Tag(tag), creator)[0]
    except KeyError:
        return b"UN"
    return vr.encode()


@lru_cache(maxsize=65536)
def implicit_vr(tag: int) -> bytes:
    """Return the value representation that an implicit encoding leaves to us."""
    if tag >> 16 & 1:
        # (gggg,0010-00FF) reserve a block: Private Creator (PS3.5 §7.8.1).
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
    return entry(tag).vr


def is_creator(tag: int) -> bool:
    """Tell whether the tag reserves a private block."""
    return bool(tag >> 16 & 1) and 0x10 <= tag & 0xFFFF <= 0xFF


@lru_cache(maxsize=65536)
def tag_of(name: str) -> int:
    """Return the tag of a key of the header's JSON; of a private one without its block."""
    tag = datadict.tag_for_keyword(name)
    if tag is not None:
        return tag
    digits = name[-8:].replace("xx", "00")
    return int(digits, 16) if _TAG.fullmatch(digits) else 0
