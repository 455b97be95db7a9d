"""Header values read without fear: a number, a text, an item, or None.

Headers are written by people and machines that err.  Whatever is asked for here is
either a usable value or None, whichever way the element is broken: empty, several
values where one belongs, a text that is no number, an undecodable byte.  Nothing
raises and nothing warns, so that the code above reads like the Standard.
"""

from __future__ import annotations

import math
import struct
import warnings
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

#: What pydicom may raise when it converts a broken element on first access.
BROKEN = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    LookupError,
    EOFError,
    OSError,  # of a buffer in memory: pydicom says so where a tag is missing
    RecursionError,
    struct.error,
)


def value(dataset: Dataset | None, keyword: str) -> Any:
    """Return the element's value as pydicom converts it, or None."""
    if dataset is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dataset.get(keyword)
        except BROKEN:
            return None


def values(dataset: Dataset | None, keyword: str) -> list[Any]:
    """Return the element's values as a list, empty where there are none."""
    found = value(dataset, keyword)
    if found is None or found == "" or found == b"":
        return []
    if isinstance(found, MultiValue | Sequence | list | tuple):
        return list(found)
    return [found]


def as_number(raw: Any) -> float | None:
    """Return *raw* as a finite float, or None."""
    try:
        number = float(raw)
    except BROKEN:
        return None
    return number if math.isfinite(number) else None


def numbers(dataset: Dataset | None, keyword: str) -> list[float | None]:
    """Return all values as finite floats, None where one is not."""
    return [as_number(each) for each in values(dataset, keyword)]


def number(dataset: Dataset | None, keyword: str) -> float | None:
    """Return the first value as a finite float, or None."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def integer(dataset: Dataset | None, keyword: str) -> int | None:
    """Return the first value as an integer, or None."""
    found = number(dataset, keyword)
    return None if found is None else int(found)


def text(dataset: Dataset | None, keyword: str) -> str:
    """Return the first value as a stripped text, empty where there is none."""
    found = values(dataset, keyword)
    if not found or isinstance(found[0], bytes):
        return ""
    return str(found[0]).strip(" \0")


def items(dataset: Dataset | None, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, empty where it is absent or not one."""
    return [each for each in values(dataset, keyword) if isinstance(each, Dataset)]


def item(dataset: Dataset | None, keyword: str) -> Dataset | None:
    """Return the first item of a sequence, or None."""
    found = items(dataset, keyword)
    return found[0] if found else None


def functional_group(header: Dataset, keyword: str, frame: int) -> Dataset | None:
    """Return the macro item that applies to a frame (counted from 0), or None.

    A per-frame item wins over a shared one where both are present, against the
    rule that only one may be (PS3.3 C.7.6.16.1.1).
    """
    per_frame = value(header, "PerFrameFunctionalGroupsSequence")
    if per_frame is not None:
        try:
            found = item(per_frame[frame], keyword)
        except BROKEN:
            found = None
        if found is not None:
            return found
    return item(item(header, "SharedFunctionalGroupsSequence"), keyword)
