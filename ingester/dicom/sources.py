"""Bytes to walk over, wherever they are: in memory, in a file, in a deflated stream.

The walk only ever goes forward and needs a few bytes at a time; `at` gives a window
that begins at or before the position asked for.  A window may be the whole content
(`Memory`), a page of a file (`File`) or the latest page of an inflated stream
(`Inflated`), so that an object of any size is walked in constant memory.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from ingester.errors import Reject
from ingester.model import Reason

#: How much of a file is looked at together (bytes).
PAGE = 64 * 1024

#: Below this, a high ratio of inflation harms nobody (bytes).
HARMLESS = 512 * 2**20

#: Inflated data sets up to this size are kept in memory (bytes).
KEPT = 32 * 2**20


class Source(Protocol):
    """Content of a known size, seen through windows."""

    size: int

    def at(self, position: int, need: int) -> tuple[bytes, int]:
        """Return (window, its position): *need* bytes from *position*, if there are."""
        ...


class Memory:
    """Content that is in memory as a whole."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def at(self, position: int, need: int) -> tuple[bytes, int]:  # noqa: ARG002 (protocol)
        """Return the whole, which begins at 0."""
        return self.content, 0


class File:
    """Content of an open file, read by position; the latest page is remembered."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self._page = b""
        self._base = 0

    def at(self, position: int, need: int) -> tuple[bytes, int]:
        """Return a page of the file that holds *position*."""
        if self._base <= position and position + need <= self._base + len(self._page):
            return self._page, self._base
        wanted = min(max(need, PAGE), max(self.size - position, 0))
        page = os.pread(self.descriptor, wanted, position)
        while len(page) < min(need, wanted):
            more = os.pread(self.descriptor, wanted - len(page), position + len(page))
            if not more:
                break
            page += more
        self._page, self._base = page, position
        return page, position


class Inflated:
    """The content of a deflated data set that is too large for memory.

    Positions only move forward; where one moves back, inflating starts again.
    """

    def __init__(self, deflated: Source, start: int, size: int) -> None:
        self.size = size
        self._again = (deflated, start)
        self._pages = inflate(deflated, start)
        self._page = b""
        self._base = 0

    def at(self, position: int, need: int) -> tuple[bytes, int]:
        """Return what is inflated from *position* on, at least *need* bytes."""
        if position < self._base:
            self._pages = inflate(*self._again)
            self._page, self._base = b"", 0
        while self._base + len(self._page) < position + need:
            page = next(self._pages, b"")
            if not page:
                break
            if self._base + len(self._page) <= position:
                self._base += len(self._page)
                self._page = page
            else:
                keep = max(position - self._base, 0)
                self._page = self._page[keep:] + page
                self._base += keep
        return self._page, self._base


def chunks(source: Source, start: int, end: int, size: int = PAGE) -> Iterator[memoryview]:
    """Yield the bytes from *start* to *end*, piece by piece."""
    position = start
    while position < end:
        window, base = source.at(position, min(size, end - position))
        piece = memoryview(window)[position - base : min(end - base, position - base + size)]
        if not piece:
            return
        yield piece
        position += len(piece)


def inflate(source: Source, start: int) -> Iterator[bytes]:
    """Yield the inflated pages of the stream that begins at *start*.

    Raises
    ------
    Reject
        `incomplete` without the end mark, `malformed` where it is no deflate
        stream or bytes that do not belong there follow it.
    """
    engine = zlib.decompressobj(_window_bits(source, start))
    crc, adler, total = 0, 1, 0
    for piece in chunks(source, start, source.size):
        if engine.eof:
            if bytes(piece).strip(b"\0"):
                raise _surplus()
            continue
        pending: bytes | memoryview = piece
        is_last = False
        while not is_last:
            page = _decompressed(engine, pending)
            pending = engine.unconsumed_tail
            is_last = engine.eof or (not pending and len(page) < PAGE)
            crc, adler, total = zlib.crc32(page, crc), zlib.adler32(page, adler), total + len(page)
            if page:
                yield page
        if engine.eof:
            _check_rest(engine.unused_data, crc, adler, total)
    if not engine.eof:
        raise Reject(
            Reason.INCOMPLETE,
            "The file was cut short: the compressed data set has no end.",
            may_grow=True,
        )


def _decompressed(engine: Any, pending: bytes | memoryview) -> bytes:
    try:
        page: bytes = engine.decompress(pending, PAGE)
    except zlib.error:
        raise Reject(
            Reason.MALFORMED, "The compressed data set is damaged: it cannot be unpacked."
        ) from None
    return page


def _check_rest(rest: bytes, crc: int, adler: int, total: int) -> None:
    # Padding; or the checksums that writers leave there who made the stream with
    # gzip's or zlib's own tools.
    trailers = (
        struct.pack("<LL", crc, total & 0xFFFFFFFF),
        struct.pack(">L", adler),
    )
    for trailer in trailers:
        rest = rest.removeprefix(trailer)
    if rest.strip(b"\0"):
        raise _surplus()


def _surplus() -> Reject:
    return Reject(
        Reason.MALFORMED, "Bytes that do not belong there follow the compressed data set."
    )


def inflated(source: Source, start: int, *, ratio: int, most: int) -> Source:
    """Return the inflated data set as a source of its own.

    Raises
    ------
    Reject
        `bomb` past *ratio* and 512 MiB, or past *most* bytes; else as `inflate`.
    """
    deflated_bytes = max(source.size - start, 1)
    kept: list[bytes] = []
    total = 0
    for page in inflate(source, start):
        total += len(page)
        if total > most or (total > HARMLESS and total > deflated_bytes * ratio):
            raise Reject(
                Reason.BOMB, "The compressed data set unpacks to far more than an image needs."
            )
        if total <= KEPT:
            kept.append(page)
        else:
            kept.clear()
    return Memory(b"".join(kept)) if total <= KEPT else Inflated(source, start, total)


def _window_bits(source: Source, start: int) -> int:
    # A raw stream is the rule (PS3.5 §A.5); some writers keep zlib's own header,
    # whose first byte would be a stored block of an invalid kind in a raw stream.
    window, base = source.at(start, 2)
    head = window[start - base : start - base + 2]
    has_header = len(head) == 2 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
