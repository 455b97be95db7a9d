"""Grayscale: modality, VOI, polarity and padding, each where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import XRayAngiographicImageStorage

from ingester.derivatives.frames import FrameSource
from ingester.derivatives.mapping import FrameMapper, ThumbnailSettings
from tests.factory import drop, instance

ROWS = COLUMNS = 16


def gray(values: np.ndarray[Any, Any], **overrides: Any) -> Dataset:
    ds = instance(rows=values.shape[-2], columns=values.shape[-1], **overrides)
    if values.ndim == 3:
        ds.NumberOfFrames = len(values)
    ds.PixelData = values.astype("<u2").tobytes()
    return ds


def ramp(low: int, high: int) -> np.ndarray[Any, Any]:
    return np.linspace(low, high, ROWS * COLUMNS).round().astype(np.int64).reshape(ROWS, COLUMNS)


def shown(path: Path, ds: Dataset, **settings: Any) -> tuple[list[Any], dict[str, Any]]:
    with FrameSource(drop(path / "a.dcm", ds)) as source:
        mapper = FrameMapper(source, ThumbnailSettings(**settings))
        pictures = [mapper.map(frame, index) for index, frame in enumerate(source.frames())]
        return pictures, mapper.detail


def test_header_window_after_rescale(tmp_path: Path) -> None:
    values = ramp(0, 4095)
    ds = gray(values, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    (picture,), detail = shown(tmp_path, ds)
    assert detail["window"] == [40.0, 400.0]
    assert detail["window_source"] == "header"
    hounsfield = values - 1024
    assert np.all(picture[hounsfield <= 39.5 - 199.5] == 0)
    assert np.all(picture[hounsfield > 39.5 + 199.5] == 255)
    inner = (hounsfield > -160) & (hounsfield <= 239)
    expected = np.floor(((hounsfield[inner] - 39.5) / 399 + 0.5) * 255 + 0.5)
    assert np.array_equal(picture[inner], expected)


def test_the_first_usable_window_is_taken(tmp_path: Path) -> None:
    ds = gray(ramp(0, 1000), WindowCenter=[0, 500], WindowWidth=[0, 1000])
    assert shown(tmp_path, ds)[1]["window"] == [500.0, 1000.0]


def test_a_window_that_shows_nothing_gives_way(tmp_path: Path) -> None:
    ds = gray(ramp(0, 1000), Modality="MR", WindowCenter=30000, WindowWidth=10)
    (picture,), detail = shown(tmp_path, ds)
    assert detail["window_source"] == "auto"
    assert detail["low_confidence"] is True
    assert picture.min() == 0
    assert picture.max() == 255


def test_a_window_in_stored_units_is_applied_to_those(tmp_path: Path) -> None:
    ds = gray(ramp(0, 1000), Modality="MR", RescaleSlope=0.001, WindowCenter=500, WindowWidth=1000)
    (picture,), detail = shown(tmp_path, ds)
    assert detail["window_source"] == "header"
    assert picture.min() == 0
    assert picture.max() == 255


@pytest.mark.parametrize("slope", [0, None])
def test_an_unusable_slope_is_one(tmp_path: Path, slope: float | None) -> None:
    ds = gray(ramp(0, 255), WindowCenter=127.5, WindowWidth=255, RescaleIntercept=0)
    if slope is not None:
        ds.RescaleSlope = slope
    ds.VOILUTFunction = "LINEAR_EXACT"
    assert np.array_equal(shown(tmp_path, ds)[0][0], ramp(0, 255))


def test_a_negative_slope_inverts(tmp_path: Path) -> None:
    ds = gray(ramp(0, 255), RescaleSlope=-1, RescaleIntercept=255)
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 127.5, 255, "LINEAR_EXACT"
    assert np.array_equal(shown(tmp_path, ds)[0][0], 255 - ramp(0, 255))


@pytest.mark.parametrize(
    ("interpretation", "shape", "is_inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", False),
    ],
)
def test_polarity_is_asked_once(
    tmp_path: Path, interpretation: str, shape: str | None, is_inverted: bool
) -> None:
    ds = gray(ramp(0, 255), PhotometricInterpretation=interpretation, PresentationLUTShape=shape)
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 127.5, 255, "LINEAR_EXACT"
    expected = 255 - ramp(0, 255) if is_inverted else ramp(0, 255)
    assert np.array_equal(shown(tmp_path, ds)[0][0], expected)


def test_declared_padding_is_black_even_when_inverted(tmp_path: Path) -> None:
    values = ramp(100, 400)
    values[:4] = 0
    ds = gray(values, PhotometricInterpretation="MONOCHROME1", Modality="MR")
    ds.add_new("PixelPaddingValue", "US", 0)
    (picture,), detail = shown(tmp_path, ds)
    assert np.all(picture[:4] == 0)
    assert detail["window"][0] - detail["window"][1] / 2 > 100


def test_undeclared_padding_does_not_stretch_the_window(tmp_path: Path) -> None:
    values = ramp(1000, 1200)
    values[:8] = 0
    (picture,), _ = shown(tmp_path, gray(values, Modality="MR"))
    assert picture[8:].max() - picture[8:].min() > 240


def test_hot_pixels_do_not_darken_the_rest(tmp_path: Path) -> None:
    values = np.tile(ramp(0, 1000), (4, 4))
    values[0, 0] = 65535
    ds = gray(values, Modality="MR", BitsStored=16, HighBit=15)
    assert shown(tmp_path, ds)[0][0].mean() > 100


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (700, 128)])
def test_flat_data(tmp_path: Path, value: int, expected: int) -> None:
    (picture,), _ = shown(tmp_path, gray(np.full((ROWS, COLUMNS), value), Modality="MR"))
    assert np.all(picture == expected)


def test_ultrasound_of_eight_bits_is_left_as_it_is(tmp_path: Path) -> None:
    values = ramp(3, 90)
    ds = gray(values, Modality="US", BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.PixelData = values.astype("u1").tobytes()
    (picture,), detail = shown(tmp_path, ds)
    assert np.array_equal(picture, values)
    assert detail == {"window": None, "window_source": "identity"}


def test_hounsfield_units_without_a_window_use_the_preset(tmp_path: Path) -> None:
    ds = gray(ramp(0, 2000), RescaleSlope=1, RescaleIntercept=-1024)
    assert shown(tmp_path, ds)[1] == {"window": [40.0, 400.0], "window_source": "preset"}


def lut(entries: list[int], first: int, bits: int = 16) -> Dataset:
    found = Dataset()
    found.add_new("LUTDescriptor", "US", [len(entries) & 0xFFFF, first, bits])
    found.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return found


def test_voi_lut_before_the_window_in_mammography_only(tmp_path: Path) -> None:
    table = lut(list(range(0, 4096, 16)), 0, 12)
    for modality, source in (("MG", "voi-lut"), ("CT", "header")):
        ds = gray(ramp(0, 255), Modality=modality, WindowCenter=100, WindowWidth=100)
        ds.VOILUTSequence = Sequence([table])
        assert shown(tmp_path, ds)[1]["window_source"] == source


def test_voi_lut_is_scaled_by_the_bits_it_uses(tmp_path: Path) -> None:
    # Depth says 16, the entries use 12: the largest shall be white.
    ds = gray(ramp(0, 255))
    ds.VOILUTSequence = Sequence([lut([round(i * 4095 / 255) for i in range(256)], 0, 16)])
    (picture,), _ = shown(tmp_path, ds)
    assert np.array_equal(picture, ramp(0, 255))


def test_voi_lut_of_more_than_256_entries_does_not_wrap(tmp_path: Path) -> None:
    ds = gray(ramp(0, 4095))
    ds.VOILUTSequence = Sequence([lut([i >> 4 for i in range(4096)], 0, 8)])
    (picture,), _ = shown(tmp_path, ds)
    assert np.array_equal(picture, ramp(0, 4095) >> 4)


def test_modality_lut_wins_over_rescale_but_not_in_angiography(tmp_path: Path) -> None:
    table = lut([255 - i for i in range(256)], 0)
    ds = gray(ramp(0, 255), WindowCenter=127.5, WindowWidth=255, VOILUTFunction="LINEAR_EXACT")
    ds.ModalityLUTSequence = Sequence([table])
    ds.RescaleSlope, ds.RescaleIntercept = 3, 17
    assert np.array_equal(shown(tmp_path, ds)[0][0], 255 - ramp(0, 255))
    del ds.RescaleSlope, ds.RescaleIntercept
    ds.SOPClassUID, ds.Modality = XRayAngiographicImageStorage, "XA"
    assert np.array_equal(shown(tmp_path, ds)[0][0], ramp(0, 255))


def functional_groups(slope: float, window: tuple[float, float]) -> Dataset:
    transform, voi, group = Dataset(), Dataset(), Dataset()
    transform.RescaleSlope, transform.RescaleIntercept = slope, 0
    voi.WindowCenter, voi.WindowWidth = window
    voi.VOILUTFunction = "LINEAR_EXACT"
    group.PixelValueTransformationSequence = Sequence([transform])
    group.FrameVOILUTSequence = Sequence([voi])
    return group


def test_per_frame_rescale_with_one_window_for_the_clip(tmp_path: Path) -> None:
    values = np.stack([ramp(0, 200), ramp(0, 100)])
    ds = gray(values, Modality="MR")
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        [functional_groups(1, (100, 200)), functional_groups(2, (7, 3))]
    )
    (first, second), detail = shown(tmp_path, ds)
    assert detail["window"] == [100.0, 200.0]
    assert np.abs(first.astype(int) - second.astype(int)).max() <= 3


def test_shared_groups_win_over_the_root(tmp_path: Path) -> None:
    ds = gray(ramp(0, 200), WindowCenter=1, WindowWidth=2, Modality="MR")
    ds.SharedFunctionalGroupsSequence = Sequence([functional_groups(1, (100, 200))])
    assert shown(tmp_path, ds)[1]["window"] == [100.0, 200.0]


def test_a_clip_does_not_flicker(tmp_path: Path) -> None:
    values = np.stack([ramp(0, 100), ramp(0, 1000), ramp(0, 100)])
    pictures, _ = shown(tmp_path, gray(values, Modality="MR"))
    assert np.array_equal(pictures[0], pictures[2])
    assert pictures[0].max() < 40


def test_single_bits_are_black_and_white(tmp_path: Path) -> None:
    bits = ramp(0, 255) % 2
    ds = gray(bits, BitsAllocated=1, BitsStored=1, HighBit=0, WindowCenter=40, WindowWidth=400)
    ds.PixelData = np.packbits(bits.astype("u1").ravel(), bitorder="little").tobytes()
    assert np.array_equal(shown(tmp_path, ds)[0][0], bits * 255)


def test_not_a_number_is_black_and_does_not_spoil_the_window(tmp_path: Path) -> None:
    values = ramp(0, 1000).astype("<f4")
    values[0, 0], values[0, 1] = np.nan, np.inf
    ds = gray(ramp(0, 1), Modality="MR")
    del ds.PixelData
    ds.FloatPixelData = values.tobytes()
    (picture,), _ = shown(tmp_path, ds)
    assert picture[0, 0] == 0
    assert picture[0, 1] == 0
    assert picture.max() == 255


def test_pet_in_uptake_values_where_the_header_allows(tmp_path: Path) -> None:
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 4e8, 6586
    ds = gray(ramp(0, 40000), Modality="PT", Units="BQML", PatientWeight=80, BitsStored=16)
    ds.HighBit, ds.DecayCorrection = 15, "ADMIN"
    ds.RadiopharmaceuticalInformationSequence = Sequence([tracer])
    # SUV 6 of 400 MBq in 80 kg is 30 000 Bq/ml.
    assert shown(tmp_path, ds)[1] == {"window": [15000.0, 30000.0], "window_source": "preset"}
    del ds.PatientWeight
    assert shown(tmp_path, ds)[1]["window_source"] == "auto"


def test_raw_projections_are_inverted_by_the_sign_of_intensity(tmp_path: Path) -> None:
    for sign, is_first_bright in ((1, True), (-1, False)):
        ds = gray(ramp(0, 4000), Modality="DX", PresentationIntentType="FOR PROCESSING")
        ds.PixelIntensityRelationshipSign = sign
        (picture,), detail = shown(tmp_path, ds)
        assert bool(picture[0, 0] > picture[-1, -1]) is is_first_bright
        assert detail["low_confidence"] is True
