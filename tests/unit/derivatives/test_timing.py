"""Which of the stated timings is believed, and what becomes of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ingester.derivatives.timing import Timing, cine_timing, encodable, grid

POINTER_TO_TIME = 0x00181063
POINTER_TO_VECTOR = 0x00181065


def header(modality: str = "US", **values: Any) -> Dataset:
    ds = Dataset()
    ds.Modality = modality
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def timing(frames: int = 10, modality: str = "US", **values: Any) -> Timing:
    return cine_timing(header(modality, **values), frames)


def groups(sequence: str, keyword: str, values: list[Any], **more: Any) -> Sequence:
    found = []
    for value in values:
        inner = header(**{keyword: value, **more})
        del inner.Modality
        group = Dataset()
        setattr(group, sequence, Sequence([inner]))
        found.append(group)
    return Sequence(found)


def test_frame_time_is_exact() -> None:
    found = timing(FrameIncrementPointer=POINTER_TO_TIME, FrameTime="33")
    assert found.rate == Fraction(1000, 33)
    assert found.source == "FrameTime"


def test_decimals_are_taken_as_written() -> None:
    assert timing(FrameTime="66.67").rate == Fraction(100000, 6667)


def test_the_pointer_s_choice_goes_first() -> None:
    both: dict[str, Any] = {"FrameTime": "40", "FrameTimeVector": ["0", "20", "20", "20"]}
    assert timing(4, FrameIncrementPointer=POINTER_TO_VECTOR, **both).rate == 50
    assert timing(4, FrameIncrementPointer=POINTER_TO_TIME, **both).rate == 25
    assert timing(4, **both).rate == 25


def test_frames_times_go_before_recommended_rate_unless_preferred() -> None:
    ds = header(FrameTime="40", RecommendedDisplayFrameRate="10", CineRate="25")
    assert cine_timing(ds, 5).rate == 25
    preferred = cine_timing(ds, 5, prefer_recommended_rate=True)
    assert preferred.rate == 10
    assert preferred.source == "RecommendedDisplayFrameRate"


@pytest.mark.parametrize(
    ("values", "source", "rate"),
    [
        (
            {"RecommendedDisplayFrameRate": "12", "CineRate": "50"},
            "RecommendedDisplayFrameRate",
            12,
        ),
        ({"CineRate": "50"}, "CineRate", 50),
        ({"EffectiveDuration": 2.0}, "EffectiveDuration", 5),
        ({"ActualFrameDuration": "100"}, "ActualFrameDuration", 10),
    ],
)
def test_further_sources_in_order(values: dict[str, Any], source: str, rate: int) -> None:
    found = timing(10, "XA", **values)
    assert found.source == source
    assert found.rate == rate


@pytest.mark.parametrize("value", ["0", "-40", ""])
def test_senseless_frame_time_yields_to_the_next_source(value: str) -> None:
    assert timing(FrameTime=value, CineRate="20").source == "CineRate"


@pytest.mark.parametrize("value", ["1E999999999", "1e20"])
def test_hostile_exponents_are_not_worked_out(value: str) -> None:
    ds = header(CineRate="20")
    ds.add_new(0x00181063, "LO", value)
    assert cine_timing(ds, 10).source == "CineRate"


def test_a_value_that_is_no_number_yields_to_the_next_source() -> None:
    ds = header(CineRate="20")
    ds.add_new(0x00181063, "LO", "often")
    assert cine_timing(ds, 10).source == "CineRate"


def test_frame_time_in_seconds_needs_a_witness() -> None:
    believed = timing(FrameTime="0.04", CineRate="24")
    assert believed.rate == 25
    assert believed.source == "FrameTime"
    assert "frame-time-in-seconds" in believed.notes
    assert timing(FrameTime="0.04", CineRate="12").source == "CineRate"
    assert timing(FrameTime="0.04").source == "default"


def test_absurdly_fast_yields_to_the_next_source() -> None:
    found = timing(FrameTime="2", CineRate="30")
    assert found.source == "CineRate"
    assert "absurd-FrameTime" in found.notes


def test_fast_but_possible_plays_every_frame() -> None:
    found = timing(FrameTime="5")
    assert found.rate == 200
    assert found.repeats is None


def test_slow_is_a_time_lapse() -> None:
    found = timing(10, "NM", ActualFrameDuration="10000")
    assert found.rate == 5
    assert found.time_scale == 50


def test_disagreement_with_cine_rate_is_noted() -> None:
    assert "cine-rate-differs" in timing(FrameTime="40", CineRate="50").notes
    assert timing(FrameTime="40", CineRate="26").notes == ()


@pytest.mark.parametrize(
    ("modality", "rate"), [("US", 30), ("ES", 25), ("XA", 15), ("NM", 5), ("ZZ", 15)]
)
def test_default_by_modality(modality: str, rate: int) -> None:
    assert timing(10, modality) == Timing(Fraction(rate), "default")


class TestVector:
    @pytest.mark.parametrize("vector", [[0, 40, 40, 40], [40, 40, 40], [0, 40, 40, 40, 40]])
    def test_length_may_be_off_by_one(self, vector: list[int]) -> None:
        found = timing(4, FrameTimeVector=[str(each) for each in vector])
        assert found.rate == 25
        assert found.repeats is None

    def test_another_length_is_not_believed(self) -> None:
        assert timing(9, FrameTimeVector=["0", "40", "40"]).source == "default"

    def test_jitter_is_one_rate(self) -> None:
        found = timing(4, FrameTimeVector=["0", "124", "125", "126"])
        assert found.rate == 8
        assert found.repeats is None

    def test_unequal_times_are_laid_on_a_grid(self) -> None:
        found = timing(4, FrameTimeVector=["0", "40", "80", "40"])
        assert found.rate == 25
        assert found.repeats == (1, 2, 1, 1)
        assert found.frames_shown(4) == 5

    def test_outliers_are_clamped(self) -> None:
        found = timing(5, FrameTimeVector=["0", "40", "40", "40", "90000"])
        assert found.repeats == (1, 1, 1, 10, 1)
        assert "vector-outliers-clamped" in found.notes

    def test_negative_increments_are_not_believed(self) -> None:
        assert timing(4, FrameTimeVector=["0", "40", "-40", "40"]).source == "default"


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_grid_keeps_each_frame_within_half_a_step(milliseconds: list[int]) -> None:
    intervals = [Fraction(each, 1000) for each in milliseconds]
    rate, repeats = grid(intervals)
    assert len(repeats) == len(intervals) + 1
    moment, step = Fraction(0), 0
    for interval, times in zip(intervals, repeats, strict=False):
        assert abs(step / rate - moment) <= Fraction(1, 2) / rate
        moment += interval
        step += times


class TestEnhanced:
    def test_reference_times(self) -> None:
        values = [f"20240101101500.{each:03d}000" for each in (0, 50, 100, 150)]
        ds = header("MR")
        ds.PerFrameFunctionalGroupsSequence = groups(
            "FrameContentSequence", "FrameReferenceDateTime", values
        )
        found = cine_timing(ds, 4)
        assert found.rate == 20
        assert found.source == "FrameReferenceDateTime"

    def test_time_offsets_are_seconds(self) -> None:
        ds = header("MR")
        ds.PerFrameFunctionalGroupsSequence = groups(
            "TemporalPositionSequence", "TemporalPositionTimeOffset", [0.0, 0.25, 0.5]
        )
        assert cine_timing(ds, 3).rate == 4

    def test_a_loop_of_cardiac_phases_is_one_beat(self) -> None:
        ds = header("MR")
        ds.PerFrameFunctionalGroupsSequence = groups(
            "CardiacSynchronizationSequence",
            "NominalCardiacTriggerDelayTime",
            [0.0, 100.0, 200.0, 300.0, 400.0],
            RRIntervalTimeNominal=1000.0,
        )
        assert cine_timing(ds, 5).rate == 5


@given(st.fractions(Fraction(1, 2), 240))
def test_encodable_rates_have_small_terms_and_hardly_differ(rate: Fraction) -> None:
    found = encodable(rate)
    assert found.numerator <= 1_000_000
    assert found.denominator <= 1_000_000
    assert abs(found - rate) < Fraction(1, 1000)
