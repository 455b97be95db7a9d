"""How fast a clip plays: the first sane timing an object states, exactly.

A cine says its rate in up to eight places, often in several that disagree, some
of them in the wrong unit.  `cine_timing` asks them in a fixed order (what the
Frame Increment Pointer names comes first, for real time beats "recommended" time:
a heart rate must look right), drops what cannot be true and falls back to a
default of the modality.  Rates are exact fractions, so that a Frame Time of 33 ms
is still 33 ms at the end of a long clip.  All here is pure over the header.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import pairwise

from pydicom.dataset import Dataset
from pydicom.valuerep import DT

from ingester.derivatives.values import BROKEN, item, items, text, value, values

#: Above this the source is not believed; up to it every frame plays at its rate.
FASTEST = Fraction(240)
#: Below this a viewer would not see motion: the clip is a time-lapse.
SLOWEST = Fraction(1, 2)
#: The finest grid for frames of unequal duration.
FASTEST_GRID = Fraction(60)
#: Increments that differ by no more than this are one rate (jitter of a clock).
JITTER = Fraction(115, 100)
#: An increment above so many medians is a pause or a slip of the pen.
OUTLIER = 10
#: Two rates that differ by more do not confirm one another.
AGREEMENT = Fraction(20, 100)

SCROLL_RATE = Fraction(10)
ROTATE_RATE = Fraction(10)
_DEFAULT_RATE = Fraction(15)
_MODALITY_RATES = {
    **dict.fromkeys(("US", "IVUS"), Fraction(30)),
    **dict.fromkeys(("ES", "GM", "XC", "OP"), Fraction(25)),
    "NM": Fraction(5),
}

_FRAME_TIME = 0x00181063
_FRAME_TIME_VECTOR = 0x00181065
_MILLISECONDS = 1000
_LARGEST_EXPONENT = 30
_DAY = 86_400
# FFmpeg reduces a rate to terms of about a million.
_LARGEST_TERM = 1_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """At which rate a clip plays, and who says so.

    `repeats` has one entry per frame where frames last unequally: how many frames of the
    grid show it (`None`: each is shown once).  `time_scale` says how many seconds of
    reality pass in one of a time-lapse.  `notes` are slugs of what was odd.
    """

    rate: Fraction
    source: str
    repeats: tuple[int, ...] | None = None
    time_scale: Fraction | None = None
    notes: tuple[str, ...] = ()

    def frames_shown(self, frames: int) -> int:
        """Return how many frames the video of *frames* frames has."""
        return frames if self.repeats is None else sum(self.repeats)

    def seconds(self, frames: int) -> Fraction:
        """Return how long the video of *frames* frames plays."""
        return self.frames_shown(frames) / self.rate


def default_rate(modality: str) -> Fraction:
    """Return the rate (fps) of a modality's clips that state none."""
    return _MODALITY_RATES.get(modality, _DEFAULT_RATE)


def encodable(rate: Fraction) -> Fraction:
    """Return the nearest rate whose terms FFmpeg keeps exactly."""
    if rate.numerator <= _LARGEST_TERM and rate.denominator <= _LARGEST_TERM:
        return rate
    most = _LARGEST_TERM if rate < 1 else int(_LARGEST_TERM / rate)
    return rate.limit_denominator(max(1, most))


def cine_timing(ds: Dataset, frames: int, *, prefer_recommended_rate: bool = False) -> Timing:
    """Return the timing of a clip of *frames* frames.

    References
    ----------
    PS3.3 C.7.6.5 (Cine Module), C.7.6.16.2.2, C.7.6.16.2.7.
    """
    modality = text(ds, "Modality")
    notes: list[str] = []
    for candidate in _candidates(ds, frames, prefer_recommended_rate):
        timing = _judged(candidate, default_rate(modality), notes)
        if timing is not None:
            return _compared(ds, timing)
    return Timing(default_rate(modality), "default", notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: str
    intervals: tuple[Fraction, ...]  # seconds; one value means that all are equal
    notes: tuple[str, ...] = ()


def _candidates(ds: Dataset, frames: int, prefer_recommended: bool) -> Iterator[_Candidate]:
    """Yield what the header states, best first; the values are not judged yet."""
    recommended = _rate(ds, "RecommendedDisplayFrameRate")
    if prefer_recommended:
        yield from recommended
    named = _pointer(ds)
    roads: list[Callable[[], Iterable[_Candidate]]] = []
    if _FRAME_TIME_VECTOR in named:
        roads.append(lambda: _vector(ds, frames))
    if _FRAME_TIME in named:
        roads.append(lambda: _frame_time(ds))
    roads += [lambda: _frame_time(ds), lambda: _vector(ds, frames)]
    for road in roads:
        yield from road()
    yield from recommended
    yield from _rate(ds, "CineRate")
    yield from _functional_groups(ds)
    yield from _duration(ds, "EffectiveDuration", Fraction(1, max(1, frames)))
    yield from _duration(ds, "ActualFrameDuration", Fraction(1, _MILLISECONDS))


def _judged(candidate: _Candidate, default: Fraction, notes: list[str]) -> Timing | None:
    """Return the candidate as a timing, or None where it cannot be true."""
    mean = sum(candidate.intervals, Fraction(0)) / len(candidate.intervals)
    if not 1 / FASTEST <= mean <= _DAY:
        note = f"absurd-{candidate.source}"
        if note not in notes:
            notes.append(note)
        return None
    said = (*notes, *candidate.notes)
    if 1 / mean < SLOWEST:
        return Timing(default, candidate.source, time_scale=mean * default, notes=said)
    positive = [each for each in candidate.intervals if each > 0]
    if max(positive) <= JITTER * min(positive) and len(positive) == len(candidate.intervals):
        return Timing(encodable(1 / mean), candidate.source, notes=said)
    rate, repeats = grid(candidate.intervals)
    return Timing(rate, candidate.source, repeats=repeats, notes=said)


def grid(intervals: Sequence[Fraction]) -> tuple[Fraction, tuple[int, ...]]:
    """Lay frames of unequal duration on a grid of one constant rate.

    Raw video on a pipe has no time stamps, and repeated frames cost an encoder almost
    nothing.  Cumulative rounding keeps each frame within half a step of its moment.

    Parameters
    ----------
    intervals
        Seconds between a frame and the next, one fewer than frames.

    Returns
    -------
    The rate of the grid in fps and, for each frame, how many of its steps show it; the
    last frame, whose duration nobody states, lasts a median interval.
    """
    rate = encodable(min(FASTEST_GRID, 1 / min(each for each in intervals if each > 0)))
    edges = [0]
    elapsed = Fraction(0)
    for interval in (*intervals, Fraction(statistics.median(intervals))):
        elapsed += interval
        edges.append(int(elapsed * rate + Fraction(1, 2)))
    repeats = [later - earlier for earlier, later in pairwise(edges)]
    repeats[-1] = max(1, repeats[-1])
    return rate, tuple(repeats)


def _compared(ds: Dataset, timing: Timing) -> Timing:
    """Note where Frame Time and Cine Rate contradict one another."""
    if not timing.source.startswith("FrameTime") or timing.time_scale is not None:
        return timing
    cine = exact(ds, "CineRate")
    shown = timing.rate if timing.repeats is None else None
    if cine is None or cine <= 0 or shown is None or _agree(cine, shown):
        return timing
    return Timing(timing.rate, timing.source, notes=(*timing.notes, "cine-rate-differs"))


def _agree(one: Fraction, other: Fraction) -> bool:
    return abs(one - other) <= AGREEMENT * max(one, other)


def _pointer(ds: Dataset) -> set[int]:
    """Return the tags that Frame Increment Pointer names."""
    return {int(each) for each in values(ds, "FrameIncrementPointer") if isinstance(each, int)}


def _frame_time(ds: Dataset) -> Iterator[_Candidate]:
    value = exact(ds, "FrameTime")
    if value is None or value <= 0:
        return
    if value >= 1:
        yield _Candidate("FrameTime", (value / _MILLISECONDS,))
        return
    # Below one millisecond somebody may have written seconds: only with a witness.
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        witness = exact(ds, keyword)
        if witness is not None and witness > 0 and _agree(witness, 1 / value):
            yield _Candidate("FrameTime", (value,), ("frame-time-in-seconds",))
            return


def _vector(ds: Dataset, frames: int) -> Iterator[_Candidate]:
    """Yield the increments between frames; the first value (0) precedes frame 1."""
    stated = [_exact(each) for each in values(ds, "FrameTimeVector")]
    if frames < 2 or abs(len(stated) - frames) > 1:
        return
    increments = stated if len(stated) == frames - 1 else stated[1:frames]
    known = [each for each in increments if each is not None and each >= 0]
    if len(known) != len(increments) or not any(known):
        return
    notes: tuple[str, ...] = ()
    limit = OUTLIER * Fraction(statistics.median(known))
    if limit > 0 and max(known) > limit:
        known = [min(each, limit) for each in known]
        notes = ("vector-outliers-clamped",)
    yield _Candidate("FrameTimeVector", tuple(each / _MILLISECONDS for each in known), notes)


def _rate(ds: Dataset, keyword: str) -> list[_Candidate]:
    value = exact(ds, keyword)
    return [_Candidate(keyword, (1 / value,))] if value is not None and value > 0 else []


def _duration(ds: Dataset, keyword: str, unit: Fraction) -> Iterator[_Candidate]:
    value = exact(ds, keyword)
    if value is not None and value > 0:
        yield _Candidate(keyword, (value * unit,))


def _functional_groups(ds: Dataset) -> Iterator[_Candidate]:
    """Yield the timings of enhanced objects: median steps of what each frame states."""
    groups = items(ds, "PerFrameFunctionalGroupsSequence")
    contents = [item(each, "FrameContentSequence") for each in groups]
    for keyword in ("FrameReferenceDateTime", "FrameAcquisitionDateTime"):
        yield from _steps(keyword, [_moment(value(each, keyword)) for each in contents])
    positions = [item(each, "TemporalPositionSequence") for each in groups]
    keyword = "TemporalPositionTimeOffset"
    yield from _steps(keyword, [exact(each, keyword) for each in positions])
    beats = [item(each, "CardiacSynchronizationSequence") for each in groups]
    keyword = "NominalCardiacTriggerDelayTime"
    delays = [exact(each, keyword) for each in beats]
    phases = len({each for each in delays if each is not None})
    beat = exact(beats[0], "RRIntervalTimeNominal") if beats else None
    if phases > 1 and beat is not None and beat > 0:  # the loop is one heart beat
        yield _Candidate(keyword, (beat / phases / _MILLISECONDS,))
        return
    yield from _steps(keyword, [each and each / _MILLISECONDS for each in delays])


def _steps(source: str, moments: Sequence[Fraction | None]) -> Iterator[_Candidate]:
    known = [each for each in moments if each is not None]
    steps = [b - a for a, b in pairwise(known) if b > a]
    if steps:
        yield _Candidate(source, (Fraction(statistics.median(steps)),))


def _moment(raw: object) -> Fraction | None:
    """Return a DT value as seconds; only differences of two are meaningful."""
    try:
        parsed = raw if isinstance(raw, datetime) else DT(str(raw))
    except BROKEN:
        return None
    if not isinstance(parsed, datetime):
        return None
    whole = Fraction(parsed.toordinal() * 86400 + parsed.hour * 3600)
    whole += parsed.minute * 60 + parsed.second + Fraction(parsed.microsecond, 1_000_000)
    shift = parsed.utcoffset()
    return whole - (Fraction(shift.total_seconds()) if shift else 0)


def exact(dataset: Dataset | None, keyword: str) -> Fraction | None:
    """Return the first value as an exact number, or None."""
    found = values(dataset, keyword)
    return _exact(found[0]) if found else None


def _exact(raw: object) -> Fraction | None:
    """Return a DS, IS, FL or FD value as its text says, or None."""
    written = getattr(raw, "original_string", None)
    try:
        decimal = Decimal(str(raw if written is None else written).strip(" \0"))
        # A hostile exponent would make an integer of gigabytes.
        is_sane = decimal.is_finite() and abs(decimal.adjusted()) <= _LARGEST_EXPONENT
        return Fraction(decimal) if is_sane or decimal.is_zero() else None
    except (InvalidOperation, ValueError):
        return None
