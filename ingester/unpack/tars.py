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

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ingester.errors import Reject
from ingester.model import ContainerKind, Reason, Refusal
from ingester.unpack import names, refusals
from ingester.unpack.request import (
    CHUNK,
    Extracted,
    ExtractRequest,
    Place,
    Survey,
    UnpackLimits,
)
from ingester.unpack.sink import Page
from ingester.unpack.streams import (
    Gunzipped,
    Plain,
    Stream,
    cut_short,
    key_of,
    leave,
    take_left,
)

_KIND = "tar"
_BLOCK = tarfile.BLOCKSIZE
_LONGEST_EXTENSION = 1 << 20  # bytes of one long name or pax header
_MOST_EXTENSIONS = 16  # before one member
_LARGEST = 1 << 62
_ZEROS = bytes(_BLOCK)

_PAX = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_EXTENSIONS = _PAX | {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
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

    @property
    def is_passed_over(self) -> bool:
        return self.kind in _FOLDERS or names.is_litter(self.name)


def extract_tar(file: BinaryIO, request: ExtractRequest) -> Extracted:
    """Unpack one page of a tar archive.

    Raises
    ------
    Reject
        the archive file as a whole cannot be unpacked; nothing of this page was kept
    """
    survey = _survey(file, request) if request.first.number <= 1 else None
    page = Page(request, survey)
    walk = _Walk(_stream_at(file, request), request.limits, request.first.number)
    is_left = False
    try:
        while entry := walk.next():
            if entry.is_passed_over:
                page.skip()
                walk.pass_over(entry)
            elif entry.number in request.done:
                walk.pass_over(entry)
            else:
                _extract(walk, page, entry)
            if page.is_full:
                is_left = request.kind is ContainerKind.TAR_GZ
                return page.extracted(walk.place)
        return page.extracted(None)
    finally:
        if is_left:
            leave(key_of(file.fileno()), walk.stream)
        else:
            walk.stream.close()


def _extract(walk: _Walk, page: Page, entry: _Entry) -> None:
    refused = None
    if entry.kind == tarfile.LNKTYPE:
        refused = "It is a second name of another member, which has an outcome of its own."
    elif not entry.has_bytes:
        refused = "It is a link or a device, not a file."
    elif names.is_unsafe(entry.name):
        refused = "Its name points out of the archive file's folder."
    refusal = Refusal(Reason.ARCHIVE_MEMBER_UNSAFE, refused) if refused else None
    if refusal is not None and not entry.has_bytes:
        page.add_empty_handed(entry.number, entry.name, refusal)
    else:
        page.add(entry.number, entry.name, walk.data(entry), refusal)


def _survey(file: BinaryIO, request: ExtractRequest) -> Survey:
    """Read the whole once, so that what is refused is refused before the first member."""
    stream = _stream(file, request)
    members = total = 0
    try:
        walk = _Walk(stream, request.limits, 1)
        while entry := walk.next():
            total += entry.size
            if total > request.limits.total_bytes:
                raise refusals.too_large(_KIND, request.limits)
            members += not entry.is_passed_over
            walk.pass_over(entry)
        while chunk := stream.read(CHUNK):
            if chunk.strip(b"\0"):
                raise _malformed("something follows its end")
    finally:
        stream.close()
    return Survey(members, total)


def _stream_at(file: BinaryIO, request: ExtractRequest) -> Stream:
    """Return the archive's bytes from where the page begins."""
    offset = request.first.offset
    if request.kind is ContainerKind.TAR_GZ:
        left = take_left(key_of(file.fileno()), offset)
        if left is not None:
            return left
    stream = _stream(file, request)
    stream.skip(offset)
    return stream


def _stream(file: BinaryIO, request: ExtractRequest) -> Stream:
    if request.kind is ContainerKind.TAR_GZ:
        return Gunzipped(file.fileno(), request.limits)
    return Plain(file.fileno())


class _Walk:
    """The entries of a tar archive, one after the other, from a given number on."""

    def __init__(self, stream: Stream, limits: UnpackLimits, number: int) -> None:
        self.stream = stream
        self._limits = limits
        self._number = number  # of the entry that comes next

    @property
    def place(self) -> Place:
        """Return where the next entry begins, once the last one was read or passed over."""
        return Place(self._number, self.stream.at)

    def next(self) -> _Entry | None:
        """Return the next entry, None at the end; its bytes are to be read or passed over."""
        records: dict[str, str] = {}
        extensions = 0
        while header := _header(self.stream):
            if header.type in _EXTENSIONS:
                extensions += 1
                if extensions > _MOST_EXTENSIONS or header.size > _LONGEST_EXTENSION:
                    raise _malformed("it has a header that is far too long")
                body = _exactly(self.stream, _padded(header.size))[: header.size]
                records |= _records(header, body)
                continue
            if self._number > self._limits.members:
                raise refusals.too_many(_KIND, self._limits)
            entry = _entry(self._number, header, records)
            self._number += 1
            return entry
        return None

    def pass_over(self, entry: _Entry) -> None:
        """Pass over an entry's bytes."""
        self.stream.skip(_padded(entry.size))

    def data(self, entry: _Entry) -> Iterator[bytes]:
        """Yield an entry's bytes, and pass over the padding behind them."""
        left = entry.size
        while left:
            chunk = self.stream.read(min(CHUNK, left))
            if not chunk:
                raise cut_short()
            yield chunk
            left -= len(chunk)
        self.stream.skip(_padded(entry.size) - entry.size)


def _records(header: tarfile.TarInfo, body: bytes) -> dict[str, str]:
    """Return what an extension says of the member behind it.

    A global header is none: what it could say of all members alike (a comment, an
    owner) is nothing that is asked for here.
    """
    if header.type in _PAX:
        return _pax_records(body)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": body.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    return {}


def _entry(number: int, header: tarfile.TarInfo, records: dict[str, str]) -> _Entry:
    if header.type in _IN_PARTS or any(key.startswith("GNU.sparse.") for key in records):
        raise refusals.unreadable(_KIND, "holds sparse files or is one part of several")
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


def _header(stream: Stream) -> tarfile.TarInfo | None:
    """Return the next header block, None at the end mark."""
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        raise cut_short()
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


def _exactly(stream: Stream, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise cut_short()
    return data


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _malformed(why: str) -> Reject:
    return refusals.malformed(_KIND, why)
