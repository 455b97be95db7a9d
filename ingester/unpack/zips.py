"""Zip archives, read by their central directory and checked before a byte is unpacked.

Read here and not by `zipfile`, because that reads any number of entries into memory,
follows entries that overlap, and believes sizes.  Here the directory is walked within
limits, every local header is looked up, and a member's bytes count only if their
number and checksum are what the directory says.

References
----------
PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import bz2
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from ingester.errors import Reject
from ingester.model import Reason, Refusal
from ingester.unpack import names
from ingester.unpack.request import CHUNK, Extracted, ExtractRequest, UnpackLimits
from ingester.unpack.sink import Page

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
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12
_READABLE = frozenset({_STORED, _DEFLATED, _BZIP2})


class _Damage(Exception):
    """A member's bytes are not what the directory says."""


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int  # where the first entry stands in the file
    size: int
    shift: int  # bytes before the archive, which its own offsets do not count
    entries: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    unpacked: int
    offset: int  # of the local header, in the file
    unix_mode: int

    @property
    def is_folder(self) -> bool:
        return names.is_folder(self.name) and self.unpacked == 0

    @property
    def is_regular(self) -> bool:
        return stat.S_IFMT(self.unix_mode) in (0, stat.S_IFREG, stat.S_IFDIR)


def extract_zip(file: BinaryIO, request: ExtractRequest) -> Extracted:
    """Unpack one page of a zip archive.

    Raises
    ------
    Reject
        the archive file as a whole cannot be unpacked; nothing was written
    """
    entries = _read_directory(file, request.limits)
    data_offsets = _check(file, entries, request.limits)
    page = Page(request)
    for number, entry in enumerate(entries, start=1):
        if number < request.first:
            continue
        if entry.is_folder or names.is_litter(entry.name):
            page.skip()
            continue
        if not page.has_room_for(entry.unpacked):
            return page.extracted(number)
        _extract(file, page, number, entry, data_offsets[number - 1])
    return page.extracted(None)


def _extract(file: BinaryIO, page: Page, number: int, entry: _Entry, start: int) -> None:
    refusal = None
    if names.is_unsafe(entry.name):
        refusal = Refusal(
            Reason.ARCHIVE_MEMBER_UNSAFE, "Its name points out of the archive file's folder."
        )
    elif not entry.is_regular:
        refusal = Refusal(Reason.ARCHIVE_MEMBER_UNSAFE, "It is a link or a device, not a file.")
    try:
        page.add(number, entry.name, _unpacked(file, entry, start), refusal)
    except _Damage as damage:
        refusal = Refusal(
            Reason.MALFORMED,
            f"The archive file is damaged here: {damage}. What is kept is the member's raw"
            " record from the archive file.",
        )
        page.add(number, entry.name, _record(file, entry, start), refusal)


def _read_directory(file: BinaryIO, limits: UnpackLimits) -> list[_Entry]:
    directory = _find_directory(file)
    if directory.entries > limits.members:
        raise _too_many(limits)
    entries: list[_Entry] = []
    file.seek(directory.start)
    left = directory.size
    while left > 0:
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(_ENTRY_MAGIC):
            raise _malformed("its directory is damaged")
        fields = _ENTRY.unpack(head)
        tail = file.read(fields[10] + fields[11] + fields[12])
        left -= len(head) + len(tail)
        if len(entries) >= limits.members:
            raise _too_many(limits)
        entries.append(_entry(fields, tail, directory.shift))
    # Writers without ZIP64 let the count wrap round.
    if left < 0 or (len(entries) - directory.entries) % (_IN_EXTRA_16 + 1):
        raise _malformed("its directory does not hold what it promises")
    return entries


def _find_directory(file: BinaryIO) -> _Directory:
    """Find the end record, and by it the directory, at the end of the file."""
    size = file.seek(0, os.SEEK_END)
    from_ = max(0, size - _END.size - _LONGEST_COMMENT - _END64_LOCATOR.size)
    file.seek(from_)
    tail = file.read()
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END.size:
        raise Reject(
            Reason.INCOMPLETE,
            "The zip archive is cut short: the directory at its end is missing.",
            may_grow=True,
        )
    _, disk, first_disk, _, entries, length, offset, _ = _END.unpack_from(tail, at)
    end = from_ + at
    locator_at = at - _END64_LOCATOR.size
    if locator_at >= 0 and tail.startswith(_END64_LOCATOR_MAGIC, locator_at):
        end, disk, first_disk, entries, length, offset = _read_end64(file, tail, locator_at, end)
    if disk or first_disk:
        raise Reject(Reason.UNREADABLE, "The zip archive is one part of several.")
    start = end - length
    if start < 0 or offset > start:
        raise _malformed("its directory points outside the file")
    return _Directory(start, length, start - offset, entries)


def _read_end64(
    file: BinaryIO, tail: bytes, locator_at: int, end: int
) -> tuple[int, int, int, int, int, int]:
    """Return the ZIP64 end record: its place, disks, entries, length and offset."""
    _, _, where, disks = _END64_LOCATOR.unpack_from(tail, locator_at)
    # Its own offset does not count bytes before the archive; it usually stands right
    # before the locator, so look there first.
    for place in (end - _END64_LOCATOR.size - _END64.size, where):
        if place < 0:
            continue
        file.seek(place)
        record = file.read(_END64.size)
        if len(record) == _END64.size and record.startswith(_END64_MAGIC):
            _, _, _, _, disk, first_disk, _, entries, length, offset = _END64.unpack(record)
            return place, disk or disks > 1, first_disk, entries, length, offset
    raise _malformed("its ZIP64 end record is missing")


def _entry(fields: tuple[int, ...], tail: bytes, shift: int) -> _Entry:
    (_, made_by, _, flags, method, _, _, crc, packed, unpacked) = fields[:10]
    name_length, extra_length, _, _, _, attributes, offset = fields[10:]
    raw_name = tail[:name_length]
    extra = tail[name_length : name_length + extra_length]
    unpacked, packed, offset = _zip64_sizes(extra, unpacked, packed, offset)
    return _Entry(
        name=_decoded(raw_name, is_utf8=bool(flags & _UTF8)),
        flags=flags,
        method=method,
        crc=crc,
        packed=packed,
        unpacked=unpacked,
        offset=offset + shift,
        unix_mode=attributes >> 16 if made_by >> 8 == _MADE_ON_UNIX else 0,
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


def _check(file: BinaryIO, entries: list[_Entry], limits: UnpackLimits) -> list[int]:
    """Judge the whole by its directory; return where each member's bytes begin."""
    if any(each.flags & (_ENCRYPTED | _STRONGLY_ENCRYPTED) for each in entries):
        raise Reject(
            Reason.ARCHIVE_ENCRYPTED,
            "The zip archive is encrypted: unpack it with its password and drop the files.",
        )
    if any(each.method not in _READABLE for each in entries if not each.is_folder):
        raise Reject(
            Reason.UNREADABLE,
            "The zip archive is packed by a method other than store, deflate and bzip2:"
            " unpack it and drop the files.",
        )
    total = sum(each.unpacked for each in entries)
    if total > limits.total_bytes:
        raise _bomb("it unpacks to more than the limit for archive files")
    if any(_is_bomb(each.unpacked, each.packed, limits) for each in entries):
        raise _bomb("a member unpacks to far more than it takes")
    if _is_bomb(total, sum(each.packed for each in entries), limits):
        raise _bomb("it unpacks to far more than it takes")
    return _data_offsets(file, entries)


def _data_offsets(file: BinaryIO, entries: list[_Entry]) -> list[int]:
    size = file.seek(0, os.SEEK_END)
    offsets: list[int] = []
    spans: list[tuple[int, int]] = []
    for each in entries:
        local = os.pread(file.fileno(), _LOCAL.size, each.offset)
        if len(local) < _LOCAL.size or not local.startswith(_LOCAL_MAGIC):
            raise _malformed("its directory points to no member")
        name_length, extra_length = _LOCAL.unpack(local)[9:]
        start = each.offset + _LOCAL.size + name_length + extra_length
        if start + each.packed > size:
            raise _malformed("its directory points outside the file")
        offsets.append(start)
        spans.append((each.offset, start + each.packed))
    spans.sort()
    for (_, end), (following, _) in pairwise(spans):
        if following < end:
            raise _bomb("its members overlap")
    return offsets


def _is_bomb(unpacked: int, packed: int, limits: UnpackLimits) -> bool:
    return unpacked > limits.ratio_floor_bytes and unpacked > limits.ratio * packed


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
    if entry.method == _STORED:
        yield from _slice(file, start, entry.packed)
        return
    inflate = _Inflate() if entry.method == _DEFLATED else bz2.BZ2Decompressor()
    try:
        for packed in _slice(file, start, entry.packed):
            if inflate.eof:
                raise _Damage("more packed bytes than it needs")
            data = packed
            while chunk := inflate.decompress(data, CHUNK):
                yield chunk
                if inflate.eof:
                    break
                data = b""
    except (zlib.error, OSError, ValueError) as error:
        # bz2 reports damaged data as OSError without an errno; others are the disk's.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _Damage("the packed bytes are damaged") from None
    if not inflate.eof:
        raise _Damage("the packed bytes are cut short")
    if inflate.unused_data:
        raise _Damage("more packed bytes than it needs")


class _Inflate:
    """`zlib.decompressobj` with the ways of the other decompressors."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


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


def _malformed(why: str) -> Reject:
    return Reject(Reason.MALFORMED, f"The zip archive cannot be read: {why}.")


def _bomb(why: str) -> Reject:
    return Reject(Reason.BOMB, f"The zip archive is not unpacked: {why}.")


def _too_many(limits: UnpackLimits) -> Reject:
    return _bomb(f"it has more than {limits.members} members")
