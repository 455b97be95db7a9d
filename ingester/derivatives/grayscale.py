"""Grayscale: from stored values to 8 bits, with one window for a whole clip.

The order is that of PS3.4 N.2: modality transform, VOI transform, presentation.
For up to 16 stored bits the three are composed once into one table of 65 536
entries; larger and floating values are computed.  What a header says is believed
only where it fits the data: a window that shows nothing is replaced by one from
percentiles, and the record says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ingester.derivatives.layout import Layout
from ingester.derivatives.values import (
    functional_group,
    integer,
    item,
    items,
    number,
    numbers,
    text,
    value,
    values,
)

type_values = NDArray[np.float64]

_X_RAY_SEQUENCES_IGNORED = (
    "1.2.840.10008.5.1.4.1.1.12.1",  # X-Ray Angiographic
    "1.2.840.10008.5.1.4.1.1.12.2",  # X-Ray Radiofluoroscopic
    "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-plane (retired)
)
PROJECTION = frozenset(("CR", "DX", "MG"))


def window(values_: type_values, centre: float, width: float, function: str) -> type_values:
    """Return values mapped by a window to 0…255, unrounded.

    References
    ----------
    PS3.3 C.11.2.1.2 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
    """
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values_ - centre) / width, -700.0, 700.0)
        return np.asarray(255.0 / (1.0 + np.exp(exponent)), np.float64)
    if function == "LINEAR_EXACT" or width < 1:
        scaled = (values_ - (centre - width / 2)) / width * 255.0
        return np.asarray(np.clip(scaled, 0.0, 255.0), np.float64)
    low = centre - 0.5 - (width - 1) / 2
    high = centre - 0.5 + (width - 1) / 2
    if width == 1:
        return np.where(values_ > high, 255.0, 0.0)
    scaled = ((values_ - (centre - 0.5)) / (width - 1) + 0.5) * 255.0
    return np.where(values_ <= low, 0.0, np.where(values_ > high, 255.0, scaled))


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """A Modality or VOI look-up table: entries from *first* on."""

    entries: type_values
    first: int

    def apply(self, values_: type_values) -> type_values:
        """Look values up; what lies outside takes the first or the last entry."""
        places = np.clip(np.nan_to_num(values_) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[places.astype(np.int64)], np.float64)


def lookup_table(found: Dataset | None, *, is_first_signed: bool, order: str) -> LookupTable | None:
    """Return the table of a LUT item, or None where it is unusable.

    Parameters
    ----------
    found
        The item of the Modality or VOI LUT Sequence.
    is_first_signed
        Whether the first value mapped may be negative (PS3.3 C.11.2.1.1).
    order
        "<" or ">", for data that comes as bytes.
    """
    descriptor = numbers(found, "LUTDescriptor")
    if len(descriptor) < 3 or descriptor[0] is None or descriptor[1] is None:
        return None
    count = int(descriptor[0]) & 0xFFFF or 65536
    first = int(descriptor[1])
    if is_first_signed and first > 32767:
        first -= 65536
    elif not is_first_signed:
        first &= 0xFFFF
    data = values(found, "LUTData")
    if not data:
        return None
    if isinstance(data[0], bytes):
        packed = len(data[0]) < 2 * count
        entries = np.frombuffer(
            data[0] if packed else data[0][: len(data[0]) // 2 * 2],
            "u1" if packed else f"{order}u2",
        )
    else:
        entries = np.array([each for each in data if isinstance(each, int)]) & 0xFFFF
        if len(entries) * 2 == count:  # 8-bit entries, two to a word
            entries = entries.astype(f"{order}u2").view(np.uint8)
    entries = entries[:count]
    if entries.size == 0:
        return None
    return LookupTable(entries.astype(np.float64), first)


@dataclass(frozen=True, slots=True)
class Modality:
    """The modality transform: a table, or a slope and an intercept."""

    slope: float = 1.0
    intercept: float = 0.0
    table: LookupTable | None = None

    def apply(self, stored: type_values) -> type_values:
        """Return output units for stored values."""
        if self.table is not None:
            return self.table.apply(stored)
        if self.slope == 1.0 and self.intercept == 0.0:
            return stored
        return stored * self.slope + self.intercept


@dataclass(frozen=True, slots=True)
class Voi:
    """The VOI transform: a table, a window, or nothing but the identity.

    `source` is what `detail.window_source` says.
    """

    source: str
    centre: float = 127.5
    width: float = 255.0
    function: str = "LINEAR_EXACT"
    table: LookupTable | None = None
    is_low_confidence: bool = False

    def apply(self, values_: type_values) -> type_values:
        """Return 0…255, unrounded."""
        if self.table is None:
            return window(values_, self.centre, self.width, self.function)
        entries = self.table.entries
        top = float(entries.max())
        bits = max(1, int(top).bit_length())
        # The depth often says 16 where 12 bits are used: the largest entry decides.
        limit = float((1 << bits) - 1)
        return self.table.apply(values_) * (255.0 / limit)


def modality_of(header: Dataset, frame: int, order: str) -> Modality:
    """Return the modality transform of a frame (counted from 0)."""
    group = functional_group(header, "PixelValueTransformationSequence", frame)
    where = group if group is not None else header
    sequence = item(where, "ModalityLUTSequence")
    if sequence is not None and text(header, "SOPClassUID") not in _X_RAY_SEQUENCES_IGNORED:
        is_signed = integer(header, "PixelRepresentation") == 1
        table = lookup_table(sequence, is_first_signed=is_signed, order=order)
        if table is not None:
            return Modality(table=table)
    slope = number(where, "RescaleSlope")
    intercept = number(where, "RescaleIntercept")
    return Modality(
        1.0 if slope is None or slope == 0 or abs(slope) > 1e12 else slope,
        0.0 if intercept is None or abs(intercept) > 1e15 else intercept,
    )


def header_voi(
    header: Dataset, frame: int, modality: Modality, prefer_table: bool, order: str
) -> list[Voi]:
    """Return what the header offers as VOI transforms, the preferred one first."""
    group = functional_group(header, "FrameVOILUTSequence", frame)
    offered: list[Voi] = []
    for where in (group, header) if group is not None else (header,):
        pair = _first_window(where)
        if pair is not None:
            function = text(where, "VOILUTFunction").upper() or "LINEAR"
            if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
                function = "LINEAR"
            offered.append(Voi("header", *pair, function))
            break
    is_signed = integer(header, "PixelRepresentation") == 1 or modality.intercept < 0
    tables = (
        lookup_table(each, is_first_signed=is_signed, order=order)
        for each in items(header, "VOILUTSequence")[:1]
    )
    for table in tables:
        if table is not None and float(table.entries.max()) > float(table.entries.min()):
            offered.insert(0 if prefer_table else len(offered), Voi("voi-lut", table=table))
    return offered


def _first_window(where: Dataset | None) -> tuple[float, float] | None:
    centres, widths = numbers(where, "WindowCenter"), numbers(where, "WindowWidth")
    for centre, width in zip(centres, widths, strict=False):
        if centre is not None and width is not None and width > 0 and abs(centre) < 1e15:
            return centre, width
    return None


def is_inverted(header: Dataset, photometric_interpretation: str) -> bool:
    """Tell whether low values shall be bright, asked once (PS3.3 C.11.6.1.2)."""
    shape = text(header, "PresentationLUTShape").upper()
    if shape:
        return shape == "INVERSE"
    return photometric_interpretation == "MONOCHROME1"


def padding_range(header: Dataset, layout: Layout) -> tuple[float, float] | None:
    """Return the declared padding as (low, high) in stored units, or None."""
    for first_word, last_word in (
        ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
        ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
        ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    ):
        first = number(header, first_word)
        if first is None:
            continue
        last = number(header, last_word)
        limits = [first, first if last is None else last]
        if first_word == "PixelPaddingValue":
            limits = [_as_stored(each, layout) for each in limits]
        return min(limits), max(limits)
    return None


def _as_stored(padding: float, layout: Layout) -> float:
    """Read a padding value in the signedness of the pixels, whatever its VR said."""
    if layout.is_signed and padding > 32767:
        return padding - 65536
    if not layout.is_signed and padding < 0:
        return padding + 65536
    return padding


@dataclass(frozen=True, slots=True)
class Rendering:
    """All three transforms of a frame, composed."""

    modality: Modality
    voi: Voi
    inverted: bool
    padding: tuple[float, float] | None

    def apply(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        """Return 8 bits for stored values: round half up, padding black."""
        raw = stored.astype(np.float64)
        shown = self.voi.apply(self.modality.apply(np.nan_to_num(raw, posinf=0, neginf=0)))
        if self.inverted:
            shown = 255.0 - shown
        result = np.floor(np.clip(shown, 0.0, 255.0) + 0.5).astype(np.uint8)
        hidden = ~np.isfinite(raw)
        if self.padding is not None:
            hidden |= (raw >= self.padding[0]) & (raw <= self.padding[1])
        result[hidden] = 0
        return result

    def table(self, dtype: np.dtype[Any]) -> NDArray[np.uint8]:
        """Return 8 bits for each value of an integer type of up to 16 bits."""
        unsigned = np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
        return self.apply(unsigned.view(dtype))


def is_for_processing(header: Dataset) -> bool:
    """Tell whether this is raw data of a projection, without a look of its own."""
    intent = text(header, "PresentationIntentType").upper()
    return intent == "FOR PROCESSING" and text(header, "Modality").upper() in PROJECTION


def is_processing_inverted(header: Dataset, otherwise: bool) -> bool:
    """Tell whether raw data is to be inverted, so that what absorbs is bright.

    References
    ----------
    Pixel Intensity Relationship Sign: 1 says that low values are little X-ray
    (PS3.3 C.8.11.3.1.2).
    """
    sign = integer(header, "PixelIntensityRelationshipSign")
    return otherwise if sign not in (1, -1) else sign == 1


def finite(number_: float) -> float | None:
    """Return a number as JSON can hold it, rounded."""
    return round(number_, 6) if math.isfinite(number_) else None


def has_frame_groups(header: Dataset) -> bool:
    """Tell whether frames may bring a rescale of their own."""
    return value(header, "PerFrameFunctionalGroupsSequence") is not None
