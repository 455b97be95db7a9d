"""A DICOM file: preamble, File Meta Information, and a data set in some encoding.

`read` finds where the data set begins and how it is written, and walks it to its
last byte.  The declared transfer syntax is tried first; where the bytes evidently are
written in another way, they are read that way and the file keeps its bytes.

References
----------
PS3.10 §7.1 (File Meta Information), PS3.5 Annex A (transfer syntaxes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ingester.dicom.dictionary import LONG, SHORT, entry
from ingester.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    INLINE,
    Bulk,
    Element,
    Encoding,
    Limits,
    incomplete,
    malformed,
)
from ingester.dicom.sources import Source, inflated
from ingester.dicom.uid import UnsafeUid, validated_uid
from ingester.dicom.walk import Walker
from ingester.errors import Reject
from ingester.model import Reason

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = frozenset(
    ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
)
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_TRANSFER_SYNTAX, _MEDIA_SOP_CLASS = 0x00020010, 0x00020002
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018

#: A DICOMDIR of a whole disc has more elements than any image.
_DIRECTORY_FACTOR = 4

_UIDS = {
    EXPLICIT_LITTLE: EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_LITTLE: IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_BIG: EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_BIG: IMPLICIT_VR_LITTLE_ENDIAN,
}


class Settings(NamedTuple):
    """The limits of reading one file."""

    walk: Limits = Limits()
    deflate_ratio: int = 200
    object_bytes: int = 8 * 2**30


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file that was walked to its last byte."""

    meta: list[Element]
    elements: list[Element]
    encoding: Encoding
    is_deflated: bool
    data_set_start: int  # the first byte after group 0002
    transfer_syntax_uid: str
    source: Source  # what the offsets of `Bulk` refer to
    notes: set[str] = field(default_factory=set)

    def meta_value(self, tag: int) -> bytes | None:
        """Return the value of a File Meta element."""
        return _value(self.meta, tag)


def read(source: Source, settings: Settings = Settings()) -> Parsed:  # noqa: B008 (immutable)
    """Read a file that bears the DICOM prefix, or looks like a bare data set.

    Raises
    ------
    Reject
        With the reason why the file is not whole, not sound or not DICOM.
    """
    window, base = source.at(0, 132)
    if window[128 - base : 132 - base] == b"DICM":
        notes = _preamble_notes(window[:128])
        return _read_data_set(source, _file_meta(source, 132, notes), settings, notes)
    return _read_bare(source, settings)


def data_set_start(source: Source) -> int:
    """Return where the data set begins, as far as the first bytes can tell."""
    window, base = source.at(0, 132)
    notes: set[str] = set()
    try:
        if window[128 - base : 132 - base] == b"DICM":
            return _file_meta(source, 132, notes).end
        return _file_meta(source, 0, notes).end if _begins_with_meta(window) else 0
    except Reject:
        return 0


def looks_bare(head: bytes) -> bool:
    """Tell whether a data set without preamble may begin like this."""
    return any(_is_plausible(head, encoding) for encoding in _UIDS)


# -- File Meta Information ---------------------------------------------------------------


class _Meta(NamedTuple):
    elements: list[Element]
    end: int


def _file_meta(source: Source, start: int, notes: set[str]) -> _Meta:
    # Always explicit little endian (PS3.10 §7.1); read element by element, for the
    # group length is often missing or wrong.
    elements: list[Element] = []
    pos, last, declared_end = start, 0, -1
    while pos < source.size:
        window, base = source.at(pos, 12 + INLINE)
        head = window[pos - base : pos - base + 12]
        if head[:2] != b"\2\0":
            break
        if len(head) < 8:
            raise _meta_cut()
        tag = 0x00020000 | int.from_bytes(head[2:4], "little")
        if pos == declared_end and not (tag > last and head[4:6] in SHORT | LONG):
            break  # group 0002 once more, in the data set itself
        header, length, vr = _meta_head(source, pos, head, notes)
        if header == 0:
            if pos < declared_end <= source.size:
                pos = declared_end
                break
            raise malformed("The file meta information at the beginning of the file is damaged.")
        stop = pos + header + length
        if stop > source.size:
            raise _meta_cut()
        if length > 65536 or (length > INLINE and vr in (b"OB", b"UN")):
            elements.append((tag, vr, Bulk(pos + header, length)))
        else:
            window, base = source.at(pos, header + length)
            elements.append((tag, vr, window[pos + header - base : stop - base]))
        if tag == 0x00020000 and length == 4 and last == 0:
            value = elements[-1][2]
            declared_end = stop + int.from_bytes(value, "little") if type(value) is bytes else -1
        if len(elements) > 1000:
            raise malformed("The file meta information has far too many elements.")
        last, pos = tag, stop
    if not elements:
        notes.add("file-meta-absent")
    elif declared_end < 0:
        notes.add("file-meta-group-length-absent")
    elif pos != declared_end:
        notes.add("file-meta-group-length-wrong")
    return _Meta(elements, pos)


def _meta_head(source: Source, pos: int, head: bytes, notes: set[str]) -> tuple[int, int, bytes]:
    # Returns (bytes before the value, its length, VR); (0, …) where nothing fits.
    vr = head[4:6]
    if vr in SHORT:
        return 8, int.from_bytes(head[6:8], "little"), vr
    long = int.from_bytes(head[8:12], "little")
    if vr in LONG:
        return (12, long, vr) if len(head) == 12 else (0, 0, vr)
    # No such VR: believe the form of length that leads to the next element.
    notes.add("file-meta-unknown-vr")
    implicit, short = (int.from_bytes(head[4:8], "little"), int.from_bytes(head[6:8], "little"))
    for header, length in ((8, implicit), (8, short), (12, long)):
        if _leads_on(source, pos + header + length, is_explicit=True):
            return header, length, vr
    if _leads_on(source, pos + 8 + implicit, is_explicit=False):
        return 8, implicit, entry(0x00020000 | int.from_bytes(head[2:4], "little")).vr
    return 0, 0, vr


def _leads_on(source: Source, pos: int, *, is_explicit: bool) -> bool:
    window, base = source.at(pos, 8)
    head = window[pos - base : pos - base + 8] if base <= pos else b""
    if head[:2] == b"\2\0":
        return not is_explicit or head[4:6] in SHORT or head[4:6] in LONG
    return any(_is_plausible(head, encoding) for encoding in _UIDS)


def _meta_cut() -> Reject:
    return incomplete("The file was cut short: it ends within its first few entries.")


def _preamble_notes(preamble: bytes) -> set[str]:
    # A preamble may begin anything (CVE-2019-11687); a TIFF is what it is made for.
    head = preamble.lstrip().lower()
    if preamble.startswith((b"MZ", b"\x7fELF", b"#!", b"\xca\xfe\xba\xbe")) or preamble[:4] in (
        b"\xfe\xed\xfa\xce",
        b"\xfe\xed\xfa\xcf",
        b"\xce\xfa\xed\xfe",
        b"\xcf\xfa\xed\xfe",
    ):
        return {"executable-preamble"}
    if b"%PDF" in preamble or preamble.startswith(b"PK") or head.startswith((b"<!", b"<html")):
        return {"polyglot-preamble"}
    return {"polyglot-preamble"} if b"<script" in head or b"<html" in head else set()


# -- the data set ------------------------------------------------------------------------


def _read_data_set(source: Source, meta: _Meta, settings: Settings, notes: set[str]) -> Parsed:
    declared = _declared(meta.elements, notes)
    if meta.end >= source.size:
        raise incomplete("The file was cut short: it ends where the header should begin.")
    if _value_uid(meta.elements, _MEDIA_SOP_CLASS) == MEDIA_STORAGE_DIRECTORY:
        limits = settings.walk
        settings = settings._replace(
            walk=Limits(
                limits.nesting,
                limits.elements * _DIRECTORY_FACTOR,
                limits.header_bytes * _DIRECTORY_FACTOR,
            )
        )
    failure: Reject | None = None
    farthest = -1
    for encoding, is_deflated in _candidates(declared, source, meta.end):
        is_first = failure is None
        try:
            content, start = source, meta.end
            if is_deflated:
                content = inflated(
                    source, start, ratio=settings.deflate_ratio, most=settings.object_bytes
                )
                start = 0
            walker = Walker(content, start, encoding, settings.walk)
        except Reject as reject:
            if reject.refusal.reason is not Reason.MALFORMED:
                raise
            failure, farthest = reject, 0
            continue
        try:
            elements = walker.walk()
        except Reject as reject:
            is_beyond_limits = reject.refusal.reason not in (Reason.INCOMPLETE, Reason.MALFORMED)
            if is_first and is_beyond_limits:
                raise
            # The encoding that explains most of the file says what is wrong with it.
            if len(walker.elements) > farthest and (is_first or not is_beyond_limits):
                failure, farthest = reject, len(walker.elements)
            continue
        if not is_first and _value(elements, _SOP_INSTANCE) is None:
            continue
        if not is_first:
            notes.add("encoding-differs")
        notes |= walker.notes
        return Parsed(
            meta=meta.elements,
            elements=elements,
            encoding=encoding,
            is_deflated=is_deflated,
            data_set_start=meta.end,
            transfer_syntax_uid=declared or _UIDS[encoding],
            source=content,
            notes=notes,
        )
    assert failure is not None
    raise failure


def _declared(meta: list[Element], notes: set[str]) -> str | None:
    try:
        declared = validated_uid(_value(meta, _TRANSFER_SYNTAX))
    except UnsafeUid:
        notes.add("transfer-syntax-invalid")
        return None
    if declared is None and meta:
        notes.add("transfer-syntax-absent")
    return declared


def _candidates(declared: str | None, source: Source, start: int) -> list[tuple[Encoding, bool]]:
    # The declared encoding first, then those that the first bytes do not rule out.
    others = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, IMPLICIT_BIG]
    window, base = source.at(start, 16)
    head = window[start - base : start - base + 16]
    plausible = [each for each in others if _is_plausible(head, each)]
    if declared is None:
        return [(each, False) for each in plausible or others]
    if declared in DEFLATED:
        return [(EXPLICIT_LITTLE, True), *((each, False) for each in plausible)]
    first = {
        IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
        EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
    }.get(declared, EXPLICIT_LITTLE)
    return [(first, False), *((each, False) for each in plausible if each != first)]


def _is_plausible(head: bytes, encoding: Encoding) -> bool:
    # A data set begins with a small even group, and with a VR or a sensible length.
    if len(head) < 8:
        return False
    group = int.from_bytes(head[:2], encoding.byte_order)
    if group & 1 or group > 0x0088 or not any(head[:4]):
        return False
    if encoding.is_explicit:
        return head[4:6] in SHORT or head[4:6] in LONG
    length = int.from_bytes(head[4:8], encoding.byte_order)
    return length < 65536 or length == 0xFFFFFFFF


def _read_bare(source: Source, settings: Settings) -> Parsed:
    # No preamble, perhaps no File Meta: believed only if it reads like DICOM.
    window, base = source.at(0, 16)
    head = window[-base : 16 - base] if base else window[:16]
    if not looks_bare(head):
        raise not_dicom()
    notes = {"preamble-absent"}
    meta = _Meta([], 0)
    if _begins_with_meta(head):
        meta = _file_meta(source, 0, notes)
    else:
        notes.add("file-meta-absent")
    try:
        parsed = _read_data_set(source, meta, settings, notes)
    except Reject as reject:
        known = _count_known(source, meta.end)
        if known >= 3 or (known and reject.refusal.may_grow and source.size < 512):
            raise
        raise not_dicom() from None
    if _value(parsed.elements, _SOP_INSTANCE) is None:
        known = sum(entry(tag).is_known for tag, _, _ in parsed.elements if not tag >> 16 & 1)
        if known < 5:
            raise not_dicom()
    return parsed


def _begins_with_meta(head: bytes) -> bool:
    return head[:2] == b"\2\0" and (head[4:6] in SHORT or head[4:6] in LONG)


def _count_known(source: Source, start: int) -> int:
    # How many of the first elements the dictionary knows, with the VR it gives them.
    best = 0
    for encoding in _UIDS:
        walker = Walker(source, start, encoding, Limits(8, 64, 65536))
        try:
            walker.walk()
        except Reject:
            pass
        known = 0
        for tag, vr, _ in walker.elements:
            if tag & 0x10000 or not entry(tag).is_known or vr not in entry(tag).vr.split(b" or "):
                break
            known += 1
        best = max(best, known)
    return best


def not_dicom() -> Reject:
    """Return the error for bytes that are no DICOM object."""
    return Reject(Reason.NOT_DICOM, "This is not a DICOM file.")


def _value(elements: list[Element], tag: int) -> bytes | None:
    for each, _, value in elements:
        if each == tag:
            return value if type(value) is bytes else None
    return None


def _value_uid(elements: list[Element], tag: int) -> str | None:
    try:
        return validated_uid(_value(elements, tag))
    except UnsafeUid:
        return None
