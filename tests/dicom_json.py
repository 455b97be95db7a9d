"""What `headers.attributes` must hold of a data set, by the contract, from pydicom alone.

Nothing of the program is used here: pydicom reads and decodes, and each rule of the
contract's section 4 is written down once more in its plainest form.
"""

from __future__ import annotations

import json
import math
import re
from datetime import date
from typing import Any

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VM, repeater_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

_BINARY = {"OB", "OW", "OF", "OD", "OL", "OV", "UN"}
_WHOLE = {"US", "SS", "UL", "SL", "UV", "SV"}
_PADDED = {"AE", "AS", "CS", "UI"}  # spaces on both sides mean nothing
_LOOK_UP_TABLES = {"LUTData", "GrayLookupTableData"}


def differences(ours: Any, ds: Dataset) -> dict[str, tuple[Any, Any]]:
    """Return keyword -> (what the program has, what pydicom has) where they disagree.

    pydicom takes empty component groups off the end of a name; the program keeps names
    as they were written.  What pydicom leaves as bytes, the program may see as a sequence,
    and what it leaves with escape sequences in it, as text.
    """
    one, other = _trimmed(ours), _trimmed(header_of(ds))
    missing = "(missing)"
    return {
        name: (one.get(name, missing), other.get(name, missing))
        for name in one.keys() | other.keys()
        if one.get(name, missing) != other.get(name, missing)
        and not (_is_sequence(one.get(name)) and isinstance(other.get(name), dict))
        and "\x1b" not in str(other.get(name))
    }


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _trimmed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _trimmed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_trimmed(each) for each in value]
    return value.rstrip("=") if isinstance(value, str) else value


def header_of(ds: Dataset) -> dict[str, Any]:
    """Return File Meta and data set as the contract wants them."""
    return attributes_of(ds.file_meta) | attributes_of(ds)


def attributes_of(ds: Dataset) -> dict[str, Any]:
    """Return one data set, or one item of a sequence."""
    return {_name(ds, tag): _value(ds[tag], tag) for tag in list(ds.keys())}


def _name(ds: Dataset, tag: BaseTag) -> str:
    number = f"{int(tag):08X}"
    if not tag.is_private:
        return (dictionary_keyword(tag) if tag in DicomDictionary else "") or number
    creator = ds.get((tag.group, tag.element >> 8)) if tag.element >= 0x1000 else None
    if creator is None or not creator.value:
        return number
    return f"{str(creator.value).strip()}:{tag.group:04X}xx{tag.element & 0xFF:02X}"


def _value(element: DataElement, tag: BaseTag) -> Any:
    vr, value = element.VR, element.value
    if vr == "SQ":
        items = [attributes_of(item) for item in value or ()]
        text = json.dumps(items, separators=(",", ":"), ensure_ascii=False)
        return items if len(text.encode()) <= 65536 else {"items": len(items)}
    is_known = dictionary_has_tag(tag) or repeater_has_tag(int(tag)) or tag.element == 0
    is_single = not tag.is_private and is_known and (tag.element == 0 or dictionary_VM(tag) == "1")
    if element.keyword in _LOOK_UP_TABLES and isinstance(value, list | MultiValue):
        return {"bytes": 2 * len(value)}
    if isinstance(value, bytes):
        return _binary(element, value, is_single)
    if value is None or (hasattr(value, "__len__") and not len(value)):
        return None
    if isinstance(value, list | MultiValue):
        return [_one(vr, each) for each in value]
    one = _one(vr, value)
    return one if is_single or one is None else [one]


def _binary(element: DataElement, value: bytes, is_single: bool) -> Any:
    if not value:
        return None
    if element.keyword == "PixelData" and element.is_undefined_length:
        _, *fragments = generate_fragments(value)
        return {"bytes": sum(map(len, fragments))}
    if len(value) > 64:
        return {"bytes": len(value)}
    return value.hex().upper() if is_single else [value.hex().upper()]


def _one(vr: str, value: Any) -> Any:
    text = str(value).strip(" \0") if vr in _PADDED else str(value).rstrip(" \0")
    if vr in ("DS", "FL", "FD"):
        try:
            return float(value) if text and math.isfinite(float(value)) else None
        except ValueError:
            return text
    if vr in _WHOLE | {"IS"}:
        return int(value) if text else None
    if vr == "AT":
        return f"{int(value):08X}"
    if not text:
        return None
    convert = {"DA": _date, "TM": _time, "DT": _moment}.get(vr)
    return convert(text) if convert else text


def _date(text: str) -> str:
    found = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", text)
    try:
        return date(*map(int, found.groups())).isoformat() if found else text
    except ValueError:
        return text


def _time(text: str) -> str:
    found = re.fullmatch(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.(\d{1,6}))?", text)
    if not found:
        return text
    hours, minutes, seconds, fraction = found.groups()
    tail = f".{fraction.ljust(6, '0')}" if fraction and int(fraction) else ""
    return f"{hours}:{minutes or '00'}:{seconds or '00'}{tail}"


def _moment(text: str) -> str:
    found = re.fullmatch(r"(\d{8})(\d{2,6}(?:\.\d{1,6})?)?([+-]\d{4})?", text)
    if not found:
        return text
    day, clock, offset = found.groups()
    shift = f"{offset[:3]}:{offset[3:]}" if offset else ""
    return _date(day) + (f"T{_time(clock)}" if clock else "") + shift
