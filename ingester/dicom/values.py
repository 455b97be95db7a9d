"""One value as JSON text, by its value representation.

The whole header becomes JSON by the rules of the contract (section 4): numbers where
they are numbers, dates and times reformatted, text decoded, short binary values as
upper-case hex.  A value that cannot be read as its type is kept as text, or as hex,
with a note; nothing here raises because of what a file holds.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from json.encoder import encode_basestring as quoted

from ingester.dicom.character_sets import DEFAULT, codec, decode, written
from ingester.dicom.elements import INLINE

#: A number longer than this is not one (PS3.5 §6.2: DS 16, IS 12 characters).
_LONGEST_NUMBER = 64

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?")
_NOT_A_NUMBER = frozenset(("nan", "inf", "infinity"))
_DATE = re.compile(r"([0-9]{4})[.-]?([0-9]{2})[.-]?([0-9]{2})")
_TIME = re.compile(r"([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_DATE_TIME = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})([0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?)?)?"
    r"([+-][0-9]{4})?"
)

_BINARY_NUMBERS = {
    b"US": "H",
    b"SS": "h",
    b"UL": "L",
    b"SL": "l",
    b"UV": "Q",
    b"SV": "q",
    b"FL": "f",
    b"FD": "d",
}
_HEX = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN", b"OB or OW", b"US or OW", b"US or SS or OW")
)
#: Text to which Specific Character Set applies (PS3.5 §6.1.2.3).
_TEXT = frozenset((b"SH", b"LO", b"ST", b"PN", b"LT", b"UC", b"UT"))
#: Text in which a backslash is an ordinary character.
_ONE_TEXT = frozenset((b"ST", b"LT", b"UT", b"UR"))

NULL = "null"


def json_value(
    vr: bytes, value: bytes, is_single: bool, context: str, is_table: bool = False
) -> tuple[str, str | None]:
    """Return (JSON text, a note or None) of a value that is not a sequence.

    Parameters
    ----------
    is_single : the dictionary's value multiplicity is 1
    context : "<" or ">" and the Specific Character Set that applies
    is_table : a look-up table, written as hex whatever its value representation
    """
    if not value:
        return NULL, None
    if is_table or vr in _HEX:
        if len(value) > INLINE:
            return f'{{"bytes":{len(value)}}}', None
        return _one(f'"{value.hex().upper()}"', is_single or is_table), None
    if vr in _BINARY_NUMBERS:
        return _numbers(vr, value, is_single, context[0])
    if vr == b"AT":
        return _tags(value, is_single, context[0])
    text, is_whole = text_of(vr, value, context)
    note = None if is_whole else "undecodable-text"
    if vr in _ONE_TEXT:
        trimmed = text.rstrip(" \0")
        return _one(quoted(written(trimmed)) if trimmed else NULL, is_single), note
    convert = _CONVERT.get(vr, _plain)
    values = text.split("\\")
    if not is_whole:
        values = [written(each) for each in values]  # which has backslashes of its own
    parts = [convert(each) for each in values]
    if len(parts) == 1 and (is_single or parts[0] == NULL):
        return parts[0], note
    return f"[{','.join(parts)}]", note


def text_of(vr: bytes, value: bytes, context: str) -> tuple[str, bool]:
    """Return (decoded text with its padding, whether every byte could be read).

    A byte that could not is in it as a lone surrogate (`character_sets`).
    """
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii"), True
    first = codec(context[1:])[0]
    if vr not in _TEXT and first != "utf_8":
        first = DEFAULT if first not in _ONE_BYTE else first
    return decode(value, first, is_name=vr == b"PN")


_ONE_BYTE = frozenset(
    ("latin_1", "tis_620", *(f"iso8859_{each}" for each in (2, 3, 4, 5, 6, 7, 8, 9, 15)))
)


def _one(text: str, is_single: bool) -> str:
    return text if is_single or text == NULL else f"[{text}]"


def _numbers(vr: bytes, value: bytes, is_single: bool, order: str) -> tuple[str, str | None]:
    code = _BINARY_NUMBERS[vr]
    count, rest = divmod(len(value), struct.calcsize("=" + code))
    if rest or not count:
        return _one(f'"{value.hex().upper()}"', is_single), "unreadable-value"
    numbers = struct.unpack(f"{order}{count}{code}", value)
    if code in "fd":
        parts = [repr(each) if math.isfinite(each) else NULL for each in numbers]
    else:
        parts = [str(each) for each in numbers]
    if count == 1 and is_single:
        return parts[0], None
    return f"[{','.join(parts)}]", None


def _tags(value: bytes, is_single: bool, order: str) -> tuple[str, str | None]:
    count, rest = divmod(len(value), 4)
    if rest or not count:
        return _one(f'"{value.hex().upper()}"', is_single), "unreadable-value"
    halves = struct.unpack(f"{order}{2 * count}H", value)
    parts = [f'"{halves[at]:04X}{halves[at + 1]:04X}"' for at in range(0, 2 * count, 2)]
    return (parts[0] if count == 1 and is_single else f"[{','.join(parts)}]"), None


def _plain(part: str) -> str:
    part = part.rstrip(" \0")
    return str(quoted(part)) if part else NULL


def _trimmed(part: str) -> str:
    part = part.strip(" \0")
    return str(quoted(part)) if part else NULL


def _decimal(part: str) -> str:
    part = part.strip(" \0")
    if len(part) <= _LONGEST_NUMBER and _DECIMAL.fullmatch(part):
        number = float(part)
        return repr(number) if math.isfinite(number) else NULL
    return _no_number(part)


def _integer(part: str) -> str:
    part = part.strip(" \0")
    if _INTEGER.fullmatch(part):
        return str(int(part))
    if len(part) <= _LONGEST_NUMBER and _DECIMAL.fullmatch(part):
        number = float(part)
        if not math.isfinite(number):
            return NULL
        return str(int(number)) if number.is_integer() and abs(number) < 2**63 else repr(number)
    return _no_number(part)


def _no_number(part: str) -> str:
    if not part or part.lstrip("+-").lower() in _NOT_A_NUMBER:
        return NULL
    return str(quoted(part))


def iso_date(part: str) -> str | None:
    """Return YYYY-MM-DD of a DICOM date (DA), or None where it is not one."""
    found = _DATE.fullmatch(part)
    if not found:
        return None
    try:
        return date(int(found[1]), int(found[2]), int(found[3])).isoformat()
    except ValueError:
        return None


def iso_time(part: str) -> str | None:
    """Return HH:MM:SS[.ffffff] of a DICOM time (TM), or None where it is not one."""
    found = _TIME.fullmatch(part)
    if not found:
        return None
    hours, minutes, seconds = found[1], found[2] or "00", found[3] or "00"
    # 60 is a leap second (PS3.5 §6.2).
    if hours > "23" or minutes > "59" or seconds > "60":
        return None
    fraction = (found[4] or "").ljust(6, "0")
    tail = "" if fraction == "000000" else f".{fraction}"
    return f"{hours}:{minutes}:{seconds}{tail}"


def iso_date_time(part: str) -> str | None:
    """Return ISO 8601 of a DICOM date time (DT), with its offset if it has one."""
    found = _DATE_TIME.fullmatch(part)
    if not found:
        return None
    year, month, day, time, offset = found.groups()
    if day:
        whole = iso_date(year + month + day)
        clock = iso_time(time) if time else ""
        if whole is None or clock is None:
            return None
        text = f"{whole}T{clock}" if clock else whole
    else:
        if month and not "01" <= month <= "12":
            return None
        text = f"{year}-{month}" if month else year
    return f"{text}{offset[:3]}:{offset[3:]}" if offset else text


def _iso(convert: Callable[[str], str | None]) -> Callable[[str], str]:
    def converted(part: str) -> str:
        part = part.strip(" \0")
        if not part:
            return NULL
        iso = convert(part)
        return f'"{iso}"' if iso is not None else str(quoted(part))

    return converted


_CONVERT: dict[bytes, Callable[[str], str]] = {
    b"DS": _decimal,
    b"IS": _integer,
    b"DA": _iso(iso_date),
    b"TM": _iso(iso_time),
    b"DT": _iso(iso_date_time),
    b"AE": _trimmed,
    b"AS": _trimmed,
    b"CS": _trimmed,
    b"UI": _trimmed,
}

#: Most values of a series are those of its other instances: they are converted once.
remembered_value = lru_cache(maxsize=16384)(json_value)
