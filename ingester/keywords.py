"""DICOM keywords as columns of the index: their names, their types, their values.

Whoever writes `SliceThickness` into `[index] columns` gets `slice_thickness`, a column
typed by the attribute's value representation, computed from a header's JSON text by one
SQL expression.  A value that cannot be read as that type is NULL there and stays as it
was written in the header.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

# pydicom has no function that lists its keywords.
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword

from ingester.errors import Fatal

_INTEGERS = frozenset({"IS", "SL", "SS", "UL", "US", "SV", "UV"})
_REALS = frozenset({"DS", "FL", "FD"})
_TEXTS = frozenset({"AE", "AS", "AT", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
#: What dates and times look like once they could be read (GLOB).
_PATTERNS = {
    "DA": (_DAY,),
    "TM": ("[0-9][0-9]:[0-9][0-9]:[0-9][0-9]*",),
    "DT": (
        _DAY,
        f"{_DAY}[T+-]*",
        *(f"{_DAY[: -len('-[0-9][0-9]')]}{tail}" for tail in ("", "[+-][0-9][0-9]:[0-9][0-9]")),
        *(f"[0-9][0-9][0-9][0-9]{tail}" for tail in ("", "[+-][0-9][0-9]:[0-9][0-9]")),
    ),
}
_PLAIN = _INTEGERS | _REALS | _TEXTS | frozenset(_PATTERNS)
_IRREGULAR = {"CTDIvol": "ctdi_vol"}


@dataclass(frozen=True, slots=True)
class Column:
    """A header attribute with a column of its own.

    `expression` computes the value from a JSON text; `{}` stands where that comes from.
    """

    keyword: str
    name: str
    type: str
    expression: str


def snake_case(keyword: str) -> str:
    """Return the column name of a DICOM keyword: `sop_instance_uid`, `kvp`."""
    if keyword in _IRREGULAR:
        return _IRREGULAR[keyword]
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword)
    return parted.lower()


def column(keyword: str) -> Column:
    """Return the column for *keyword*.

    Raises
    ------
    Fatal
        No attribute of the dictionary has this keyword (the nearest is named), or its
        value is a sequence or binary.
    """
    tag = tag_for_keyword(keyword) if keyword else None  # some attributes have none
    if tag is None:
        raise Fatal(f"{keyword!r} is not a keyword of the DICOM dictionary; {_advice(keyword)}")
    representations = dictionary_VR(tag).split(" or ")
    if not _PLAIN.issuperset(representations):
        raise Fatal(
            f"{keyword} is {' or '.join(representations)}: a sequence or binary has no plain "
            "value to make a column of"
        )
    vr = representations[0]
    return Column(keyword, snake_case(keyword), *_typed(vr, keyword, dictionary_VM(tag) == "1"))


def _typed(vr: str, keyword: str, is_single: bool) -> tuple[str, str]:
    """Return (SQL type, expression) of an attribute."""
    path = f"'$.{keyword}'"
    kind, value = f"json_type({{}}, {path})", f"json_extract({{}}, {path})"
    if not is_single:
        # Several values: the JSON array as text, for LIKE and json_each alike.
        return "TEXT", value
    if vr in _INTEGERS:
        # SQLite reads as real what 64 bits with a sign cannot hold.
        readable = f"{kind} = 'integer' AND typeof({value}) = 'integer'"
        return "INTEGER", f"CASE WHEN {readable} THEN {value} END"
    if vr in _REALS:
        return "REAL", f"CASE WHEN {kind} IN ('integer', 'real') THEN {value} END"
    if vr in _PATTERNS:
        readable = " OR ".join(f"{value} GLOB '{pattern}'" for pattern in _PATTERNS[vr])
        return "TEXT", f"CASE WHEN {readable} THEN {value} END"
    return "TEXT", f"CASE {kind} WHEN 'text' THEN {value} END"


def _advice(written: str) -> str:
    """Return what to write instead of what is no keyword."""
    plain = re.sub(r"[^0-9A-Za-z]", "", written).lower()
    if re.fullmatch(r"[0-9a-f]{8}", plain) and (named := keyword_for_tag(int(plain, 16))):
        return f"write {named}"
    if plain in {entry[4].lower() for entry in RepeatersDictionary.values()}:
        return "an attribute of a repeating group (60xx) has no column: ask headers.attributes"
    keywords = {entry[4].lower(): entry[4] for entry in DicomDictionary.values() if entry[4]}
    near = difflib.get_close_matches(plain, keywords, n=1)
    return f"did you mean {keywords[near[0]]}?" if near else "see PS3.6 for all of them"
