"""Frames that need no codec: wrapped, deflated or run-length encoded native samples.

What comes out are bytes (one dimension), which the frame source unpacks as it does
native ones: so frames of single bits and frames that were cut short work too.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np

from ingester.derivatives.errors import DecodeError
from ingester.derivatives.layout import Decoded, Layout, frame_bytes
from ingester.model import DerivativeReason


def native(data: bytes, layout: Layout, *, is_deflated: bool) -> Decoded:
    """Decode a frame that is native inside: deflated on its own, or merely wrapped."""
    length = frame_bytes(layout)
    name = "copy"
    if is_deflated:
        name = "zlib"
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflater.decompress(data, length + 1)
        except zlib.error as error:
            raise DecodeError(
                DerivativeReason.CORRUPT_PIXELS, "the deflated frame does not inflate"
            ) from error
    # The samples stay bytes: the frame source unpacks them as it does native ones.
    return Decoded(np.frombuffer(data, np.uint8), layout, name, is_partial=len(data) < length)


def run_lengths(data: bytes, layout: Layout) -> Decoded:
    """Decode RLE by its segments, also where they are cut short or hold single bits.

    Each segment is one byte of one sample, the most significant first (PS3.5 §G.2).
    """
    offsets = struct.unpack_from("<16L", data)
    count = offsets[0]
    width = max(1, layout.bits_allocated // 8)
    if count != layout.samples * width:
        raise ValueError("not as many segments as bytes a pixel")
    bits = 1 if layout.bits_allocated == 1 else 8
    length = (layout.rows * layout.columns * bits + 7) // 8
    planes = np.zeros((layout.samples, length, width), np.uint8)
    is_partial = False
    for number in range(count):
        start = offsets[1 + number]
        end = offsets[2 + number] if number + 1 < count else len(data)
        segment = _unpacked(data[start:end], length)
        is_partial = is_partial or len(segment) < length
        # Words of our own machine's order: the first segment is the highest byte.
        place = width - 1 - number % width
        planes[number // width, : len(segment), place] = np.frombuffer(segment, np.uint8)
    if is_partial and not planes.any():
        raise ValueError("nothing in it")
    # By planes, little endian: unpacked like native bytes by the frame source.
    changed = replace(layout, planar_configuration=1)
    return Decoded(planes.reshape(-1), changed, "segments", is_partial)


def _unpacked(segment: bytes, length: int) -> bytes:
    """Undo PackBits (PS3.5 §G.3.2) up to a length, as far as the bytes go."""
    result = bytearray()
    position = 0
    while position + 1 < len(segment) and len(result) < length:
        code = segment[position]
        if code < 128:
            result += segment[position + 1 : position + 2 + code]
            position += 2 + code
        elif code > 128:
            result += segment[position + 1 : position + 2] * (257 - code)
            position += 2
        else:
            position += 1
    return bytes(result[:length])
