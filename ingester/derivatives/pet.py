"""The display window of a PET object: in SUV where the header allows, never by guess.

A standardised uptake value is the activity by the dose per gram of body weight;
0 to 6 shows most of what readers look for.  Where units, weight, dose or times are
missing the caller falls back on percentiles.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from ingester.derivatives.values import item, number, text

TOP_SUV = 6.0


def top_of_window(header: Dataset) -> float | None:
    """Return the rescaled value that is SUV 6, or None where it is not known."""
    units = text(header, "Units").upper()
    if units == "GML":
        return TOP_SUV
    if units != "BQML":
        return None
    weight = number(header, "PatientWeight")
    tracer = item(header, "RadiopharmaceuticalInformationSequence")
    dose = number(tracer, "RadionuclideTotalDose")
    half_life = number(tracer, "RadionuclideHalfLife")
    if not weight or not dose or not half_life or min(weight, dose, half_life) <= 0:
        return None
    correction = text(header, "DecayCorrection").upper()
    if correction == "START":
        injected, scanned = _injected_at(header, tracer), _moment(header, "Series")
        if injected is None or scanned is None:
            return None
        if scanned < injected:
            scanned += timedelta(days=1)  # over midnight, where only times are given
        waited = (scanned - injected).total_seconds()
        if not 0 <= waited < 10 * half_life:
            return None
        dose *= 2.0 ** (-waited / half_life)
    elif correction != "ADMIN":
        return None
    return TOP_SUV * dose / (weight * 1000.0)


def _injected_at(header: Dataset, tracer: Dataset | None) -> datetime | None:
    full = _parsed(text(tracer, "RadiopharmaceuticalStartDateTime")[:14])
    if full is not None:
        return full
    day = text(header, "SeriesDate")
    return _parsed(day + text(tracer, "RadiopharmaceuticalStartTime")[:6])


def _moment(header: Dataset, what: str) -> datetime | None:
    return _parsed(text(header, f"{what}Date") + text(header, f"{what}Time")[:6])


def _parsed(words: str) -> datetime | None:
    try:
        return datetime.strptime(words, "%Y%m%d%H%M%S")
    except ValueError:
        return None
