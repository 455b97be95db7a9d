"""The ways in which members of a zip are packed, each inflated within bounds.

Every one gives at most as many bytes as it is asked for, so that neither a lie about
a size nor a bomb costs more than a chunk of memory before it is noticed.

References
----------
PKWARE APPNOTE.TXT 6.3.10, section 4.4.5 (methods) and 5.8 (LZMA).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

STORED = 0
_DEFLATED, _BZIP2, _LZMA = 8, 12, 14

#: Methods that are met in the field and are not inflated here.
_NAMES = {
    6: "Implode",
    9: "Deflate64, as Windows does with large files",
    19: "LZ77",
    93: "Zstandard",
    95: "XZ",
    98: "PPMd",
}

#: Methods whose streams have a mark at their end; LZMA's may do without.
ENDED = frozenset({_DEFLATED, _BZIP2})

#: What an LZMA stream may ask of memory; 7-Zip's own largest preset takes 64 MiB.
_LARGEST_DICTIONARY = 64 * 2**20
_LZMA_HEAD = struct.Struct("<BBHBL")  # version twice, size of properties, properties


class Damaged(Exception):
    """Bytes that are no such stream."""


class Inflate(Protocol):
    """What all the decompressors have in common."""

    @property
    def eof(self) -> bool:
        """Return whether the end of the stream was met."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Return what was given after the end."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Inflate; nothing comes where more data is needed first."""
        ...


def method_name(method: int) -> str:
    """Return what a method is called, for people."""
    return _NAMES.get(method, f"method {method}")


def is_readable(method: int) -> bool:
    """Return whether members packed so can be read here."""
    return method == STORED or method in _INFLATE


def inflate_of(method: int) -> Inflate:
    """Return a fresh decompressor for a method other than stored."""
    return _INFLATE[method]()


#: What a decompressor raises on damaged data; bz2's is an OSError without an errno.
DAMAGE = (zlib.error, lzma.LZMAError, ValueError, Damaged)


class _Deflated:
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


class _Lzma:
    """An LZMA stream behind the properties that zip puts before it."""

    def __init__(self) -> None:
        self._head = b""
        self._inflate: lzma.LZMADecompressor | None = None

    @property
    def eof(self) -> bool:
        return self._inflate is not None and self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data if self._inflate is not None else b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if self._inflate is None:
            self._head += data
            if len(self._head) < _LZMA_HEAD.size:
                return b""
            data = self._head[_LZMA_HEAD.size :]
            self._inflate = self._begin()
        return self._inflate.decompress(data, max_length)

    def _begin(self) -> lzma.LZMADecompressor:
        _, _, size, properties, dictionary = _LZMA_HEAD.unpack_from(self._head)
        if size != 5 or properties >= 9 * 5 * 5 or dictionary > _LARGEST_DICTIONARY:
            raise Damaged
        filters = [
            {
                "id": lzma.FILTER_LZMA1,
                "dict_size": max(dictionary, 4096),
                "lc": properties % 9,
                "lp": properties // 9 % 5,
                "pb": properties // 45,
            }
        ]
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


_INFLATE: dict[int, Callable[[], Inflate]] = {
    _DEFLATED: _Deflated,
    _BZIP2: bz2.BZ2Decompressor,
    _LZMA: _Lzma,
}
