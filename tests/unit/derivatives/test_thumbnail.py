"""Thumbnails: the right frame at the right size, and a record of how."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    BasicTextSRStorage,
    NuclearMedicineImageStorage,
    RTDoseStorage,
    SegmentationStorage,
)

from ingester.derivatives import kinds
from ingester.derivatives.frames import FrameSource
from ingester.derivatives.thumbnail import (
    Thumbnail,
    ThumbnailMaker,
    reduced,
    render_thumbnail,
    representative_frames,
    thumbnail_of_frames,
)
from ingester.model import DerivativeReason, Status
from tests.factory import drop, encoded, instance


def opened(thumbnail: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(thumbnail.jpeg))


def clip(values: np.ndarray[Any, Any], **overrides: Any) -> Dataset:
    """Return 8-bit frames (frames, rows, columns) as an object."""
    settings: dict[str, Any] = {
        "Modality": "US",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "NumberOfFrames": len(values),
        "rows": values.shape[1],
        "columns": values.shape[2],
    }
    ds = instance(**(settings | overrides))
    ds.PixelData = values.astype("u1").tobytes()
    ds["PixelData"].VR = "OB"
    return ds


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        (512, 512, (256, 256)),
        (480, 640, (256, 192)),
        (1000, 10, (3, 256)),
        (300, 200, (171, 256)),
        (200, 150, (150, 200)),  # large enough: as it is
        (128, 128, (128, 128)),
        (64, 64, (256, 256)),
        (100, 50, (100, 200)),
        (3, 2, (170, 255)),
    ],
)
def test_sizes(tmp_path: Path, rows: int, columns: int, size: tuple[int, int]) -> None:
    found = render_thumbnail(drop(tmp_path / "a.dcm", instance(rows=rows, columns=columns)))
    assert opened(found).size == size
    assert (found.detail["width"], found.detail["height"]) == size


def test_small_pictures_stay_crisp() -> None:
    found = np.asarray(reduced(np.array([[0, 255], [255, 0]], np.uint8)))
    assert set(np.unique(found)) == {0, 255}


@pytest.mark.parametrize(
    ("keyword", "value", "size"),
    [
        ("PixelAspectRatio", [2, 1], (128, 256)),
        ("PixelSpacing", [0.5, 1.0], (256, 128)),
        ("ImagerPixelSpacing", [1, 1.005], (256, 256)),
        ("PixelSpacing", [100, 1], (256, 256)),
        ("PixelSpacing", [0, 1], (256, 256)),
    ],
)
def test_pixels_that_are_not_square(
    tmp_path: Path, keyword: str, value: list[float], size: tuple[int, int]
) -> None:
    ds = instance(rows=256, columns=256)
    setattr(ds, keyword, value)
    assert opened(render_thumbnail(drop(tmp_path / "a.dcm", ds))).size == size


def test_a_jpeg_with_nothing_in_it_but_the_picture(tmp_path: Path) -> None:
    found = render_thumbnail(drop(tmp_path / "a.dcm", instance()))
    image = opened(found)
    assert image.format == "JPEG"
    assert image.mode == "L"
    assert not {b"\xff\xe1", b"\xff\xe2", b"\xff\xfe"} & {
        found.jpeg[i : i + 2] for i in range(0, 20)
    }
    assert "exif" not in image.info
    assert "icc_profile" not in image.info
    assert "comment" not in image.info


def test_the_record(tmp_path: Path) -> None:
    found = render_thumbnail(
        drop(tmp_path / "a.dcm", instance(WindowCenter=40, WindowWidth=400, rows=256, columns=256))
    )
    assert found.status is Status.MADE
    assert found.reason is None
    versions = found.detail.pop("versions")
    assert "Pillow" in versions
    assert found.detail == {
        "rendering": "pixels",
        "frame": 1,
        "window": [40.0, 400.0],
        "window_source": "header",
        "decoder": "native",
        "width": 256,
        "height": 256,
        "phi": "possible",
    }


@pytest.mark.parametrize(
    ("modality", "burned_in", "is_possible"),
    [("CT", None, True), ("CT", "YES", True), ("CT", "NO", False), ("US", "NO", True)],
)
def test_burned_in_text(
    tmp_path: Path, modality: str, burned_in: str | None, is_possible: bool
) -> None:
    ds = instance(Modality=modality, BurnedInAnnotation=burned_in)
    found = render_thumbnail(drop(tmp_path / "a.dcm", ds))
    assert ("phi" in found.detail) is is_possible


@pytest.mark.parametrize(
    ("count", "change", "first"),
    [
        (1, {}, 0),
        (7, {}, 0),
        (8, {}, 4),
        (9, {"RepresentativeFrameNumber": 3}, 2),
        (9, {"RepresentativeFrameNumber": 99}, 4),
        (9, {"FrameNumbersOfInterest": [6, 2]}, 5),
        (9, {"PageNumberVector": list(range(1, 10))}, 0),
        (9, {"Modality": "DOC"}, 0),
    ],
)
def test_the_representative_frame(count: int, change: dict[str, Any], first: int) -> None:
    assert representative_frames(instance(**change), count)[0] == first


def test_a_black_middle_frame_gives_way(tmp_path: Path) -> None:
    values = np.zeros((12, 32, 32), "u1")
    values[3] = np.arange(32) * 7
    found = render_thumbnail(drop(tmp_path / "a.dcm", clip(values)))
    assert found.detail["frame"] == 4
    assert np.asarray(opened(found)).max() > 200


def test_one_pass_makes_the_same_thumbnail(tmp_path: Path) -> None:
    values = np.add.outer(np.arange(12) * 9, np.add.outer(np.arange(40), np.arange(40)))
    path = drop(tmp_path / "a.dcm", clip(values % 256))
    with FrameSource(path) as source:
        maker = ThumbnailMaker(source)
        for index, frame in enumerate(source.frames()):
            maker.offer(index, maker.mapper.map(frame, index))
        passing = maker.finish()
    assert passing == render_thumbnail(path)


def test_an_object_without_pixels_has_a_card_as_its_picture(tmp_path: Path) -> None:
    ds = instance(sop_class=BasicTextSRStorage, Modality="SR", PixelData=None, Rows=None)
    found = render_thumbnail(drop(tmp_path / "a.dcm", ds))
    assert (found.status, found.reason) == (Status.MADE, None)
    assert found.detail["rendering"] == "card"
    assert "phi" not in found.detail


@pytest.mark.parametrize(
    ("syntax", "status", "reason"),
    [
        ("1.2.840.10008.1.2.4.50", Status.FAILED, DerivativeReason.CORRUPT_PIXELS),
        ("1.2.840.10008.1.2.4.92", Status.SKIPPED, DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX),
        ("1.2.840.10008.1.2.4.102", Status.SKIPPED, DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX),
    ],
)
def test_a_card_stands_in_for_pixels_that_cannot_be_shown(
    tmp_path: Path, syntax: str, status: Status, reason: DerivativeReason
) -> None:
    from pydicom.encaps import encapsulate

    ds = instance()
    ds.PixelData = encapsulate([b"no picture at all"])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    found = render_thumbnail(drop(tmp_path / "a.dcm", encoded(ds, syntax)))
    assert (found.status, found.reason) == (status, reason)
    assert found.detail["rendering"] == "card"
    assert opened(found).size == (256, 256)


def test_truncated_pixels_are_made_and_said_to_be_partial(tmp_path: Path) -> None:
    data = encoded(instance(rows=64, columns=64))
    found = render_thumbnail(drop(tmp_path / "a.dcm", data[:-3000]))
    assert found.status is Status.MADE
    assert found.detail["partial"] is True


def segmentation(lab: list[int] | None, kind: str = "BINARY") -> Dataset:
    values = np.zeros((3, 32, 32), "u1")
    values[1, 8:24, 8:24] = 1
    values[2, 0, 0] = 1
    ds = clip(values, sop_class=SegmentationStorage, Modality="SEG", SegmentationType=kind)
    segment, group, used = Dataset(), Dataset(), Dataset()
    segment.SegmentNumber, used.ReferencedSegmentNumber = 1, 1
    if lab:
        segment.add_new("RecommendedDisplayCIELabValue", "US", lab)
    group.SegmentIdentificationSequence = Sequence([used])
    ds.SegmentSequence = Sequence([segment])
    ds.SharedFunctionalGroupsSequence = Sequence([group])
    if kind == "BINARY":
        packed = np.packbits(values.ravel(), bitorder="little")
        ds.BitsAllocated = ds.BitsStored = 1
        ds.HighBit, ds.PixelData = 0, packed.tobytes()
    return ds


def test_a_segmentation_shows_its_fullest_frame_in_its_colour(tmp_path: Path) -> None:
    # CIELab of a pure sRGB red, 16 bits each.
    lab = [round(54.29 / 100 * 65535), round((80.81 + 128) / 255 * 65535), 0]
    lab[2] = round((69.89 + 128) / 255 * 65535)
    found = render_thumbnail(drop(tmp_path / "a.dcm", segmentation(lab)))
    assert found.detail["frame"] == 2
    red, green, blue = np.asarray(opened(found))[128, 128].tolist()
    assert red > 245
    assert green < 15
    assert blue < 15


def test_a_segmentation_without_colour_is_white(tmp_path: Path) -> None:
    found = render_thumbnail(drop(tmp_path / "a.dcm", segmentation(None)))
    assert np.asarray(opened(found))[128, 128] == 255


def test_a_label_map_has_a_colour_for_each_label(tmp_path: Path) -> None:
    found = render_thumbnail(drop(tmp_path / "a.dcm", segmentation(None, "LABELMAP")))
    assert found.detail["frame"] == 2
    assert opened(found).mode == "RGB"


def test_dose_shows_its_hottest_frame(tmp_path: Path) -> None:
    values = np.zeros((5, 16, 16), "u1")
    values[3, 4:8, 4:8] = 200
    values[1] = 9
    ds = clip(values, sop_class=RTDoseStorage, Modality="RTDOSE", DoseGridScaling=0.5)
    found = render_thumbnail(drop(tmp_path / "a.dcm", ds))
    assert found.detail["frame"] == 4
    assert found.detail["window"] == [50.0, 100.0]
    assert np.asarray(opened(found))[96, 96].min() > 245


def test_a_whole_body_scan_shows_both_sides(tmp_path: Path) -> None:
    values = np.zeros((2, 256, 64), "u1")
    values[0, 100:120], values[1, 20:40] = 90, 90
    ds = clip(values, sop_class=NuclearMedicineImageStorage, Modality="NM")
    assert opened(render_thumbnail(drop(tmp_path / "a.dcm", ds))).size == (128, 256)


def test_a_small_slide_is_put_together(tmp_path: Path) -> None:
    values = np.arange(6)[:, None, None] * np.ones((6, 8, 8)) * 40
    ds = clip(values, Modality="SM", TotalPixelMatrixColumns=20, TotalPixelMatrixRows=16)
    with FrameSource(drop(tmp_path / "a.dcm", ds)) as source:
        still = kinds.still_of(source, ThumbnailMaker(source)._settings)
    assert still is not None
    assert still.picture.shape == (16, 20)
    corners = still.picture[0, [0, 8, 16]], still.picture[8, [0, 8, 16]]
    assert np.all(np.diff(np.concatenate(corners).astype(int)) > 0)


def test_frames_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate

    out = io.BytesIO()
    Image.fromarray(np.tile(np.arange(64, dtype="u1") * 4, (64, 1))).save(out, "JPEG")
    ds = clip(np.zeros((10, 64, 64)))
    parts = [b"rubbish!"] * 10
    parts[0] = parts[7] = out.getvalue()
    ds.PixelData = encapsulate(parts)
    ds["PixelData"].is_undefined_length = True
    path = drop(tmp_path / "a.dcm", encoded(ds, "1.2.840.10008.1.2.4.50"))
    with FrameSource(path) as source:
        found = thumbnail_of_frames(source, ThumbnailMaker(source)._settings)
    assert found.detail["frame"] == 8
