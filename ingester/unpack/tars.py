"""Tar archives, plain or gzipped, read forward in one pass and constant memory.

Read here and not by `tarfile.TarFile`, because that keeps every member in memory,
believes any size (negative ones lead it in circles, long ones into one huge read),
and takes damage in the middle for the end.  A header block itself is decoded by
`tarfile.TarInfo.frombuf`.

The first page is preceded by a survey of the whole: an archive file that is cut
short, damaged or past a limit is refused before anything is unpacked.

References
----------
POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block".
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from ingester.errors import Reject
from ingester.model import ContainerKind, Reason, Refusal
from ingester.unpack import names
from ingester.unpack.request import CHUNK, Extracted, ExtractRequest, UnpackLimits
from ingester.unpack.sink import Page

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_EXTENSION = 1 << 20  # bytes of one long name or pax header
_MOST_EXTENSIONS = 16  # before one member
_LARGEST = 1 << 62
_ZEROS = bytes(_BLOCK)

_PAX = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
_EXTENSIONS = _PAX | {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_WITHOUT_BYTES = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}
)
_FOLDERS = frozenset({tarfile.DIRTYPE, b"D", b"V"})  # also GNU's listing and volume label
_IN_PARTS = frozenset({b"S", b"M"})  # sparse, or continued from another volume


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    name: str
    kind: bytes
    size: int

    @property
    def has_bytes(self) -> bool:
        return self.kind not in _WITHOUT_BYTES and self.kind not in _FOLDERS


class _Stream(Protocol):
    """Bytes that are read forward; short answers only at the end."""

    def read(self, length: int) -> bytes:
        """Return the next *length* bytes."""
        ...

    def skip(self, length: int) -> None:
        """Pass over bytes that nobody wants."""
        ...


def extract_tar(file: BinaryIO, request: ExtractRequest) -> Extracted:
    """Unpack one page of a tar archive.

    Raises
    ------
    Reject
        the archive file as a whole cannot be unpacked; nothing was written
    """
    if request.first <= 1:
        _survey(file, request)
    stream = _stream(file, request)
    page = Page(request)
    for entry in _entries(stream, request.limits):
        if entry.number < request.first:
            stream.skip(_padded(entry.size))
        elif entry.kind in _FOLDERS or names.is_litter(entry.name):
            stream.skip(_padded(entry.size))
            page.skip()
        elif not page.has_room_for(entry.size):
            return page.extracted(entry.number)
        else:
            _extract(stream, page, entry)
    return page.extracted(None)


def _extract(stream: _Stream, page: Page, entry: _Entry) -> None:
    if not entry.has_bytes:
        refusal = Refusal(Reason.ARCHIVE_MEMBER_UNSAFE, "It is a link or a device, not a file.")
        page.add_empty_handed(entry.number, entry.name, refusal)
        return
    refused = None
    if names.is_unsafe(entry.name):
        refused = Refusal(
            Reason.ARCHIVE_MEMBER_UNSAFE, "Its name points out of the archive file's folder."
        )
    page.add(entry.number, entry.name, _data(stream, entry.size), refused)
    stream.skip(_padded(entry.size) - entry.size)


def _survey(file: BinaryIO, request: ExtractRequest) -> None:
    """Read the whole once, so that what is refused is refused before the first member."""
    stream = _stream(file, request)
    total = 0
    for entry in _entries(stream, request.limits):
        total += entry.size
        if total > request.limits.total_bytes:
            raise _bomb("it unpacks to more than the limit for archive files")
        stream.skip(_padded(entry.size))
    while chunk := stream.read(CHUNK):
        if chunk.strip(b"\0"):
            raise _malformed("something follows its end")


def _stream(file: BinaryIO, request: ExtractRequest) -> _Stream:
    file.seek(0)
    if request.kind is ContainerKind.TAR_GZ:
        return _Gunzipped(file, request.limits)
    return _Plain(file)


def _entries(stream: _Stream, limits: UnpackLimits) -> Iterator[_Entry]:
    """Yield the entries; the caller reads or skips each one's bytes before the next."""
    number = 0
    extensions = 0
    everywhere: dict[str, str] = {}
    here: dict[str, str] = {}
    while header := _header(stream):
        if header.type in _EXTENSIONS:
            extensions += 1
            if extensions > _MOST_EXTENSIONS or header.size > _LONGEST_EXTENSION:
                raise _malformed("it has a header that is far too long")
            body = _exactly(stream, _padded(header.size))[: header.size]
            if header.type == tarfile.XGLTYPE:
                everywhere |= _pax_records(body)
            elif header.type in _PAX:
                here |= _pax_records(body)
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                here["path"] = body.rstrip(b"\0").decode("utf-8", "surrogateescape")
            continue
        number += 1
        if number > limits.members:
            raise _bomb(f"it has more than {limits.members} members")
        yield _entry(number, header, everywhere | here)
        extensions = 0
        here = {}


def _entry(number: int, header: tarfile.TarInfo, records: dict[str, str]) -> _Entry:
    if header.type in _IN_PARTS or any(key.startswith("GNU.sparse.") for key in records):
        raise Reject(
            Reason.UNREADABLE,
            "The tar archive holds sparse files or is one part of several:"
            " unpack it and drop the files.",
        )
    size = header.size
    if "size" in records:
        try:
            size = int(records["size"])
        except ValueError:
            raise _malformed("a size is not a number") from None
    name = records.get("path", header.name)
    kind = header.type
    if kind == tarfile.AREGTYPE and names.is_folder(name):
        kind = tarfile.DIRTYPE
    if kind in _WITHOUT_BYTES or kind == tarfile.DIRTYPE:
        size = 0  # whatever it says, nothing follows
    if not 0 <= size <= _LARGEST:
        raise _malformed("a size is impossible")
    return _Entry(number, name, kind, size)


def _header(stream: _Stream) -> tarfile.TarInfo | None:
    """Return the next header block, None at the end mark."""
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        raise _cut_short()
    if block == _ZEROS:
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise _malformed("a header is damaged") from None
    if not 0 <= header.size <= _LARGEST:
        raise _malformed("a size is impossible")
    return header


def _pax_records(body: bytes) -> dict[str, str]:
    """Return the records of a pax header: `<length> <keyword>=<value>` and a newline each."""
    records: dict[str, str] = {}
    at = 0
    while at < len(body):
        digits, space, _ = body[at : at + 20].partition(b" ")
        if not space or not digits.isdigit():
            raise _malformed("a pax header is damaged")
        end = at + int(digits)
        record = body[at + len(digits) + 1 : end]
        keyword, equals, value = record.partition(b"=")
        if end > len(body) or not equals or not value.endswith(b"\n"):
            raise _malformed("a pax header is damaged")
        records[keyword.decode("utf-8", "surrogateescape")] = value[:-1].decode(
            "utf-8", "surrogateescape"
        )
        at = end
    return records


def _data(stream: _Stream, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = stream.read(min(CHUNK, left))
        if not chunk:
            raise _cut_short()
        yield chunk
        left -= len(chunk)


def _exactly(stream: _Stream, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise _cut_short()
    return data


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


class _Plain:
    """A tar archive as it lies on the disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._at = 0

    def read(self, length: int) -> bytes:
        """Return the next *length* bytes, fewer only at the end."""
        data = self._file.read(length)
        self._at += len(data)
        return data

    def skip(self, length: int) -> None:
        """Pass over *length* bytes."""
        if self._at + length > self._size:
            raise _cut_short()
        self._at += length
        self._file.seek(self._at)


class _Gunzipped:
    """A gzipped tar archive, inflated as it is read and never by more than is asked."""

    def __init__(self, file: BinaryIO, limits: UnpackLimits) -> None:
        self._file = file
        self._limits = limits
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._packed = b""
        self._read = 0
        self._inflated = 0
        self._is_at_end = False

    def read(self, length: int) -> bytes:
        """Return the next *length* bytes, fewer only at the end."""
        parts = []
        left = length
        while left and (part := self._inflate_some(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def skip(self, length: int) -> None:
        """Pass over *length* bytes."""
        left = length
        while left:
            part = self._inflate_some(min(CHUNK, left))
            if not part:
                raise _cut_short()
            left -= len(part)

    def _inflate_some(self, most: int) -> bytes:
        while not self._is_at_end:
            try:
                part = self._inflate.decompress(self._packed, most)
            except zlib.error:
                raise _malformed("the packed bytes are damaged") from None
            if self._inflate.eof:
                self._begin_next_stream()
            else:
                self._packed = self._inflate.unconsumed_tail
            if part:
                self._count(len(part))
                return part
            if not self._packed and not self._is_at_end:
                self._packed = self._read_packed()
                if not self._packed:
                    raise _cut_short()
        return b""

    def _begin_next_stream(self) -> None:
        """Go on with what follows a gzip stream: another one, or padding, or the end."""
        rest = self._inflate.unused_data or self._read_packed()
        while rest and not rest.strip(b"\0"):
            rest = self._read_packed()
        if not rest:
            self._is_at_end = True
            return
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._packed = rest

    def _read_packed(self) -> bytes:
        data = self._file.read(CHUNK)
        self._read += len(data)
        return data

    def _count(self, length: int) -> None:
        self._inflated += length
        limits = self._limits
        if self._inflated > limits.total_bytes + limits.members * 2 * _BLOCK:
            raise _bomb("it unpacks to more than the limit for archive files")
        if self._inflated > limits.ratio_floor_bytes and self._inflated > limits.ratio * self._read:
            raise _bomb("it unpacks to far more than it takes")


def _cut_short() -> Reject:
    return Reject(Reason.INCOMPLETE, "The tar archive is cut short.", may_grow=True)


def _malformed(why: str) -> Reject:
    return Reject(Reason.MALFORMED, f"The tar archive cannot be read: {why}.")


def _bomb(why: str) -> Reject:
    return Reject(Reason.BOMB, f"The tar archive is not unpacked: {why}.")
