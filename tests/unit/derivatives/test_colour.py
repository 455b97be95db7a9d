"""Colour: YCbCr, palettes and depths, converted once and as the Standard says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ingester.derivatives import colour
from ingester.derivatives.frames import FrameSource
from ingester.derivatives.mapping import FrameMapper
from tests.factory import drop, instance


def pixels(*triples: tuple[int, ...], dtype: str = "u1") -> np.ndarray[Any, Any]:
    return np.array([triples], dtype)


def test_full_range_ycbcr() -> None:
    # Red, green, blue, white and black by PS3.3 C.7.6.3.1.2.
    stored = pixels((76, 85, 255), (150, 44, 21), (29, 255, 107), (255, 128, 128), (0, 128, 128))
    found = colour.rgb(stored, "YBR_FULL", 8)
    wanted = pixels((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0))
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 2


def test_full_range_ycbcr_of_sixteen_bits() -> None:
    found = colour.rgb(pixels((65535, 32768, 32768), dtype="u2"), "YBR_FULL", 16)
    assert found.tolist() == [[[65535, 65535, 65535]]]


def test_partial_range_ycbcr() -> None:
    stored = pixels((16, 128, 128), (235, 128, 128))
    assert colour.rgb(stored, "YBR_PARTIAL_422", 8).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["RGB", "YBR_RCT", "YBR_ICT", "SOMETHING"])
def test_what_the_decoder_converted_is_left_alone(kind: str) -> None:
    stored = pixels((10, 20, 30))
    assert np.array_equal(colour.rgb(stored, kind, 8), stored)


def test_retired_colour_spaces() -> None:
    assert colour.rgb(pixels((9, 10, 20, 30)), "ARGB", 8).tolist() == [[[10, 20, 30]]]
    assert colour.rgb(pixels((0, 255, 255, 0)), "CMYK", 8).tolist() == [[[255, 0, 0]]]
    assert colour.rgb(pixels((0, 255, 255), (0, 0, 128)), "HSV", 8).tolist() == [
        [[255, 0, 0], [128, 128, 128]]
    ]


def test_deeper_colour_is_shifted() -> None:
    assert colour.eight_bits(pixels((0, 0x1234, 0xFFFF), dtype="u2"), 16).tolist() == [
        [[0, 0x12, 0xFF]]
    ]
    assert colour.eight_bits(pixels((0, 4095, 2048), dtype="u2"), 12).tolist() == [[[0, 255, 128]]]
    assert colour.eight_bits(pixels((1 << 31, 0, 0), dtype="u4"), 32)[0, 0, 0] == 128


def with_palette(tables: list[np.ndarray[Any, Any]], first: int = 0, bits: int = 16) -> Dataset:
    ds = instance(
        rows=1,
        columns=4,
        PhotometricInterpretation="PALETTE COLOR",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        keyword = f"{name}PaletteColorLookupTable"
        ds.add_new(f"{keyword}Descriptor", "US", [len(table) & 0xFFFF, first, bits])
        ds.add_new(f"{keyword}Data", "OW", table.tobytes())
    return ds


def picture_of(path: Path, ds: Dataset) -> np.ndarray[Any, Any]:
    with FrameSource(drop(path / "a.dcm", ds)) as source:
        return FrameMapper(source).map(source.frame(0))


def test_palette_of_sixteen_bits(tmp_path: Path) -> None:
    level = np.arange(256, dtype="<u2") << 8
    ds = with_palette([level, level[::-1].copy(), np.full(256, 0x8000, "<u2")])
    ds.PixelData = bytes([0, 1, 128, 255])
    assert picture_of(tmp_path, ds)[0].tolist() == [
        [0, 255, 128],
        [1, 254, 128],
        [128, 127, 128],
        [255, 0, 128],
    ]


def test_palette_that_fills_only_the_low_byte(tmp_path: Path) -> None:
    level = np.arange(256, dtype="<u2")
    ds = with_palette([level, level, level])
    ds.PixelData = bytes([0, 1, 128, 255])
    assert picture_of(tmp_path, ds)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_values_outside_the_palette_take_its_ends(tmp_path: Path) -> None:
    level = np.array([0x1000, 0x2000, 0x3000], "<u2")
    ds = with_palette([level, level, level], first=10)
    ds.PixelData = bytes([0, 10, 11, 200])
    assert picture_of(tmp_path, ds)[0, :, 0].tolist() == [0x10, 0x10, 0x20, 0x30]


def test_segmented_palette() -> None:
    words = np.array([0, 1, 0, 1, 4, 0x4000, 0, 1, 0xFF00], "<u2")
    ds = Dataset()
    for name in ("Red", "Green", "Blue"):
        keyword = f"{name}PaletteColorLookupTable"
        ds.add_new(f"{keyword}Descriptor", "US", [6, 0, 16])
        ds.add_new(f"Segmented{keyword}Data", "OW", words.tobytes())
    found = colour.palette(ds)
    assert found is not None
    assert found[0][:, 0].tolist() == [0, 0x10, 0x20, 0x30, 0x40, 0xFF]


def test_palette_tags_of_a_gray_image_are_ignored(tmp_path: Path) -> None:
    level = np.full(256, 0xFFFF, "<u2")
    ds = with_palette([level, level, level])
    ds.PhotometricInterpretation, ds.Modality = "MONOCHROME2", "US"
    ds.PixelData = bytes([0, 1, 128, 255])
    assert picture_of(tmp_path, ds).tolist() == [[0, 1, 128, 255]]


def test_supplemental_palette_colours_only_the_values_above(tmp_path: Path) -> None:
    level = np.full(4, 0xFF00, "<u2")
    nothing = np.zeros(4, "<u2")
    ds = with_palette([level, nothing, nothing], first=200)
    ds.PhotometricInterpretation, ds.PixelPresentation = "MONOCHROME2", "MIXED"
    ds.Modality = "US"
    ds.PixelData = bytes([0, 100, 200, 203])
    assert picture_of(tmp_path, ds)[0].tolist() == [
        [0, 0, 0],
        [100, 100, 100],
        [255, 0, 0],
        [255, 0, 0],
    ]
