"""Zip archives, read by their central directory and checked before a byte is unpacked.

Read here and not by `zipfile`, because that reads any number of entries into memory,
follows entries that overlap, and believes sizes.  Here the directory is walked within
limits, every local header is looked up, and a member's bytes count only if their
number and checksum are what the directory says.  The first page is preceded by a
survey of the whole; the pages after it go on in the directory where the last one ended.

References
----------
PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from ingester.errors import Reject
from ingester.model import Reason, Refusal
from ingester.unpack import inflate, names, refusals
from ingester.unpack.request import CHUNK, Extracted, ExtractRequest, Place, Survey, UnpackLimits
from ingester.unpack.sink import Page

_KIND = "zip"
_END = struct.Struct("<4sHHHHLLH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQHHLLQQQQ")
_ENTRY = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_END_MAGIC, _END64_LOCATOR_MAGIC, _END64_MAGIC = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_ENTRY_MAGIC, _LOCAL_MAGIC = b"PK\x01\x02", b"PK\x03\x04"
_LONGEST_COMMENT = 0xFFFF
_IN_EXTRA_16, _IN_EXTRA_32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_EXTRA = 1
_ENCRYPTED, _STRONGLY_ENCRYPTED, _UTF8 = 0x1, 0x40, 0x800
_MADE_ON_UNIX = 3


class _Damage(Exception):
    """A member's bytes are not what the directory says."""


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int  # where the first entry stands in the file
    size: int
    shift: int  # bytes before the archive, which its own offsets do not count
    entries: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class _Entry:
    place: Place
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    unpacked: int
    offset: int  # of the local header, in the file
    unix_mode: int
    following: int  # where the next entry stands in the file

    @property
    def is_folder(self) -> bool:
        return names.is_folder(self.name) and self.unpacked == 0

    @property
    def is_passed_over(self) -> bool:
        return self.is_folder or names.is_litter(self.name)

    @property
    def is_regular(self) -> bool:
        return stat.S_IFMT(self.unix_mode) in (0, stat.S_IFREG, stat.S_IFDIR)


def extract_zip(file: BinaryIO, request: ExtractRequest) -> Extracted:
    """Unpack one page of a zip archive.

    Raises
    ------
    Reject
        the archive file as a whole cannot be unpacked; nothing of this page was kept
    """
    directory = _find_directory(file)
    is_first = request.first.number <= 1
    survey = _survey(file, directory, request.limits) if is_first else None
    page = Page(request, survey)
    place = Place(1, directory.start) if is_first else request.first
    for entry in _entries(file, directory, place):
        if page.is_full:
            return page.extracted(entry.place)
        if entry.is_passed_over:
            page.skip()
        elif entry.place.number not in request.done:
            _extract(file, page, entry)
    return page.extracted(None)


def _extract(file: BinaryIO, page: Page, entry: _Entry) -> None:
    refusal = None
    if names.is_unsafe(entry.name):
        refusal = Refusal(
            Reason.ARCHIVE_MEMBER_UNSAFE, "Its name points out of the archive file's folder."
        )
    elif not entry.is_regular:
        refusal = Refusal(Reason.ARCHIVE_MEMBER_UNSAFE, "It is a link or a device, not a file.")
    start = _data_offset(file, entry)
    number = entry.place.number
    try:
        page.add(number, entry.name, _unpacked(file, entry, start), refusal)
    except _Damage as damage:
        refusal = Refusal(
            Reason.MALFORMED,
            f"The archive file is damaged here: {damage}. What is kept is the member's raw"
            " record from the archive file. Copy or send the archive file again.",
        )
        page.add(number, entry.name, _record(file, entry, start), refusal)


def _survey(file: BinaryIO, directory: _Directory, limits: UnpackLimits) -> Survey:
    """Judge the whole by its directory, so that what is refused is refused beforehand."""
    if directory.entries > limits.members:
        raise refusals.too_many(_KIND, limits)
    size = os.fstat(file.fileno()).st_size
    starts, ends = array("Q"), array("Q")
    count = members = total = packed = 0
    for entry in _entries(file, directory, Place(1, directory.start)):
        count += 1
        if count > limits.members:
            raise refusals.too_many(_KIND, limits)
        _judge(entry, limits)
        if entry.offset + entry.packed > size:
            raise _points_outside()
        total += entry.unpacked
        packed += entry.packed
        members += not entry.is_passed_over
        starts.append(entry.offset)
        ends.append(_data_offset(file, entry) + entry.packed)
        if ends[-1] > size:
            raise _points_outside()
    # Writers without ZIP64 let the count wrap round.
    if (count - directory.entries) % (_IN_EXTRA_16 + 1):
        raise _short_directory()
    if total > limits.total_bytes:
        raise refusals.too_large(_KIND, limits)
    if _is_dense(total, packed, limits):
        raise refusals.too_dense(_KIND, limits)
    spans = zip(starts, ends, strict=True)
    is_in_order = all(one <= other for one, other in pairwise(starts))
    for (_, end), (following, _) in pairwise(spans if is_in_order else sorted(spans)):
        if following < end:
            raise refusals.overlapping(_KIND)
    return Survey(members, total)


def _judge(entry: _Entry, limits: UnpackLimits) -> None:
    if entry.flags & (_ENCRYPTED | _STRONGLY_ENCRYPTED):
        raise Reject(
            Reason.ARCHIVE_ENCRYPTED,
            "The zip archive is encrypted: unpack it with its password and drop the files.",
        )
    if not entry.is_folder and not inflate.is_readable(entry.method):
        how = inflate.method_name(entry.method)
        raise refusals.unreadable(_KIND, f"is packed in a way that is not read here ({how})")
    if _is_dense(entry.unpacked, entry.packed, limits):
        raise refusals.too_dense(_KIND, limits)


def _is_dense(unpacked: int, packed: int, limits: UnpackLimits) -> bool:
    return unpacked > limits.ratio_floor_bytes and unpacked > limits.ratio * packed


def _data_offset(file: BinaryIO, entry: _Entry) -> int:
    """Look up a member's local header; its bytes begin behind it."""
    local = os.pread(file.fileno(), _LOCAL.size, entry.offset)
    if len(local) < _LOCAL.size or not local.startswith(_LOCAL_MAGIC):
        raise refusals.malformed(_KIND, "its directory points to no member")
    name_length, extra_length = _LOCAL.unpack(local)[9:]
    return entry.offset + _LOCAL.size + int(name_length) + int(extra_length)


def _entries(file: BinaryIO, directory: _Directory, place: Place) -> Iterator[_Entry]:
    """Yield the directory's entries from *place* on."""
    file.seek(place.offset)
    at, number = place.offset, place.number
    while at < directory.end:
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(_ENTRY_MAGIC):
            raise refusals.malformed(_KIND, "its directory is damaged")
        fields = _ENTRY.unpack(head)
        tail = file.read(fields[10] + fields[11] + fields[12])
        entry = _entry(Place(number, at), fields, tail, directory.shift)
        at, number = entry.following, number + 1
        yield entry
    if at > directory.end:
        raise _short_directory()


def _points_outside() -> Reject:
    return refusals.malformed(_KIND, "its directory points outside the file")


def _short_directory() -> Reject:
    return refusals.malformed(_KIND, "its directory does not hold what it promises")


def _find_directory(file: BinaryIO) -> _Directory:
    """Find the end record, and by it the directory, at the end of the file.

    A record is believed where the file ends with it (but for zeros) and, in a file that
    begins with a member, where its directory counts from the file's first byte.  Any other
    is that of an archive within: of a member, when this one was cut short, or of a second
    archive behind the first.
    """
    size = file.seek(0, os.SEEK_END)
    from_ = max(0, size - _END.size - _LONGEST_COMMENT - _END64_LOCATOR.size)
    file.seek(0)
    begins_with_member = file.read(len(_LOCAL_MAGIC)) == _LOCAL_MAGIC
    file.seek(from_)
    tail = file.read()
    is_followed = False
    rejected: Reject | None = None
    for at in _end_records(tail):
        try:
            found = _directory(file, tail, from_, at)
        except Reject as reject:
            if _ends_file(tail, at):
                rejected = rejected or reject
            continue
        if found.shift and begins_with_member:
            continue
        if _ends_file(tail, at):
            return found
        is_followed = True
    if rejected is not None:
        raise rejected
    if is_followed:
        raise refusals.malformed(_KIND, "something follows its end")
    raise refusals.cut_short(_KIND, "the directory at its end is missing")


def _end_records(tail: bytes) -> Iterator[int]:
    """Yield where an end record may stand, the last one first."""
    at = tail.rfind(_END_MAGIC)
    while at >= 0:
        if len(tail) - at >= _END.size:
            yield at
        at = tail.rfind(_END_MAGIC, 0, at)


def _ends_file(tail: bytes, at: int) -> bool:
    """Return whether nothing but zeros follows an end record and its comment."""
    comment = _END.unpack_from(tail, at)[-1]
    end = at + _END.size + comment
    return end <= len(tail) and not tail[end:].strip(b"\0")


def _directory(file: BinaryIO, tail: bytes, from_: int, at: int) -> _Directory:
    _, disk, first_disk, _, entries, length, offset, _ = _END.unpack_from(tail, at)
    end = from_ + at
    locator_at = at - _END64_LOCATOR.size
    if locator_at >= 0 and tail.startswith(_END64_LOCATOR_MAGIC, locator_at):
        end, disk, first_disk, entries, length, offset = _read_end64(file, tail, locator_at, end)
    if disk or first_disk:
        raise refusals.unreadable(_KIND, "is one part of several")
    start = end - length
    if start < 0 or offset > start:
        raise _points_outside()
    return _Directory(start, length, start - offset, entries)


def _read_end64(
    file: BinaryIO, tail: bytes, locator_at: int, end: int
) -> tuple[int, int, int, int, int, int]:
    """Return the ZIP64 end record: its place, disks, entries, length and offset."""
    _, _, where, disks = _END64_LOCATOR.unpack_from(tail, locator_at)
    # Its own offset does not count bytes before the archive; it usually stands right
    # before the locator, so look there first.
    for place in (end - _END64_LOCATOR.size - _END64.size, where):
        if not 0 <= place < end:
            continue
        file.seek(place)
        record = file.read(_END64.size)
        if len(record) == _END64.size and record.startswith(_END64_MAGIC):
            _, _, _, _, disk, first_disk, _, entries, length, offset = _END64.unpack(record)
            return place, disk or disks > 1, first_disk, entries, length, offset
    raise refusals.malformed(_KIND, "its ZIP64 end record is missing")


def _entry(place: Place, fields: tuple[int, ...], tail: bytes, shift: int) -> _Entry:
    (_, made_by, _, flags, method, _, _, crc, packed, unpacked) = fields[:10]
    name_length, extra_length, _, _, _, attributes, offset = fields[10:]
    raw_name = tail[:name_length]
    extra = tail[name_length : name_length + extra_length]
    unpacked, packed, offset = _zip64_sizes(extra, unpacked, packed, offset)
    return _Entry(
        place=place,
        name=_decoded(raw_name, is_utf8=bool(flags & _UTF8)),
        flags=flags,
        method=method,
        crc=crc,
        packed=packed,
        unpacked=unpacked,
        offset=offset + shift,
        unix_mode=attributes >> 16 if made_by >> 8 == _MADE_ON_UNIX else 0,
        following=place.offset + _ENTRY.size + len(tail),
    )


def _zip64_sizes(extra: bytes, *sizes: int) -> tuple[int, ...]:
    """Return the sizes, those that do not fit 32 bits taken from the extra field."""
    if _IN_EXTRA_32 not in sizes:
        return sizes
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_EXTRA:
            body = extra[at + 4 : at + 4 + length]
            wide = iter(struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8]))
            return tuple(next(wide, s) if s == _IN_EXTRA_32 else s for s in sizes)
        at += 4 + length
    return sizes


def _decoded(raw: bytes, *, is_utf8: bool) -> str:
    """Decode a name: UTF-8 where flagged or evident, else code page 437."""
    if is_utf8:
        return raw.decode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _unpacked(file: BinaryIO, entry: _Entry, start: int) -> Iterator[bytes]:
    """Yield a member's bytes; raises `_Damage` where they are not as promised."""
    crc = 0
    size = 0
    for chunk in _inflated(file, entry, start):
        size += len(chunk)
        if size > entry.unpacked:
            raise _Damage("more bytes than its directory says")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size != entry.unpacked:
        raise _Damage("fewer bytes than its directory says")
    if crc != entry.crc:
        raise _Damage("the checksum is wrong")


def _inflated(file: BinaryIO, entry: _Entry, start: int) -> Iterator[bytes]:
    if entry.method == inflate.STORED:
        yield from _slice(file, start, entry.packed)
        return
    stream = inflate.inflate_of(entry.method)
    try:
        for packed in _slice(file, start, entry.packed):
            if stream.eof:
                raise _Damage("more packed bytes than it needs")
            data = packed
            while chunk := stream.decompress(data, CHUNK):
                yield chunk
                if stream.eof:
                    break
                data = b""
    except inflate.DAMAGE:
        raise _Damage("the packed bytes are damaged") from None
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's; bz2 reports damaged data without one
        raise _Damage("the packed bytes are damaged") from None
    if not stream.eof and entry.method in inflate.ENDED:
        raise _Damage("the packed bytes are cut short")
    if stream.unused_data:
        raise _Damage("more packed bytes than it needs")


def _record(file: BinaryIO, entry: _Entry, start: int) -> Iterator[bytes]:
    """Yield a member as it stands in the archive file, local header included."""
    yield from _slice(file, entry.offset, start - entry.offset + entry.packed)


def _slice(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    at, end = start, start + length
    while at < end:
        chunk = os.pread(file.fileno(), min(CHUNK, end - at), at)
        if not chunk:
            raise _Damage("the archive file ends early")
        yield chunk
        at += len(chunk)
