"""What a data set consists of: elements, items, bulk, and how they are written.

An element is a tuple (tag, VR, value), for there are many; a value is `bytes`, a
`Bulk` that was left where it is, or a `Sequence` of items.  The three ways in which
bytes can fail to be a data set are here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ingester.errors import Reject
from ingester.model import Reason

#: Binary values longer than this are bulk: left where they are (bytes).
INLINE = 64


class Encoding(NamedTuple):
    """How elements are written; `order` is that of `struct`."""

    is_explicit: bool
    is_big_endian: bool

    @property
    def order(self) -> str:
        """Return the byte order as `struct` names it."""
        return ">" if self.is_big_endian else "<"

    @property
    def byte_order(self) -> Literal["big", "little"]:
        """Return the byte order as `int` names it."""
        return "big" if self.is_big_endian else "little"


EXPLICIT_LITTLE = Encoding(True, False)
IMPLICIT_LITTLE = Encoding(False, False)
EXPLICIT_BIG = Encoding(True, True)
IMPLICIT_BIG = Encoding(False, True)


class Limits(NamedTuple):
    """How much a header may ask of us; the defaults are the configuration's."""

    nesting: int = 64
    elements: int = 500_000
    header_bytes: int = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Bulk:
    """A value that was not read: where it is, and how long.

    `spans` are the (offset, length) of the fragments where it is encapsulated; the
    first one is the offset table.
    """

    offset: int
    length: int
    spans: tuple[tuple[int, int], ...] | None = None


@dataclass(slots=True)
class Sequence:
    """The items of a sequence, each a list of elements.

    `span` is the (offset, length) of its bytes, where a length was written.
    """

    encoding: Encoding
    items: list[list[Element]] = field(default_factory=list)
    span: tuple[int, int] | None = None


Value = bytes | Bulk | Sequence
Element = tuple[int, bytes, Value]


def incomplete(message: str) -> Reject:
    """Return the error for a file that more bytes could still make whole."""
    return Reject(Reason.INCOMPLETE, message, may_grow=True)


def malformed(message: str) -> Reject:
    """Return the error for bytes that break the rules of encoding."""
    return Reject(Reason.MALFORMED, message)


def too_large() -> Reject:
    """Return the error for a header beyond the limits."""
    return Reject(
        Reason.TOO_LARGE, "The header has more elements or bytes than the configured limits allow."
    )
