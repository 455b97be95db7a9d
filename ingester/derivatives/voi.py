"""Which window shows a clip: the header's where it fits the data, else one made from it.

A header window is believed if at least one sample in a hundred falls inside; after it
come the VOI LUT, the stated range of values, what is usual for the modality, and at
last percentiles of a sample without its padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ingester.derivatives import pet
from ingester.derivatives.grayscale import (
    PROJECTION,
    Modality,
    Voi,
    header_voi,
    is_for_processing,
    type_values,
)
from ingester.derivatives.layout import Layout
from ingester.derivatives.values import number, text

_IDENTITY_MODALITIES = frozenset(
    ["US", "XA", "RF", "ES", "XC", "OP", "GM", "SC", "OT", "IVUS", "ECG"]
)
_OFTEN_IN_STORED_UNITS = frozenset(("MR", "PT", "RTDOSE", "XA", "RF"))
_LEAST_INSIDE = 0.01
_LEAST_SPREAD = 0.01


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
    if kind in PROJECTION:
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
