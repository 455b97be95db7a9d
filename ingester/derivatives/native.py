"""Native pixels: the layout the header means, and bytes into samples.

Every width from 1 to 64 bits, packed or not, either byte order, either planar
configuration, subsampled chroma, integers and floats.  A header that leaves out or
misstates a number is read by what the length of the data allows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ingester.derivatives.decoders import ORDER
from ingester.derivatives.layout import Layout
from ingester.derivatives.reading import PixelElement
from ingester.derivatives.values import integer, text

_FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")


class Stream(Protocol):
    """What is needed of a file."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move the position."""
        ...

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to *size* bytes."""
        ...


def layout_of(header: Dataset, pixels: PixelElement) -> Layout:
    """Return what the header says, with what it leaves out filled in."""
    colour = text(header, "PhotometricInterpretation").upper().replace("MONOCROME", "MONOCHROME")
    samples = integer(header, "SamplesPerPixel") or 0
    if samples < 1:
        samples = 3 if colour.startswith(("RGB", "YBR", "HSV")) else 1
    if not colour:
        colour = "RGB" if samples == 3 else "MONOCHROME2"
    allocated = _FLOAT_BITS.get(pixels.keyword) or max(0, integer(header, "BitsAllocated") or 0)
    stored = integer(header, "BitsStored") or 0
    if allocated == 0 and stored > 0:
        allocated = 1 if stored == 1 else -(-stored // 8) * 8
    if not 0 < stored <= allocated:
        stored = allocated
    return Layout(
        rows=max(0, integer(header, "Rows") or 0),
        columns=max(0, integer(header, "Columns") or 0),
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        is_signed=integer(header, "PixelRepresentation") == 1,
        photometric_interpretation=colour,
        planar_configuration=integer(header, "PlanarConfiguration") or 0,
        high_bit=integer(header, "HighBit"),
    )


def is_encapsulated(stream: Stream, pixels: PixelElement, declared: str) -> bool:
    """Tell whether the value is a series of items, whatever the syntax says."""
    if pixels.length is not None and declared not in ORDER:
        return False
    stream.seek(pixels.offset)
    head = stream.read(8)
    return head[:4] == b"\xfe\xff\x00\xe0"


def fitted(layout: Layout, length: int, stated: int) -> Layout:
    """Correct a layout that the length of the data contradicts.

    Bits Allocated is guessed where it is absent; chroma said to be subsampled that is
    not, and the other way round, is seen by the length.
    """
    pixels = layout.rows * layout.columns * max(1, stated)
    if layout.bits_allocated == 0 and pixels:
        bits = length * 8 // max(1, pixels * layout.samples)
        allocated = next((each for each in (32, 16, 8, 1) if bits >= each), 8)
        layout = replace(layout, bits_allocated=allocated, bits_stored=allocated)
    if layout.bits_allocated > 64:
        # No such thing exists; the words are read as far as they carry.
        layout = replace(layout, bits_allocated=64, bits_stored=64)
    colour = layout.photometric_interpretation
    full = pixels * 3 * layout.bits_allocated // 8
    if colour in ("YBR_FULL_422", "YBR_PARTIAL_422") and length >= full > 0:
        layout = replace(layout, photometric_interpretation=colour.replace("_422", ""))
    return layout


def is_subsampled(layout: Layout) -> bool:
    """Tell whether native chroma is stored once for two pixels (PS3.3 C.7.6.3.1.2)."""
    return layout.samples == 3 and layout.photometric_interpretation.endswith("_422")


def frame_bits(layout: Layout) -> int:
    """Return the bits of one frame; frames of single bits follow one another unpadded."""
    samples = 2 if is_subsampled(layout) else layout.samples
    return layout.rows * layout.columns * samples * layout.bits_allocated


def swaps_bytes(layout: Layout, pixels: PixelElement) -> bool:
    """Tell whether bytes lie swapped: 8 bits or fewer as big endian words."""
    return not pixels.is_little_endian and layout.bits_allocated <= 8 and pixels.vr == "OW"


def unpack(
    data: bytes,
    layout: Layout,
    *,
    skip_bits: int,
    is_little_endian: bool,
    keyword: str,
    swaps: bool,
) -> NDArray[Any]:
    """Return a frame's bytes as samples, zeros where bytes are missing.

    The shape is (rows, columns) or (rows, columns, samples).
    """
    bits = layout.bits_allocated
    count = frame_bits(layout) // bits
    needed = -(-(skip_bits + count * bits) // 8)
    if len(data) < needed:
        data = data + bytes(needed - len(data))
    if swaps:
        data = data + b"\0" if len(data) % 2 else data
        data = np.frombuffer(data, "<u2").byteswap().tobytes()
    if keyword in _FLOAT_BITS:
        order = "<" if is_little_endian else ">"
        samples: NDArray[Any] = np.frombuffer(data, f"{order}f{bits // 8}", count).astype(
            f"f{bits // 8}"
        )
    elif bits in (8, 16, 32, 64):
        order = "<" if is_little_endian else ">"
        samples = np.frombuffer(data[skip_bits // 8 :], f"{order}u{bits // 8}", count)
        samples = signed(samples.astype(f"u{bits // 8}", copy=False), layout)
    elif bits % 8 == 0:
        samples = signed(
            _odd_bytes(data[skip_bits // 8 :], bits // 8, count, is_little_endian), layout
        )
    else:
        samples = signed(_packed(data, bits, count, skip_bits), layout)
    return _shaped(samples, layout)


def _odd_bytes(data: bytes, width: int, count: int, is_little_endian: bool) -> NDArray[Any]:
    """Return words of 3, 5, 6 or 7 bytes as the next larger integers."""
    size = 4 if width == 3 else 8
    wide = np.zeros((count, size), np.uint8)
    part = np.frombuffer(data, np.uint8, count * width).reshape(count, width)
    wide[:, :width] = part if is_little_endian else part[:, ::-1]
    return wide.reshape(-1).view(f"<u{size}").astype(f"u{size}", copy=False)


def _packed(data: bytes, bits: int, count: int, skip_bits: int) -> NDArray[Any]:
    """Return samples that follow one another bit by bit, lowest bit first."""
    flags = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    flags = flags[skip_bits : skip_bits + count * bits]
    if bits == 1:
        return flags
    size = 1 if bits <= 8 else 2 if bits <= 16 else 4 if bits <= 32 else 8
    result = np.zeros(count, f"u{size}")
    for bit in range(bits):
        result |= flags[bit::bits].astype(result.dtype) << np.array(bit, result.dtype)
    return result


def signed(samples: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Keep the stored bits only and extend the sign.

    What lies above High Bit may be overlays or rubbish (PS3.5 §8.1.1).
    """
    width = samples.dtype.itemsize * 8
    stored = min(layout.bits_stored, width)
    high = layout.high_bit
    shift = 0
    if layout.bits_allocated == width and high is not None and stored - 1 < high < width:
        shift = high + 1 - stored
    samples = samples.view(f"u{samples.dtype.itemsize}")
    if shift:
        samples = samples >> np.array(shift, samples.dtype)
    if not layout.is_signed:
        if stored < width:
            samples = samples & np.array((1 << stored) - 1, samples.dtype)
        return samples
    spare = width - stored
    if spare:
        samples = samples << np.array(spare, samples.dtype)
    samples = samples.view(f"i{samples.dtype.itemsize}")
    return samples >> np.array(spare, samples.dtype) if spare else samples


def _shaped(samples: NDArray[Any], layout: Layout) -> NDArray[Any]:
    rows, columns, count = layout.rows, layout.columns, layout.samples
    if count == 1:
        return samples.reshape(rows, columns)
    if is_subsampled(layout):
        # Y1 Y2 B R for each two pixels: B and R belong to both.
        if columns % 2:
            samples = np.resize(samples, rows * columns * 2 + 2)
        quads = samples[: rows * columns * 2 // 4 * 4].reshape(-1, 4)
        full = np.empty((quads.shape[0], 2, 3), samples.dtype)
        full[:, :, 0] = quads[:, :2]
        full[:, :, 1:] = quads[:, None, 2:]
        flat = full.reshape(-1, 3)
        return np.resize(flat, (rows * columns, 3)).reshape(rows, columns, 3)
    if layout.planar_configuration == 1:
        return samples.reshape(count, rows, columns).transpose(1, 2, 0)
    return samples.reshape(rows, columns, count)


def sized(samples: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Cut or pad a frame to a size: all frames of a clip have one."""
    if samples.shape[:2] == (rows, columns):
        return samples
    result = np.zeros((rows, columns, *samples.shape[2:]), samples.dtype)
    part = samples[:rows, :columns]
    result[: part.shape[0], : part.shape[1]] = part
    return result
