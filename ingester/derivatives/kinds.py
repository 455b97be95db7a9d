"""Objects whose best picture is not simply their middle frame.

Segmentations show the frame with most in it, in the colours of their segments; dose
grids the hottest frame; slides are put together from tiles; two scintigrams stand
side by side.  None of these has a video.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ingester.derivatives import colour, grayscale
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.frames import FrameSource
from ingester.derivatives.mapping import FrameMapper, ThumbnailSettings, type_picture
from ingester.derivatives.values import (
    functional_group,
    integer,
    items,
    number,
    numbers,
    text,
)
from ingester.model import DerivativeReason, type_json

_MOST_LOOKED_AT = 32
_MOST_TILES = 64
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
_NUCLEAR = "1.2.840.10008.5.1.4.1.1.20"


@dataclass(frozen=True, slots=True)
class Still:
    """A picture that stands for the whole object, and the frame (from 0) it is of."""

    picture: type_picture
    frame: int
    detail: dict[str, type_json] = field(default_factory=dict)


def still_of(source: FrameSource, settings: ThumbnailSettings) -> Still | None:
    """Return the picture of an object of a special kind, None for all others.

    Raises
    ------
    DecodeError
        No frame can be decoded.
    """
    header = source.header
    sop_class = text(header, "SOPClassUID")
    if source.is_colour and sop_class in (*_SEGMENTATIONS, _DOSE):
        return None
    if sop_class in _SEGMENTATIONS:
        return _segmentation(source)
    if sop_class == _DOSE:
        return _dose(source)
    if source.number_of_frames > 1 and integer(header, "TotalPixelMatrixColumns"):
        return _slide(source, settings)
    if sop_class == _NUCLEAR and source.number_of_frames == 2:
        return _side_by_side(source, settings)
    return None


def _looked_at(count: int) -> Sequence[int]:
    if count <= _MOST_LOOKED_AT:
        return range(count)
    return sorted({round(i * (count - 1) / (_MOST_LOOKED_AT - 1)) for i in range(_MOST_LOOKED_AT)})


def _best(source: FrameSource, score: Any) -> tuple[int, NDArray[Any]]:
    """Return the frame with the highest score, the first of equals."""
    best: tuple[float, int, NDArray[Any]] | None = None
    failure: DecodeError | None = None
    for index in _looked_at(source.number_of_frames):
        try:
            frame = source.frame(index)
        except DecodeError as error:
            failure = failure or error
            continue
        points = float(score(frame))
        if best is None or points > best[0]:
            best = points, index, frame
    if best is None:
        raise failure or DecodeError(DerivativeReason.CORRUPT_PIXELS, "there is no frame")
    return best[1], best[2]


def _segmentation(source: FrameSource) -> Still:
    index, frame = _best(source, np.count_nonzero)
    header = source.header
    kind = text(header, "SegmentationType").upper()
    none: dict[str, type_json] = {"window": None, "window_source": "segments"}
    if source.is_palette or kind == "LABELMAP":
        return Still(_labels(source, frame), index, none)
    if kind == "FRACTIONAL" or source.layout.bits_stored > 1:
        top = number(header, "MaximumFractionalValue") or float(max(1, frame.max()))
        scaled = np.clip(frame.astype(np.float64) / top * 255.0 + 0.5, 0, 255)
        detail: dict[str, type_json] = {"window": [top / 2, top], "window_source": "segments"}
        return Still(scaled.astype(np.uint8), index, detail)
    group = functional_group(header, "SegmentIdentificationSequence", index)
    shade = segment_colours(header).get(integer(group, "ReferencedSegmentNumber") or 1)
    if shade is None:
        return Still((frame != 0).astype(np.uint8) * np.uint8(255), index, none)
    picture = np.zeros((*frame.shape, 3), np.uint8)
    picture[frame != 0] = shade
    return Still(picture, index, none)


def _labels(source: FrameSource, frame: NDArray[Any]) -> type_picture:
    """Return a label map in its palette, else in the segments' or in made-up colours."""
    found = colour.palette(source.header)
    if source.is_palette and found is not None:
        return colour.mapped(frame, *found)
    shades = segment_colours(source.header)
    picture = np.zeros((*frame.shape, 3), np.uint8)
    for label in np.unique(frame):
        if label:
            picture[frame == label] = shades.get(int(label)) or _made_up(int(label))
    return picture


def _made_up(label: int) -> tuple[int, int, int]:
    # Hues a golden angle apart: neighbours in number look unlike each other.
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.65, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def segment_colours(header: Dataset) -> dict[int, tuple[int, int, int]]:
    """Return the recommended colour of each segment that has one."""
    shades: dict[int, tuple[int, int, int]] = {}
    for segment in items(header, "SegmentSequence"):
        lab = numbers(segment, "RecommendedDisplayCIELabValue")
        label = integer(segment, "SegmentNumber")
        known = [each for each in lab[:3] if each is not None]
        if label is not None and len(known) == 3:
            shades[label] = srgb_of_lab(*known)
    return shades


def srgb_of_lab(lightness: float, a: float, b: float) -> tuple[int, int, int]:
    """Return sRGB for CIELab as DICOM encodes it, 16 bits each (PS3.3 C.10.7.1.1)."""
    lightness = lightness / 65535 * 100
    a, b = a / 65535 * 255 - 128, b / 65535 * 255 - 128
    fy = (lightness + 16) / 116
    parts = [_uncubed(fy + a / 500), _uncubed(fy), _uncubed(fy - b / 200)]
    # White D50, as the profile connection space has it, adapted to sRGB's D65 (Bradford).
    x, y, z = parts[0] * 0.9642, parts[1], parts[2] * 0.8249
    linear = (
        3.1338561 * x - 1.6168667 * y - 0.4906146 * z,
        -0.9787684 * x + 1.9161415 * y + 0.0334540 * z,
        0.0719453 * x - 0.2289914 * y + 1.4052427 * z,
    )
    red, green, blue = (_companded(min(1.0, max(0.0, each))) for each in linear)
    return red, green, blue


def _uncubed(t: float) -> float:
    return t**3 if t > 6 / 29 else 3 * (6 / 29) ** 2 * (t - 4 / 29)


def _companded(linear: float) -> int:
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(value * 255)


def hot_iron() -> type_picture:
    """Return the Hot Iron palette (256, 3), black over red and yellow to white (PS3.6 B.1)."""
    level = np.arange(256)
    red = np.minimum(level * 2, 255)
    green = np.clip(level * 2 - 256, 0, 255)
    blue = np.clip(level * 4 - 768, 0, 255)
    table = np.stack([red, green, blue], axis=1).astype(np.uint8)
    table[255] = 255
    return table


def _dose(source: FrameSource) -> Still:
    index, frame = _best(source, np.max)
    values = frame.astype(np.float64)
    top = float(values.max())
    level = np.clip(values / top * 255.0 + 0.5, 0, 255) if top > 0 else np.zeros_like(values)
    scale = number(source.header, "DoseGridScaling") or 1.0
    high = grayscale.finite(top * scale)
    window = None if high is None else [high / 2, high]
    detail: dict[str, type_json] = {"window": window, "window_source": "auto"}
    return Still(hot_iron()[level.astype(np.uint8)], index, detail)


def _slide(source: FrameSource, settings: ThumbnailSettings) -> Still | None:
    """Put a tiled picture together, or take the tile in the middle of a large one."""
    header, layout = source.header, source.layout
    columns = integer(header, "TotalPixelMatrixColumns") or 0
    rows = integer(header, "TotalPixelMatrixRows") or 0
    across, down = -(-columns // layout.columns), -(-rows // layout.rows)
    if across < 1 or down < 1:
        return None
    count = source.number_of_frames
    middle = min(count - 1, down // 2 * across + across // 2)
    mapper = FrameMapper(source, settings, lead=middle)
    places = _places(header, min(count, across * down), across, layout.rows, layout.columns)
    if across * down > _MOST_TILES or (across, down) == (1, 1):
        picture = mapper.map(source.frame(middle), middle)
        return Still(picture, middle, mapper.detail)
    canvas: type_picture | None = None
    for index, (top, left) in enumerate(places):
        if not (0 <= top < rows and 0 <= left < columns):
            continue
        tile = mapper.map(source.frame(index), index)
        if canvas is None:
            canvas = np.full((rows, columns, *tile.shape[2:]), 255, np.uint8)
        part = canvas[top : top + layout.rows, left : left + layout.columns]
        part[:] = tile[: part.shape[0], : part.shape[1]]
    return None if canvas is None else Still(canvas, 0, mapper.detail)


def _places(
    header: Dataset, count: int, across: int, rows: int, columns: int
) -> list[tuple[int, int]]:
    """Return (top, left) of each tile: stated, or by its number where all are there."""
    places: list[tuple[int, int]] = []
    for index in range(count):
        group = functional_group(header, "PlanePositionSlideSequence", index)
        top = integer(group, "RowPositionInTotalImagePixelMatrix")
        left = integer(group, "ColumnPositionInTotalImagePixelMatrix")
        if top is None or left is None:
            top, left = index // across * rows + 1, index % across * columns + 1
        places.append((top - 1, left - 1))
    return places


def _side_by_side(source: FrameSource, settings: ThumbnailSettings) -> Still | None:
    """Show front and back of a whole-body scan; other pairs as any clip."""
    if source.layout.rows < 2 * source.layout.columns:
        return None
    mapper = FrameMapper(source, settings)
    both = [mapper.map(source.frame(index), index) for index in range(2)]
    return Still(np.concatenate(both, axis=1), 0, mapper.detail)
