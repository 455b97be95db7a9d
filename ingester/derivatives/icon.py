"""The icon image that some objects carry, for the card when all else fails."""

from __future__ import annotations

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from ingester.derivatives import colour
from ingester.derivatives.values import integer, item, text, value

_MOST_EDGE = 1024


def icon_image(header: Dataset) -> Image.Image | None:
    """Return the icon of an object if it is native and sound (PS3.3 C.7.6.1.1.6)."""
    icon = item(header, "IconImageSequence")
    rows, columns = integer(icon, "Rows") or 0, integer(icon, "Columns") or 0
    data = value(icon, "PixelData")
    samples = integer(icon, "SamplesPerPixel") or 1
    if icon is None or not isinstance(data, bytes) or integer(icon, "BitsAllocated") != 8:
        return None
    if not (0 < rows <= _MOST_EDGE and 0 < columns <= _MOST_EDGE) or samples not in (1, 3):
        return None
    if len(data) < rows * columns * samples:
        return None
    pixels = np.frombuffer(data, np.uint8, rows * columns * samples)
    if samples == 3:
        return Image.fromarray(pixels.reshape(rows, columns, 3).copy())
    pixels = pixels.reshape(rows, columns)
    if text(icon, "PhotometricInterpretation") == "PALETTE COLOR":
        found = colour.palette(icon)
        return None if found is None else Image.fromarray(colour.mapped(pixels, *found))
    if text(icon, "PhotometricInterpretation") == "MONOCHROME1":
        pixels = 255 - pixels
    return Image.fromarray(pixels.copy())
