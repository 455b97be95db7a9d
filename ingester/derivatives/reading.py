"""Open an object by its path: the header, and where the pixel bytes lie.

The header is read by pydicom's element reader, but up to the pixels only, so that
a file of many gigabytes costs a few kilobytes.  What File Meta says of the
encoding is taken as a hint: how the first element *looks* decides (explicit or
implicit, which byte order, deflated or not), because archives hold files whose
transfer syntax is wrong, and files without preamble or File Meta at all.

    with open_object(path) as found:
        found.header, found.declared_syntax, found.pixels
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from ingester.derivatives.errors import DecodeError
from ingester.derivatives.values import BROKEN
from ingester.model import DerivativeReason

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
GE_IMPLICIT_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"

PIXEL_ELEMENTS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
UNDEFINED_LENGTH = 0xFFFFFFFF
_KNOWN_VR = {each.value.encode() for each in VR if len(each.value) == 2}
_MOST_INFLATED_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the top-level pixel data lies: value offset and length in the stream.

    `length` is None where the element declares none (encapsulated).
    """

    keyword: str
    vr: str
    offset: int
    length: int | None
    is_little_endian: bool


class ClippedReader(io.RawIOBase):
    """A file whose `read` never asks for more than is left.

    A hostile element length would otherwise make Python allocate gigabytes before
    it notices that the file is short.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        """Return up to *size* bytes, all that is left where it is negative."""
        left = max(0, self.size - self._file.tell())
        return self._file.read(left if size is None or size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; see `io.IOBase.seek`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@dataclass(slots=True)
class ObjectFile:
    """An opened object: header without pixels, and where the pixels are."""

    stream: ClippedReader
    header: Dataset
    declared_syntax: str
    pixels: PixelElement | None
    is_whole: bool  # False where the header could not be read to its end

    def __enter__(self) -> ObjectFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stream.close()


def open_object(path: str | Path) -> ObjectFile:
    """Open an object and read its header up to the pixels.

    Raises
    ------
    OSError
        The file cannot be opened or read.
    DecodeError
        The deflated data set does not inflate, or inflates to too much.
    """
    stream = ClippedReader(cast(BinaryIO, io.FileIO(path)))
    try:
        syntax = _read_file_meta(stream)
        start = stream.tell()
        head = stream.read(16)
        encoding = _evident_encoding(head)
        if encoding is None and syntax == DEFLATED:
            stream.seek(start)
            inflated = _inflate(stream.read())
            stream.close()
            stream = ClippedReader(cast(BinaryIO, io.BytesIO(inflated)))
            start = 0
            encoding = _evident_encoding(stream.read(16))
        if encoding is None:
            encoding = (
                syntax in ("", IMPLICIT_LITTLE_ENDIAN, GE_IMPLICIT_BIG_ENDIAN_PIXELS),
                syntax != EXPLICIT_BIG_ENDIAN,
            )
        stream.seek(start)
        return _read_header(stream, syntax, *encoding)
    except BaseException:
        stream.close()
        raise


def _read_file_meta(stream: ClippedReader) -> str:
    """Skip preamble and File Meta; return the transfer syntax they declare or ""."""
    head = stream.read(132)
    stream.seek(132 if head[128:] == b"DICM" else 4 if head[:4] == b"DICM" else 0)
    syntax = ""
    while True:
        start = stream.tell()
        head = stream.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            stream.seek(start)
            return syntax
        element = struct.unpack_from("<H", head, 2)[0]
        if head[4:6] not in _KNOWN_VR:
            length = struct.unpack_from("<L", head, 4)[0]
        elif head[4:6].decode() in EXPLICIT_VR_LENGTH_32:
            length = int.from_bytes(stream.read(4), "little")
        else:
            length = struct.unpack_from("<H", head, 6)[0]
        if element == 0x0010:
            syntax = stream.read(min(length, 64)).decode("ascii", "replace").strip(" \0")
        else:
            stream.seek(length, os.SEEK_CUR)


def _evident_encoding(head: bytes) -> tuple[bool, bool] | None:
    """Tell (implicit?, little endian?) from the first element, or None."""
    if len(head) < 8:
        return None
    for is_little_endian, order in ((True, "<"), (False, ">")):
        group, _, length = struct.unpack_from(order + "HHL", head)
        if not 0x0001 <= group <= 0x00FF:  # the first group of a data set is a low one
            continue
        if head[4:6] in _KNOWN_VR:
            return False, is_little_endian
        if length < 2**16:
            return True, is_little_endian
    return None


def _inflate(data: bytes) -> bytes:
    """Inflate a raw stream, keeping what comes out of a damaged one."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        result = inflater.decompress(data, _MOST_INFLATED_BYTES)
    except zlib.error as error:
        raise DecodeError(
            DerivativeReason.CORRUPT_PIXELS, "the deflated data set does not inflate"
        ) from error
    if inflater.unconsumed_tail:
        raise DecodeError(DerivativeReason.TOO_LARGE, "the data set inflates to over 2 GiB")
    return result


def _character_encoding(header: Dataset) -> list[str]:
    try:
        return convert_encodings(header.get("SpecificCharacterSet"))
    except BROKEN:
        return convert_encodings(None)


def _read_header(
    stream: ClippedReader, syntax: str, is_implicit: bool, is_little_endian: bool
) -> ObjectFile:
    pixels: PixelElement | None = None

    def is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal pixels
        if tag in PIXEL_ELEMENTS:
            pixels = PixelElement(
                PIXEL_ELEMENTS[tag],
                vr or "OW",
                stream.tell(),
                None if length == UNDEFINED_LENGTH else length,
                is_little_endian and syntax != GE_IMPLICIT_BIG_ENDIAN_PIXELS,
            )
        return pixels is not None

    elements: dict[BaseTag, RawDataElement | DataElement] = {}
    is_whole = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # A stray delimiter ends the generator, not the object: go on behind it.
            while pixels is None and stream.tell() < stream.size:
                for element in data_element_generator(
                    cast(BinaryIO, stream), is_implicit, is_little_endian, stop_when=is_pixels
                ):
                    elements.setdefault(element.tag, element)
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault, not the object's
            is_whole = False
        header = Dataset(elements)
        header.set_original_encoding(is_implicit, is_little_endian, _character_encoding(header))
    return ObjectFile(stream, header, syntax, pixels, is_whole)
