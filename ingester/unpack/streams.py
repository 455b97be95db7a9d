"""Bytes of a tar archive, or of one gzipped file, read forward in constant memory.

A stream can be left open where a page ended, so that the next page need not inflate
again all that comes before it.  That is a short cut and nothing more: the next page is
the same where nobody left one, only later.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from typing import NamedTuple, Protocol

from ingester.errors import Reject
from ingester.unpack import refusals
from ingester.unpack.request import UnpackLimits

_TAR = "tar"
_BLOCK = 512

#: So much is read and inflated at a time (bytes): what is not inflated yet is moved in
#: memory with every step, so that large steps would cost more, not less.
_PACKED = 64 * 1024
_PIECE = 256 * 1024


class Stream(Protocol):
    """Bytes that are read forward; short answers only at the end."""

    @property
    def at(self) -> int:
        """Return how many bytes were read or skipped."""
        ...

    def read(self, length: int) -> bytes:
        """Return the next *length* bytes."""
        ...

    def skip(self, length: int) -> None:
        """Pass over bytes that nobody wants."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Plain:
    """A file as it lies on the disk; *descriptor* stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._file = open(descriptor, "rb", closefd=False)  # noqa: SIM115 - close() does
        self._size = os.fstat(descriptor).st_size
        self.at = 0
        self._file.seek(0)

    def read(self, length: int) -> bytes:
        """Return the next *length* bytes, fewer only at the end."""
        data = self._file.read(length)
        self.at += len(data)
        return data

    def skip(self, length: int) -> None:
        """Pass over *length* bytes."""
        if self.at + length > self._size:
            raise cut_short()
        self.at += length
        self._file.seek(self.at)

    def close(self) -> None:
        """Close it, the descriptor excepted."""
        self._file.close()


class Gunzipped:
    """A gzipped file, inflated as it is read and never by more than is asked.

    It has a descriptor of its own.
    """

    def __init__(self, descriptor: int, limits: UnpackLimits, kind: str = _TAR) -> None:
        self._kind = kind
        self._descriptor = os.dup(descriptor)
        self._limits = limits
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._packed = b""
        self._read = 0
        self._is_at_end = False
        self._piece = memoryview(b"")  # inflated and not read yet
        self._inflated = 0
        self.at = 0

    def read(self, length: int) -> bytes:
        """Return the next *length* bytes, fewer only at the end."""
        parts = []
        left = length
        while left and (part := self._take(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def skip(self, length: int) -> None:
        """Pass over *length* bytes."""
        left = length
        while left:
            part = self._take(left)
            if not part:
                raise cut_short(self._kind)
            left -= len(part)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _take(self, most: int) -> memoryview:
        if not self._piece:
            self._piece = memoryview(self._inflate_some())
        part, self._piece = self._piece[:most], self._piece[most:]
        self.at += len(part)
        return part

    def _inflate_some(self) -> bytes:
        while not self._is_at_end:
            try:
                piece = self._inflate.decompress(self._packed, _PIECE)
            except zlib.error:
                raise refusals.malformed(self._kind, "the packed bytes are damaged") from None
            if self._inflate.eof:
                self._begin_next_stream()
            else:
                self._packed = self._inflate.unconsumed_tail
            if piece:
                self._count(len(piece))
                return piece
            if not self._packed and not self._is_at_end:
                self._packed = self._read_packed()
                if not self._packed:
                    raise cut_short(self._kind)
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
        data = os.pread(self._descriptor, _PACKED, self._read)
        self._read += len(data)
        return data

    def _count(self, length: int) -> None:
        self._inflated += length
        limits = self._limits
        if self._inflated > limits.total_bytes + limits.members * 2 * _BLOCK:
            raise refusals.too_large(self._kind, limits)
        is_large = self._inflated > limits.ratio_floor_bytes
        if is_large and self._inflated > limits.ratio * self._read:
            raise refusals.too_dense(self._kind, limits)


def cut_short(kind: str = _TAR) -> Reject:
    """Return the refusal of an archive file that ends too early."""
    return refusals.cut_short(kind, "it ends before its last member does")


class FileKey(NamedTuple):
    """What tells one file, as it is, from all others."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class _Left(NamedTuple):
    key: FileKey
    at: int
    stream: Stream


#: At most one stream of this process, where a page of it ended.
_left: deque[_Left] = deque()


def key_of(descriptor: int) -> FileKey:
    """Return the key of an open file."""
    status = os.fstat(descriptor)
    return FileKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def leave(key: FileKey, stream: Stream) -> None:
    """Leave a stream open for the next page."""
    forget_left()
    _left.append(_Left(key, stream.at, stream))


def take_left(key: FileKey, at: int) -> Stream | None:
    """Return the stream that was left open there, None where there is none."""
    try:
        left = _left.pop()
    except IndexError:
        return None
    if (left.key, left.at) == (key, at):
        return left.stream
    left.stream.close()
    return None


def forget_left() -> None:
    """Close the stream that was left open, if there is one."""
    while _left:
        _left.pop().stream.close()
