"""What one value says, whatever its byte order, padding and character set.

Two values are the same where whoever reads them by the rules of the Standard reads the
same.  Where a value breaks those rules (text that its character set cannot hold), only
the same bytes are the same: when in doubt both objects are kept.

References
----------
PS3.5 §6.2 (value representations and their padding), §6.2.2 (UN), §7.3 (byte order).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from ingester.dicom.dictionary import AMBIGUOUS
from ingester.dicom.values import text_of

#: How many bytes change places in the other byte order; what is not here has no words.
_WORDS = {
    b"US": 2, b"SS": 2, b"AT": 2, b"OW": 2, **dict.fromkeys(AMBIGUOUS, 2),
    b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4,
    b"FD": 8, b"OD": 8, b"SV": 8, b"UV": 8, b"OV": 8,
}  # fmt: skip

_NUMBER_TEXT = frozenset((b"DS", b"IS"))
#: Text in which a backslash is an ordinary character and leading spaces count.
_ONE_TEXT = frozenset((b"ST", b"LT", b"UT", b"UR"))
#: Text to which Specific Character Set applies (PS3.5 §6.1.2.3).
_IN_CHARACTER_SET = frozenset((b"SH", b"LO", b"ST", b"PN", b"LT", b"UC", b"UT"))
_TEXT = frozenset((b"AE", b"AS", b"CS", b"DA", b"DT", b"TM", b"UI", b"UR")) | (
    _NUMBER_TEXT | _IN_CHARACTER_SET
)
#: VRs that leave open what the bytes mean.
_SILENT = AMBIGUOUS | {b"UN"}

#: Values of different kinds are never the same, unless one of them is mere bytes.
_KINDS = {
    **dict.fromkeys(_TEXT, "text"),
    **dict.fromkeys((b"US", b"SS", b"UL", b"SL", b"UV", b"SV"), "integers"),
    **dict.fromkeys((b"FL", b"FD"), "floats"),
    b"AT": "tags",
}
_BYTES = "bytes"
_SIGNED = ({b"US", b"SS"}, {b"UL", b"SL"}, {b"UV", b"SV"})

_NUMBER = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


class Writing(NamedTuple):
    """How a value is written: its VR, the dictionary's, byte order, character set."""

    vr: bytes
    known: bytes
    order: str
    character_set: str

    @property
    def word(self) -> int:
        """Return how many bytes change places on the way to little endian."""
        return _WORDS.get(self.vr, 1) if self.order == ">" else 1


def common_vr(one: Writing, other: Writing) -> bytes:
    """Return the VR by which both are to be read, whichever is named first.

    UN, and what the dictionary leaves open, give way to what the other file says, and
    in the end to the dictionary.
    """
    told = sorted({one.vr, other.vr} - _SILENT)
    if len(told) == 1:
        return told[0]
    return one.known if not told or one.known in told else told[0]


def is_text(vr: bytes) -> bool:
    """Tell whether values of this VR are text."""
    return vr in _TEXT


def is_equal(value: bytes, written: Writing, other: bytes, other_written: Writing) -> bool:
    """Tell whether two values say the same."""
    if not value and not other:
        return True
    vr = common_vr(written, other_written)
    kinds = {_KINDS.get(each.vr, _BYTES) for each in (written, other_written) if each.vr != b"UN"}
    if vr in _TEXT and kinds <= {"text"}:
        return _is_equal_text(vr, value, written, other, other_written)
    if len(kinds - {_BYTES}) > 1:
        return False
    if kinds == {"text", _BYTES}:
        return value.rstrip(b" \0") == other.rstrip(b" \0")
    little = swapped(value, written.word), swapped(other, other_written.word)
    if {written.vr, other_written.vr} in _SIGNED:
        word = _WORDS[vr]
        return little[0] == little[1] and max(little[0][word - 1 :: word], default=0) < 0x80
    return is_padded(*little)


def is_padded(one: bytes, other: bytes) -> bool:
    """Tell whether two values are the same but for the byte that makes one even."""
    if one == other:
        return True
    shorter, longer = sorted((one, other), key=len)
    return len(shorter) % 2 == 1 and longer == shorter + b"\0"


def swapped(value: bytes | memoryview, word: int) -> bytes:
    """Return the value with the bytes of each word in the other order."""
    if word == 1:
        return bytes(value)
    whole = len(value) - len(value) % word
    turned = bytearray(value)
    for at in range(word):
        turned[at:whole:word] = bytes(value[word - 1 - at : whole : word])
    return bytes(turned)


# -- text --------------------------------------------------------------------------------


def _is_equal_text(
    vr: bytes, value: bytes, written: Writing, other: bytes, other_written: Writing
) -> bool:
    if vr not in _IN_CHARACTER_SET:
        one, another = value.decode("latin_1"), other.decode("latin_1")
        return value == other or _parts(vr, one) == _parts(vr, another)
    is_same_set = written.character_set == other_written.character_set
    if is_same_set and value == other:
        return True
    one, is_whole = text_of(vr, value, written.order + written.character_set)
    another, is_other_whole = text_of(vr, other, other_written.order + other_written.character_set)
    if is_whole and is_other_whole:
        return _parts(vr, one) == _parts(vr, another)
    # Bytes that no character set explains: what stands in for them says nothing.
    return is_same_set and value.rstrip(b" \0") == other.rstrip(b" \0")


def _parts(vr: bytes, text: str) -> list[object]:
    if vr in _ONE_TEXT:
        return [text.rstrip(" \0")]
    if vr == b"UC":
        return [part.rstrip(" \0") for part in text.split("\\")]
    parts = [part.strip(" \0") for part in text.split("\\")]
    if vr in _NUMBER_TEXT:
        # 1.50 is 1.5, but 9007199254740993 is not 9007199254740992.
        return [Decimal(part) if _NUMBER.fullmatch(part) else part for part in parts]
    if vr == b"PN":
        return [plain_name(part) for part in parts]
    return list(parts)


def plain_name(text: str) -> str:
    """Return a name without the delimiters that may be left out (PS3.5 §6.2.1.1)."""
    return "=".join(group.rstrip("^ ") for group in text.split("=")).rstrip("=")
