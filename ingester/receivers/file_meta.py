"""File Meta Information, and the look at who an arriving data set says it is.

The data set's bytes are written as they came; before them goes a preamble and a
group 0002 of our own making (PS3.10 section 7.1), from what the association and the
command said.  So that a file never claims another identity than its contents, the
first bytes of the data set are read as far as (0008,0018) and compared.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from ingester.receivers.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

#: How much of the data set is looked at; (0008,0018) stands at its very beginning.
HEAD_BYTES = 256 * 1024

_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_SOP_CLASS = (0x0008, 0x0016)
_SOP_INSTANCE = (0x0008, 0x0018)
_ITEM = (0xFFFE, 0xE000)
_ITEM_END = (0xFFFE, 0xE00D)
_SEQUENCE_END = (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN"))
_LONG_VRS |= {b"UR", b"UT", b"UV"}
_VRS = _LONG_VRS | frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_NOT_IN_AN_AE_TITLE = re.compile(rb"[^\x20-\x5b\x5d-\x7e]")


def preamble_and_meta(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    calling_ae_title: str,
    receiving_ae_title: str,
) -> bytes:
    """Return the first bytes of a Part 10 file, up to the data set.

    (0002,0016) is the AE that wrote the content and (0002,0017) the one that sent it
    over the network: the calling AE, both, as far as we can know.  (0002,0018) is the
    AE that received it: ours.

    References
    ----------
    PS3.10 table 7.1-1
    """
    body = b"".join(
        (
            struct.pack("<HH2sHL", 2, 0x0001, b"OB", 0, 2) + b"\0\1",
            _uid(0x0002, sop_class_uid),
            _uid(0x0003, sop_instance_uid),
            _uid(0x0010, transfer_syntax_uid),
            _uid(0x0012, IMPLEMENTATION_CLASS_UID),
            _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
            _text(0x0016, b"AE", _title(calling_ae_title)),
            _text(0x0017, b"AE", _title(calling_ae_title)),
            _text(0x0018, b"AE", _title(receiving_ae_title)),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body)) + body


def _uid(element: int, uid: str) -> bytes:
    raw = uid.encode("ascii")
    raw += b"\0" * (len(raw) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(raw)) + raw


def _text(element: int, vr: bytes, raw: bytes) -> bytes:
    raw += b" " * (len(raw) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(raw)) + raw


def _title(title: str) -> bytes:
    """Return an AE title without what its VR forbids (PS3.5 table 6.2-1)."""
    return _NOT_IN_AN_AE_TITLE.sub(b"_", title.encode("latin-1", "replace"))[:16]


class Identity(NamedTuple):
    """Who a data set says it is; None where its beginning does not say."""

    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    is_open: bool = False  # the head ended before the place where it would stand


def identify(head: bytes, transfer_syntax_uid: str, *, is_all: bool) -> Identity:
    """Read SOP Class and SOP Instance UID from the beginning of a data set.

    Parameters
    ----------
    head : its first bytes, at most `HEAD_BYTES`
    transfer_syntax_uid : the one agreed; where it does not fit the bytes, the other
        encodings are tried, as some senders convert less than they promise
    is_all : whether the head is the whole data set
    """
    if transfer_syntax_uid == _DEFLATED:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, HEAD_BYTES)
        except zlib.error:
            return Identity()
        is_all = False
    found = [_Head(head, *each, is_all).identity() for each in _encodings(transfer_syntax_uid)]
    named = (each for each in found if each.sop_instance_uid is not None)
    return next(named, next((each for each in found if each.is_open), Identity()))


def _encodings(transfer_syntax_uid: str) -> tuple[tuple[bool, str], ...]:
    explicit, implicit, big = (False, "<"), (True, "<"), (False, ">")
    if transfer_syntax_uid == _IMPLICIT:
        return implicit, explicit, big
    if transfer_syntax_uid == _BIG_ENDIAN:
        return big, explicit, implicit
    return explicit, implicit, big


class _Unreadable(Exception):
    """These bytes are no data set in this encoding."""


class _Cut(Exception):
    """The bytes end before the answer."""


class _Head:
    """A walk over the first elements of a data set."""

    def __init__(self, data: bytes, implicit: bool, order: str, is_all: bool) -> None:
        self.data = data
        self.implicit = implicit
        self.is_all = is_all
        self._tag = struct.Struct(order + "HH")
        self._long = struct.Struct(order + "L")
        self._short = struct.Struct(order + "H")

    def identity(self) -> Identity:
        found: dict[tuple[int, int], str] = {}
        at = 0
        tag = (0, 0)
        try:
            while at < len(self.data) and not (tag > _SOP_INSTANCE and _SOP_INSTANCE in found):
                tag, length, at = self._element(at)
                if length == _UNDEFINED:
                    at = self._after_sequence(at)
                    continue
                if at + length > len(self.data):
                    raise _Cut
                if tag in (_SOP_CLASS, _SOP_INSTANCE):
                    value = self.data[at : at + length].decode("latin-1").rstrip("\0 ")
                    found.setdefault(tag, value)
                at += length
        except _Unreadable:
            return Identity()
        except _Cut:
            if tag <= _SOP_INSTANCE and not self.is_all and not found:
                return Identity(is_open=True)
        return Identity(found.get(_SOP_CLASS), found.get(_SOP_INSTANCE) or None)

    def _element(self, at: int) -> tuple[tuple[int, int], int, int]:
        """Return tag, length and where the value begins."""
        if at + 8 > len(self.data):
            raise _Cut
        group, element = self._tag.unpack_from(self.data, at)
        tag = (group, element)
        if self.implicit or group == 0xFFFE:
            return tag, self._long.unpack_from(self.data, at + 4)[0], at + 8
        vr = self.data[at + 4 : at + 6]
        if vr not in _VRS:
            raise _Unreadable
        if vr not in _LONG_VRS:
            return tag, self._short.unpack_from(self.data, at + 6)[0], at + 8
        if at + 12 > len(self.data):
            raise _Cut
        return tag, self._long.unpack_from(self.data, at + 8)[0], at + 12

    def _after_sequence(self, at: int) -> int:
        """Return where a sequence of undefined length ends; never recursive."""
        depth = 1
        while depth:
            tag, length, at = self._element(at)
            if tag in (_SEQUENCE_END, _ITEM_END):
                depth -= 1
            elif length == _UNDEFINED:
                depth += 1
            elif tag != _ITEM:
                at += length
        return at
