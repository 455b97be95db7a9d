"""Colour: from YCbCr and palettes to RGB, from any depth to 8 bits (PS3.3 C.7.6.3).

No window is applied to colour.  The conversion of 8-bit YCbCr is the one of PS3.3
C.7.6.3.1.2 in fixed point, as the peers do it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space

from ingester.derivatives.values import integer, values

_RGB = ("Red", "Green", "Blue")


def rgb(samples: NDArray[Any], photometric_interpretation: str, bits_stored: int) -> NDArray[Any]:
    """Return three-sample pixels as RGB of the same depth.

    What is not known to be anything else is taken for RGB.
    """
    if samples.shape[2] < 3:
        return samples[:, :, 0]
    kind = photometric_interpretation
    if kind.startswith("ARGB") and samples.shape[2] >= 4:
        return samples[:, :, 1:4]
    if kind == "CMYK" and samples.shape[2] >= 4:
        top = (1 << bits_stored) - 1
        ink = samples[:, :, :4].astype(np.int64)
        result = (top - ink[:, :, :3]) * (top - ink[:, :, 3:]) // top
        return result.astype(samples.dtype)
    samples = samples[:, :, :3]
    if kind in ("YBR_FULL", "YBR_FULL_422"):
        if samples.dtype == np.uint8:
            return convert_color_space(np.ascontiguousarray(samples), "YBR_FULL", "RGB")
        return _full_range(samples, bits_stored)
    if kind.startswith("YBR_PARTIAL"):
        return _partial_range(samples, bits_stored)
    if kind == "HSV":
        return _from_hsv(samples, bits_stored)
    return samples


def _full_range(samples: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    top = float((1 << bits_stored) - 1)
    middle = float(1 << (bits_stored - 1))
    y, cb, cr = (samples[:, :, i].astype(np.float64) for i in range(3))
    cb, cr = cb - middle, cr - middle
    planes = (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)
    return np.stack([np.clip(np.floor(p + 0.5), 0, top) for p in planes], axis=2).astype(
        samples.dtype
    )


def _partial_range(samples: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    """Convert the range of ITU-R BT.601: Y 16 to 235, chroma 16 to 240 (retired)."""
    scale = float(1 << max(0, bits_stored - 8))
    y, cb, cr = (samples[:, :, i].astype(np.float64) / scale for i in range(3))
    y, cb, cr = 1.1644 * (y - 16), cb - 128, cr - 128
    planes = (y + 1.5960 * cr, y - 0.3917 * cb - 0.8130 * cr, y + 2.0173 * cb)
    return np.stack(
        [np.clip(np.floor(p * scale + 0.5), 0, 256 * scale - 1) for p in planes], axis=2
    ).astype(samples.dtype)


def _from_hsv(samples: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    top = float((1 << bits_stored) - 1)
    hue, saturation, level = (samples[:, :, i] / top for i in range(3))
    sector = hue * 6
    planes = []
    for shift in (5, 3, 1):
        k = (shift + sector) % 6
        part = np.clip(np.minimum(k, 4 - k), 0, 1)
        planes.append(np.floor((level - level * saturation * part) * top + 0.5))
    return np.stack(planes, axis=2).astype(samples.dtype)


def eight_bits(samples: NDArray[Any], bits_stored: int) -> NDArray[np.uint8]:
    """Return colour samples of any depth as C-contiguous 8-bit ones."""
    if samples.dtype.kind == "f":
        scaled = np.clip(np.nan_to_num(samples), 0, 1) * 255 + 0.5
        return np.ascontiguousarray(scaled.astype(np.uint8))
    if samples.dtype.kind == "i":
        samples = np.maximum(samples, 0)
    if bits_stored > 8:
        samples = np.minimum(samples >> (bits_stored - 8), 255)
    elif bits_stored < 8:
        top = (1 << bits_stored) - 1
        samples = samples.astype(np.uint32) * 255 // top
    return np.ascontiguousarray(samples.astype(np.uint8))


def palette(header: Dataset) -> tuple[NDArray[np.uint8], int] | None:
    """Return the palette (entries, 3) in 8 bits and the first value mapped, or None."""
    tables = [_table(header, name) for name in _RGB]
    found = [table for table in tables if table is not None]
    if len(found) < 3:
        return None
    entries = min(len(table) for table, _ in found)
    if entries == 0:
        return None
    stack = np.stack([table[:entries] for table, _ in found], axis=1)
    # Entries of 16 bits, of which the high byte counts; but some writers fill the low one.
    bits = 8 if int(stack.max()) <= 255 else 16
    return (stack >> (bits - 8)).astype(np.uint8), found[0][1]


def _table(header: Dataset, name: str) -> tuple[NDArray[np.uint32], int] | None:
    keyword = f"{name}PaletteColorLookupTable"
    descriptor = values(header, f"{keyword}Descriptor")
    if len(descriptor) < 3:
        return None
    try:
        count, first, bits = (int(each) for each in descriptor[:3])
    except (TypeError, ValueError):
        return None
    count = count & 0xFFFF or 65536
    if integer(header, "PixelRepresentation") != 1:
        first &= 0xFFFF
    elif first > 32767:
        first -= 65536
    data = values(header, f"{keyword}Data")
    order = "<" if getattr(header, "original_encoding", (None, True))[1] is not False else ">"
    if data:
        entries = _entries(data[0], count, bits, order)
    else:
        segments = values(header, f"Segmented{keyword}Data")
        entries = _expanded(segments[0], bits, order) if segments else None
    if entries is None or entries.size == 0:
        return None
    if entries.size < count:
        entries = np.concatenate([entries, np.repeat(entries[-1:], count - entries.size)])
    return entries[:count], first


def _entries(data: Any, count: int, bits: int, order: str) -> NDArray[np.uint32] | None:
    if not isinstance(data, bytes):
        return None
    if bits <= 8 and len(data) < 2 * count:  # packed, two to a word
        return np.frombuffer(data, np.uint8).astype(np.uint32)
    return np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype(np.uint32)


def _expanded(data: Any, bits: int, order: str) -> NDArray[np.uint32] | None:
    """Expand a segmented table: discrete, linear and indirect (PS3.3 C.7.9.2)."""
    if not isinstance(data, bytes):
        return None
    width = "u1" if bits == 8 and len(data) % 2 == 0 and _is_bytewise(data) else f"{order}u2"
    words = np.frombuffer(data[: len(data) // 2 * 2], width).astype(np.int64).tolist()
    result: list[int] = []
    position = 0
    while position + 1 < len(words) and len(result) <= 65536:
        code, length = words[position], words[position + 1]
        position += 2
        if code == 0:
            result += words[position : position + length]
            position += length
        elif code == 1 and position < len(words) and result:
            last, end = result[-1], words[position]
            result += [last + round((end - last) * (i + 1) / length) for i in range(length)]
            position += 1
        else:
            break  # indirect segments, or rubbish: keep what there is
    return np.array(result[:65536], np.uint32)


def _is_bytewise(data: bytes) -> bool:
    """Tell whether a segmented table of 8 bits is written byte by byte."""
    return data[0] in (0, 1) and data[1] != 0


def mapped(indices: NDArray[Any], table: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
    """Look indices up; what lies outside takes the first or the last entry."""
    if indices.dtype == np.uint8 and first == 0 and len(table) >= 256:
        return np.ascontiguousarray(table[indices])
    places = np.clip(indices.astype(np.int64) - first, 0, len(table) - 1)
    return np.ascontiguousarray(table[places])
