"""Elements as bytes, right and wrong ones: what pydicom would never write."""

from __future__ import annotations

import struct

from tests.factory import uid

UNDEFINED = 0xFFFFFFFF
SOP_CLASS = b"1.2.840.10008.5.1.4.1.1.7"
EXPLICIT = b"1.2.840.10008.1.2.1"
IMPLICIT = b"1.2.840.10008.1.2"
BIG = b"1.2.840.10008.1.2.2"
DEFLATED = b"1.2.840.10008.1.2.1.99"
JPEG = b"1.2.840.10008.1.2.4.50"

LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


def even(value: bytes, pad: bytes = b" ") -> bytes:
    return value + pad if len(value) % 2 else value


def el(
    tag: int, vr: bytes, value: bytes = b"", *, length: int | None = None, order: str = "<"
) -> bytes:
    """Return an explicit element; *length* may lie."""
    length = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in LONG:
        return head + b"\0\0" + struct.pack(order + "L", length) + value
    return head + struct.pack(order + "H", length) + value


def im(tag: int, value: bytes = b"", *, length: int | None = None, order: str = "<") -> bytes:
    """Return an implicit element."""
    length = len(value) if length is None else length
    return struct.pack(order + "HHL", tag >> 16, tag & 0xFFFF, length) + value


def item(content: bytes = b"", *, length: int | None = None) -> bytes:
    return im(0xFFFEE000, content, length=length)


ITEM_END = im(0xFFFEE00D)
SEQUENCE_END = im(0xFFFEE0DD)


def open_item(content: bytes = b"") -> bytes:
    return item(length=UNDEFINED) + content + ITEM_END


def open_sequence(tag: int, *items: bytes, vr: bytes = b"SQ") -> bytes:
    return el(tag, vr, length=UNDEFINED) + b"".join(items) + SEQUENCE_END


def meta(syntax: bytes = EXPLICIT, *, group_length: int | None = None, extra: bytes = b"") -> bytes:
    body = el(0x00020001, b"OB", b"\0\1")
    body += el(0x00020002, b"UI", even(SOP_CLASS, b"\0"))
    body += el(0x00020003, b"UI", even(uid(1, 1, 1, 1).encode(), b"\0"))
    if syntax:
        body += el(0x00020010, b"UI", even(syntax, b"\0"))
    body += extra
    length = len(body) if group_length is None else group_length
    return el(0x00020000, b"UL", struct.pack("<L", length)) + body


_ROWS: dict[str, tuple[int, bytes, bytes]] = {
    "sop_class": (0x00080016, b"UI", SOP_CLASS),
    "sop": (0x00080018, b"UI", uid(1, 1, 1, 1).encode()),
    "modality": (0x00080060, b"CS", b"OT"),
    "name": (0x00100010, b"PN", b"Doe^Jane"),
    "study": (0x0020000D, b"UI", uid(1, 1).encode()),
    "series": (0x0020000E, b"UI", uid(1, 1, 1).encode()),
}


def identity(replaced: dict[str, bytes | None]) -> list[tuple[int, bytes, bytes]]:
    """Return (tag, VR, value) of the elements every object here has."""
    rows = [(tag, vr, replaced.get(name, value)) for name, (tag, vr, value) in _ROWS.items()]
    return [
        (tag, vr, even(value, b"\0" if vr == b"UI" else b" "))
        for tag, vr, value in rows
        if value is not None
    ]


def explicit(order: str = "<", **replaced: bytes | None) -> bytes:
    return b"".join(el(tag, vr, value, order=order) for tag, vr, value in identity(replaced))


def implicit(order: str = "<", **replaced: bytes | None) -> bytes:
    return b"".join(im(tag, value, order=order) for tag, _, value in identity(replaced))


def part10(
    data_set: bytes,
    syntax: bytes = EXPLICIT,
    *,
    preamble: bytes = bytes(128),
    group_length: int | None = None,
) -> bytes:
    return preamble + b"DICM" + meta(syntax, group_length=group_length) + data_set


PIXELS = el(0x7FE00010, b"OW", bytes(range(200)))
