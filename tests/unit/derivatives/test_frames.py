"""Frames come out as they went in, whatever the header leaves out or misstates."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ingester.derivatives.errors import DecodeError
from ingester.derivatives.frames import FrameSource
from ingester.model import DerivativeReason
from tests.factory import drop, encoded, instance

ROWS, COLUMNS = 6, 5


def image(samples: np.ndarray[Any, Any], *, frames: int | None = None, **overrides: Any) -> Dataset:
    bits = samples.dtype.itemsize * 8
    settings: dict[str, Any] = {
        "rows": ROWS,
        "columns": COLUMNS,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(samples.dtype.kind == "i"),
    }
    ds = instance(**(settings | overrides))
    data = samples.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    if frames is not None:
        ds.NumberOfFrames = frames
    return ds


def frames_of(path: Path) -> list[np.ndarray[Any, Any]]:
    with FrameSource(path) as source:
        return list(source.frames())


def ramp(dtype: str, *shape: int) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    return (np.arange(count) * 37 % 251 - (100 if "i" in dtype else 0)).astype(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", ["<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<u8"])
def test_native_integers_of_every_width(tmp_path: Path, dtype: str) -> None:
    stored = ramp(dtype, 3, ROWS, COLUMNS)
    found = frames_of(drop(tmp_path / "a.dcm", image(stored, frames=3)))
    assert np.array_equal(np.stack(found), stored)
    assert found[0].dtype == stored.dtype


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_floating_pixels(tmp_path: Path, keyword: str) -> None:
    stored = ramp("<f4" if keyword == "FloatPixelData" else "<f8", ROWS, COLUMNS) / 7
    ds = image(ramp("<u2", ROWS, COLUMNS))
    del ds.PixelData
    setattr(ds, keyword, stored.tobytes())
    assert np.array_equal(frames_of(drop(tmp_path / "a.dcm", ds))[0], stored)


def test_only_stored_bits_count_and_carry_the_sign(tmp_path: Path) -> None:
    value = np.full((ROWS, COLUMNS), 0xA800 | (-5 & 0x7FF), "<u2")
    ds = image(value, BitsStored=11, HighBit=10, PixelRepresentation=1)
    assert np.all(frames_of(drop(tmp_path / "a.dcm", ds))[0] == -5)


def test_high_bit_above_the_stored_ones_shifts(tmp_path: Path) -> None:
    ds = image(ramp("<u2", ROWS, COLUMNS) << 4, BitsStored=12, HighBit=15)
    found = frames_of(drop(tmp_path / "a.dcm", ds))[0]
    assert np.array_equal(found, ramp("<u2", ROWS, COLUMNS))


def test_single_bits_run_on_from_frame_to_frame(tmp_path: Path) -> None:
    bits = ramp("<u1", 3, ROWS, COLUMNS) % 2  # 30 bits a frame: not whole bytes
    packed = np.packbits(bits.ravel(), bitorder="little")
    ds = image(packed, frames=3, BitsAllocated=1, BitsStored=1, HighBit=0)
    assert np.array_equal(np.stack(frames_of(drop(tmp_path / "a.dcm", ds))), bits)


def test_twelve_bits_packed(tmp_path: Path) -> None:
    stored = np.arange(ROWS * COLUMNS) * 100
    bits = (stored[:, None] >> np.arange(12) & 1).astype(np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little")
    ds = image(packed, BitsAllocated=12, BitsStored=12, HighBit=11)
    found = frames_of(drop(tmp_path / "a.dcm", ds))[0]
    assert np.array_equal(found.ravel(), stored)


@pytest.mark.parametrize("dtype", ["<u1", "<u2", "<i2"])
def test_big_endian(tmp_path: Path, dtype: str) -> None:
    stored = ramp(dtype, 3, ROWS, COLUMNS)
    ds = image(stored, frames=3)
    swapped = ds.PixelData if dtype == "<u1" else stored.astype(dtype.replace("<", ">")).tobytes()
    if dtype == "<u1":
        swapped = np.frombuffer(swapped, "<u2").byteswap().tobytes()
    ds.PixelData = swapped
    ds["PixelData"].VR = "OW"
    path = drop(tmp_path / "a.dcm", encoded(ds, ExplicitVRBigEndian))
    assert np.array_equal(np.stack(frames_of(path)), stored)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_in_either_planar_configuration(tmp_path: Path, planar: int) -> None:
    stored = ramp("<u1", ROWS, COLUMNS, 3)
    laid_out = stored if planar == 0 else np.ascontiguousarray(stored.transpose(2, 0, 1))
    ds = image(
        laid_out, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=planar
    )
    assert np.array_equal(frames_of(drop(tmp_path / "a.dcm", ds))[0], stored)


def test_subsampled_chroma_belongs_to_two_pixels(tmp_path: Path) -> None:
    gray = np.array([[10, 200, 128, 128], [90, 30, 128, 128]], np.uint8)
    ds = image(
        gray,
        rows=2,
        columns=2,
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422",
        PlanarConfiguration=0,
    )
    found = frames_of(drop(tmp_path / "a.dcm", ds))[0]
    assert found[:, :, 0].tolist() == [[10, 200], [90, 30]]
    assert np.array_equal(found[:, :, 0], found[:, :, 2])


def test_truncated_pixels_are_zero_padded_and_said_to_be_partial(tmp_path: Path) -> None:
    stored = ramp("<u2", 3, ROWS, COLUMNS) + 1
    data = encoded(image(stored, frames=3))
    path = drop(tmp_path / "a.dcm", data[: -(ROWS * COLUMNS * 2 + 20)])
    with FrameSource(path) as source:
        found = list(source.frames())
        assert source.is_partial
    assert len(found) == 2
    assert np.array_equal(found[0], stored[0])
    assert np.all(found[1].ravel()[-10:] == 0)
    assert np.array_equal(found[1].ravel()[:-10], stored[1].ravel()[:-10])


def test_a_whole_object_is_not_partial(tmp_path: Path) -> None:
    with FrameSource(drop(tmp_path / "a.dcm", instance())) as source:
        list(source.frames())
        assert not source.is_partial


@pytest.mark.parametrize("stated", [None, 1, 3, 9])
def test_the_data_say_how_many_frames_there_are(tmp_path: Path, stated: int | None) -> None:
    stored = ramp("<u2", 3, ROWS, COLUMNS)
    assert len(frames_of(drop(tmp_path / "a.dcm", image(stored, frames=stated)))) == 3


def test_padding_behind_the_frame_is_no_frame(tmp_path: Path) -> None:
    ds = image(ramp("<u2", ROWS, COLUMNS))
    ds.PixelData += bytes(ROWS * COLUMNS * 2 + 14)
    assert len(frames_of(drop(tmp_path / "a.dcm", ds))) == 1


def test_frames_by_index_in_the_order_asked_for(tmp_path: Path) -> None:
    stored = ramp("<u2", 4, ROWS, COLUMNS)
    with FrameSource(drop(tmp_path / "a.dcm", image(stored, frames=4))) as source:
        found = list(source.frames([3, 0]))
    assert np.array_equal(np.stack(found), stored[[3, 0]])


def test_a_frame_larger_than_512_megapixels_is_refused_unread(tmp_path: Path) -> None:
    ds = image(ramp("<u2", ROWS, COLUMNS), Rows=65535, Columns=65535)
    path = drop(tmp_path / "a.dcm", ds)
    tracemalloc.start()
    with pytest.raises(DecodeError) as caught:
        FrameSource(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason is DerivativeReason.TOO_LARGE
    assert peak < 2**22


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PixelData": None}, DerivativeReason.NO_PIXELS),
        ({"Rows": None}, DerivativeReason.CORRUPT_PIXELS),
        ({"Columns": 0}, DerivativeReason.CORRUPT_PIXELS),
    ],
)
def test_what_cannot_be_shown_says_why(
    tmp_path: Path, change: dict[str, Any], reason: DerivativeReason
) -> None:
    with pytest.raises(DecodeError) as caught:
        FrameSource(drop(tmp_path / "a.dcm", instance(**change)))
    assert caught.value.reason is reason


@pytest.mark.parametrize("missing", ["BitsAllocated", "SamplesPerPixel", "PixelRepresentation"])
def test_what_the_header_leaves_out_is_told_by_the_data(tmp_path: Path, missing: str) -> None:
    stored = ramp("<u2", ROWS, COLUMNS)
    ds = image(stored, **{missing: None})
    assert np.array_equal(frames_of(drop(tmp_path / "a.dcm", ds))[0], stored)


def test_a_file_without_preamble_and_file_meta(tmp_path: Path) -> None:
    stored = ramp("<u2", ROWS, COLUMNS)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        data = encoded(image(stored), syntax)
        start = data.index(b"\x08\x00\x16\x00")
        path = drop(tmp_path / f"{syntax}.dcm", data[start:])
        assert np.array_equal(frames_of(path)[0], stored)


@pytest.mark.parametrize(
    "declared", [b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.4.70", b"1.2.3.999"]
)
def test_a_wrong_transfer_syntax_is_seen_through(tmp_path: Path, declared: bytes) -> None:
    stored = ramp("<u2", ROWS, COLUMNS)
    data = encoded(image(stored))
    right = b"1.2.840.10008.1.2.1\0"
    # The element's length changes with the text: write it anew, with its VR and length.
    padded = declared + b"\0" * (len(declared) % 2)
    element = b"\x02\x00\x10\x00UI"
    old = element + len(right).to_bytes(2, "little") + right
    assert old in data
    data = data.replace(old, element + len(padded).to_bytes(2, "little") + padded)
    assert np.array_equal(frames_of(drop(tmp_path / "a.dcm", data))[0], stored)


def test_deflated(tmp_path: Path) -> None:
    stored = ramp("<u2", ROWS, COLUMNS)
    path = drop(tmp_path / "a.dcm", encoded(image(stored), DeflatedExplicitVRLittleEndian))
    assert np.array_equal(frames_of(path)[0], stored)


def test_run_length_encoded_frames(tmp_path: Path) -> None:
    stored = ramp("<i2", 3, ROWS, COLUMNS)
    ds = image(stored, frames=3)
    ds = _compressed(ds, RLELossless)
    path = drop(tmp_path / "a.dcm", encoded(ds, RLELossless))
    assert np.array_equal(np.stack(frames_of(path)), stored)


def _compressed(ds: Dataset, syntax: str) -> Dataset:
    from pydicom.dataset import FileMetaDataset

    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
    return ds


def test_native_bytes_in_items_although_called_jpeg(tmp_path: Path) -> None:
    stored = ramp("<u2", 2, ROWS, COLUMNS)
    ds = image(stored, frames=2)
    ds.PixelData = encapsulate([stored[0].tobytes(), stored[1].tobytes()])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    path = drop(tmp_path / "a.dcm", encoded(ds, "1.2.840.10008.1.2.4.50"))
    assert np.array_equal(np.stack(frames_of(path)), stored)


def test_a_stray_delimiter_does_not_end_the_object(tmp_path: Path) -> None:
    stored = ramp("<u2", ROWS, COLUMNS)
    data = encoded(image(stored))
    start = data.index(b"\x28\x00\x02\x00US")
    data = data[:start] + b"\xfe\xff\x0d\xe0\0\0\0\0" + data[start:]
    assert np.array_equal(frames_of(drop(tmp_path / "a.dcm", data))[0], stored)


def test_one_frame_in_memory_at_a_time(tmp_path: Path) -> None:
    frames, edge = 40, 256
    ds = instance(rows=edge, columns=edge, frames=frames)
    path = drop(tmp_path / "a.dcm", ds)
    del ds
    tracemalloc.start()
    with FrameSource(path) as source:
        count = sum(1 for _ in source.frames())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == frames
    assert peak < 6 * edge * edge * 2 + 2**18
