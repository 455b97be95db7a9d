"""Which objects get a video, and in which order of frames."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ingester.derivatives.plan import Motion, Playback, VideoPlan, plan_video, playing_order
from ingester.model import DerivativeReason

STORAGE = "1.2.840.10008.5.1.4.1.1."
EXPLICIT = "1.2.840.10008.1.2.1"


def plan(
    sop_class: str,
    modality: str,
    *,
    frames: int = 6,
    syntax: str = EXPLICIT,
    has_pixels: bool = True,
    scroll: bool = True,
    **values: Any,
) -> VideoPlan:
    ds = Dataset()
    ds.SOPClassUID = STORAGE + sop_class
    ds.Modality = modality
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return plan_video(
        ds, frames=frames, has_pixels=has_pixels, transfer_syntax=syntax, scroll=scroll
    )


def volume(positions: list[list[float]], indices: list[list[int]] | None = None) -> dict[str, Any]:
    frames = []
    for number, position in enumerate(positions):
        plane, content, frame = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = position
        frame.PlanePositionSequence = Sequence([plane])
        if indices is not None:
            content.DimensionIndexValues = indices[number]
            frame.FrameContentSequence = Sequence([content])
        frames.append(frame)
    orientation, shared = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([orientation])
    return {
        "PerFrameFunctionalGroupsSequence": Sequence(frames),
        "SharedFunctionalGroupsSequence": Sequence([shared]),
    }


@pytest.mark.parametrize(
    ("sop_class", "modality", "values"),
    [
        ("3.1", "US", {}),
        ("12.1", "XA", {}),
        ("12.2", "RF", {}),
        ("14.1", "IVOCT", {}),
        ("77.1.1", "ES", {}),
        ("7.4", "SC", {}),
        ("7", "OT", {"FrameTime": "40"}),
        ("4", "MR", {"FrameTime": "40"}),
        ("20", "NM", {"FrameIncrementPointer": [0x00540010, 0x00540070]}),
        ("20", "NM", {"ImageType": ["ORIGINAL", "PRIMARY", "DYNAMIC", "EMISSION"]}),
    ],
)
def test_cines(sop_class: str, modality: str, values: dict[str, Any]) -> None:
    assert plan(sop_class, modality, **values).motion is Motion.CINE


def test_rotating_camera() -> None:
    pointer = [0x00540010, 0x00540020, 0x00540050, 0x00540090]
    assert plan("20", "NM", FrameIncrementPointer=pointer).motion is Motion.ROTATE


@pytest.mark.parametrize(
    ("sop_class", "modality", "values"),
    [
        ("20", "NM", {"FrameIncrementPointer": 0x00540080}),
        ("2.1", "CT", {}),
        ("13.1.3", "MG", {}),
        ("77.1.5.4", "OPT", {}),
        ("13.1.1", "XA", {}),
        ("2", "CT", {}),
    ],
)
def test_volumes_scroll_where_wanted(sop_class: str, modality: str, values: Any) -> None:
    assert plan(sop_class, modality, **values).motion is Motion.SCROLL
    unwanted = plan(sop_class, modality, scroll=False, **values)
    assert unwanted == VideoPlan(reason=DerivativeReason.NOT_A_CINE)


@pytest.mark.parametrize(
    ("sop_class", "modality", "values"),
    [
        ("7", "OT", {}),
        ("7.2", "SC", {"FrameIncrementPointer": 0x00182001}),
        ("7.4", "DOC", {"FrameTime": "40"}),
        ("77.1.6", "SM", {}),
        ("77.1.4", "XC", {"TotalPixelMatrixColumns": 5000}),
        ("66.4", "SEG", {}),
        ("481.2", "RTDOSE", {}),
        ("30", "MR", {}),
        ("20", "NM", {"ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]}),
    ],
)
def test_what_does_not_move(sop_class: str, modality: str, values: Any) -> None:
    assert plan(sop_class, modality, **values).reason is DerivativeReason.NOT_A_CINE


def test_one_frame() -> None:
    assert plan("3.1", "US", frames=1).reason is DerivativeReason.SINGLE_FRAME


def test_no_pixels() -> None:
    assert plan("88.11", "SR", has_pixels=False).reason is DerivativeReason.NO_PIXELS
    live = plan("77.1.1", "ES", syntax="1.2.840.10008.1.2.7.1")
    assert live.reason is DerivativeReason.NO_PIXELS


@pytest.mark.parametrize("number", ["100", "102.1", "107", "108"])
def test_video_syntaxes_are_cines_whatever_the_header_counts(number: str) -> None:
    found = plan("77.1.1.1", "ES", frames=1, syntax=f"1.2.840.10008.1.2.4.{number}")
    assert found == VideoPlan(Motion.CINE, is_stream=True)


def test_one_location_at_several_times_is_a_cine() -> None:
    values = volume([[0, 0, 5]] * 3)
    for number, frame in enumerate(values["PerFrameFunctionalGroupsSequence"]):
        content = Dataset()
        content.TemporalPositionIndex = number + 1
        frame.FrameContentSequence = Sequence([content])
    assert plan("4.1", "MR", frames=3, **values).motion is Motion.CINE


class TestStack:
    def test_sorted_along_the_normal(self) -> None:
        found = plan("2.1", "CT", frames=3, **volume([[0, 0, 9], [0, 0, 1], [0, 0, 5]]))
        assert found == VideoPlan(Motion.SCROLL, order=(1, 2, 0))

    def test_stored_order_where_it_is_the_stack(self) -> None:
        found = plan("2.1", "CT", frames=3, **volume([[0, 0, 1], [0, 0, 2], [0, 0, 3]]))
        assert found.order is None

    def test_dimension_indices_say_where_it_begins(self) -> None:
        values = volume([[0, 0, 1], [0, 0, 5], [0, 0, 9]], [[1, 3], [1, 2], [1, 1]])
        values["PerFrameFunctionalGroupsSequence"].reverse()
        found = plan("2.1", "CT", frames=3, **values)
        assert found.order == (0, 1, 2)

    def test_several_stacks_stay_as_stored(self) -> None:
        found = plan("2.1", "CT", frames=4, **volume([[0, 0, 9], [0, 0, 1]] * 2))
        assert found.order is None

    def test_slice_vector(self) -> None:
        found = plan("20", "NM", frames=3, FrameIncrementPointer=0x00540080, SliceVector=[3, 1, 2])
        assert found.order == (1, 2, 0)


class TestPlayback:
    def recorded(self, start: int, stop: int) -> Playback:
        ds = Dataset()
        ds.StartTrim, ds.StopTrim, ds.PreferredPlaybackSequencing = start, stop, 1
        return Playback.of(ds, 6)

    def test_recorded_and_not_applied(self) -> None:
        playback = self.recorded(2, 4)
        assert playback == Playback((2, 4), True)
        assert playing_order(range(6), playback, trim=False, sweep=False) == (0, 1, 2, 3, 4, 5)

    def test_applied_by_option(self) -> None:
        playback = self.recorded(2, 5)
        assert playing_order(range(6), playback, trim=True, sweep=True) == (1, 2, 3, 4, 3, 2)

    @pytest.mark.parametrize(("start", "stop"), [(0, 3), (4, 4), (3, 7)])
    def test_senseless_trims_are_ignored(self, start: int, stop: int) -> None:
        assert self.recorded(start, stop).trim is None
