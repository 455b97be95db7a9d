"""Grayscale: from stored values to 8 bits, with one window for a whole clip.

The order is that of PS3.4 N.2: modality transform, VOI transform, presentation.
For up to 16 stored bits the three are composed once into one table of 65 536
entries; larger and floating values are computed.  What a header says is believed
only where it fits the data: a window that shows nothing is replaced by one from
percentiles, and the record says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ingester.derivatives import pet
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
_IDENTITY_MODALITIES = frozenset(
    ["US", "XA", "RF", "ES", "XC", "OP", "GM", "SC", "OT", "IVUS", "ECG"]
)
_PROJECTION = frozenset(("CR", "DX", "MG"))
_OFTEN_IN_STORED_UNITS = frozenset(("MR", "PT", "RTDOSE", "XA", "RF"))
_LEAST_INSIDE = 0.01
_LEAST_SPREAD = 0.01


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


def sample(frames: Sequence[NDArray[Any]]) -> type_values:
    """Return the frames' values, thinned out to at most 512 a side, as one array."""
    parts = []
    for frame in frames:
        step = max(1, -(-max(frame.shape[:2]) // 512))
        parts.append(frame[::step, ::step].astype(np.float64).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def without_padding(stored: type_values, padding: tuple[float, float] | None) -> type_values:
    """Drop what is not data: declared padding, NaN, and a lone extreme value."""
    stored = stored[np.isfinite(stored)]
    if padding is not None:
        kept = stored[(stored < padding[0]) | (stored > padding[1])]
        return kept if kept.size else stored
    if stored.size == 0:
        return stored
    low, high = float(stored.min()), float(stored.max())
    for extreme in (low, high):
        others = np.asarray(stored[stored != extreme], np.float64)
        if not others.size or others.size > 0.75 * stored.size:
            continue
        gap = float(others.min()) - low if extreme == low else high - float(others.max())
        if gap > 0.1 * (high - low):
            return others
    return stored


def auto_window(values_: type_values, low_percent: float, high_percent: float) -> Voi:
    """Return a window from percentiles; flat data becomes black or mid-gray."""
    values_ = values_[np.isfinite(values_)]
    if values_.size == 0:
        return Voi("auto", is_low_confidence=True)
    low, high = (float(each) for each in np.percentile(values_, (low_percent, high_percent)))
    if high <= low:
        low, high = float(values_.min()), float(values_.max())
    if high <= low:
        # One value only: a window far above it for black, centred on it for mid-gray.
        return (
            Voi("auto", low + 1.0, 1e-6)
            if low <= 0
            else Voi("auto", low, max(1.0, abs(low)), is_low_confidence=True)
        )
    return Voi("auto", (low + high) / 2, high - low)


def inside(values_: type_values, voi: Voi) -> float:
    """Return the share of values that a window neither blackens nor whitens."""
    if values_.size == 0 or voi.table is not None:
        return 1.0
    half = voi.width / 2
    kept = (values_ >= voi.centre - half) & (values_ <= voi.centre + half)
    return float(kept.mean())


def shows(values_: type_values, voi: Voi) -> bool:
    """Tell whether values fall inside a window and spread over some of its width."""
    if inside(values_, voi) < _LEAST_INSIDE:
        return False
    low, high = np.percentile(values_, (1, 99)) if values_.size else (0.0, 0.0)
    return bool(high - low >= _LEAST_SPREAD * voi.width)


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


def is_hounsfield(header: Dataset, modality: Modality) -> bool:
    """Tell whether the output units of a CT are Hounsfield units."""
    if text(header, "RescaleType").upper() == "HU":
        return True
    return text(header, "Modality") == "CT" and modality.intercept in (-1024.0, -1000.0)


def choose_voi(
    header: Dataset,
    layout: Layout,
    modality: Modality,
    stored: type_values,
    shown: type_values,
    *,
    frame: int,
    prefer_table: bool,
    order: str,
) -> tuple[Modality, Voi]:
    """Return the VOI transform for a clip, and the modality transform it goes with.

    *stored* is a sample of stored values without padding, *shown* the same after
    each frame's modality transform.  A window that fits only
    the stored values, not the rescaled ones, is applied to those (the modality
    transform returned is then the identity).
    """
    kind = text(header, "Modality").upper()
    doubted = False
    if is_for_processing(header):
        chosen = auto_window(shown, 1.0, 99.0)
        return modality, replace(chosen, is_low_confidence=True)
    for voi in header_voi(header, frame, modality, prefer_table, order):
        if voi.table is not None:
            return modality, voi
        in_stored_units = kind in _OFTEN_IN_STORED_UNITS and shows(stored, voi)
        if inside(shown, voi) >= _LEAST_INSIDE and (shows(shown, voi) or not in_stored_units):
            return modality, voi
        if in_stored_units:
            return Modality(), voi
        doubted = True
    chosen = _without_header(header, layout, modality, stored, shown, kind)
    if doubted and chosen.source == "auto":
        chosen = replace(chosen, is_low_confidence=True)
    return modality, chosen


def _without_header(
    header: Dataset,
    layout: Layout,
    modality: Modality,
    stored: type_values,
    shown: type_values,
    kind: str,
) -> Voi:
    if kind == "PT":
        return _pet_voi(header, shown)
    if kind == "NM":
        return _from_zero(shown, 99.5)
    if kind == "CT" and is_hounsfield(header, modality):
        preset = Voi("preset", 40.0, 400.0, "LINEAR")
        if inside(shown, preset) >= _LEAST_INSIDE:
            return preset
    smallest = number(header, "SmallestImagePixelValue")
    largest = number(header, "LargestImagePixelValue")
    is_plain = modality.table is None and modality.slope > 0
    if smallest is not None and largest is not None and smallest < largest and stored.size:
        top = 2.0**layout.bits_stored
        fits = -top / 2 <= smallest and largest < top
        if fits and smallest <= float(stored.min()) and float(stored.max()) <= largest and is_plain:
            low, high = (each * modality.slope + modality.intercept for each in (smallest, largest))
            return Voi("stored-range", (low + high) / 2, high - low)
    is_identity = is_plain and modality.slope == 1.0 and modality.intercept == 0.0
    if (
        layout.bits_allocated == 8
        and layout.bits_stored == 8
        and not layout.is_signed
        and is_identity
        and kind in _IDENTITY_MODALITIES
    ):
        return Voi("identity")
    if kind in _PROJECTION:
        return auto_window(shown, 1.0, 99.0)
    return auto_window(shown, 0.5, 99.5)


def _pet_voi(header: Dataset, shown: type_values) -> Voi:
    top = pet.top_of_window(header)
    if top is not None:
        preset = Voi("preset", top / 2, top)
        if inside(shown, preset) >= _LEAST_INSIDE:
            return preset
    return _from_zero(shown, 99.9)


def _from_zero(shown: type_values, high_percent: float) -> Voi:
    """Return a window from nothing to nearly the hottest value: counts and uptake."""
    chosen = auto_window(shown, 0.0, high_percent)
    top = chosen.centre + chosen.width / 2
    return Voi("auto", top / 2, top) if top > 0 and chosen.width > 1e-6 else chosen


def is_for_processing(header: Dataset) -> bool:
    """Tell whether this is raw data of a projection, without a look of its own."""
    intent = text(header, "PresentationIntentType").upper()
    return intent == "FOR PROCESSING" and text(header, "Modality").upper() in _PROJECTION


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
