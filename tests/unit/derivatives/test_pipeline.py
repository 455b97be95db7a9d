"""One object in; thumbnail and video, or the reasons why not, out."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from ingester.derivatives.convert import convert
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.mp4 import probe
from ingester.derivatives.pipeline import derive
from ingester.derivatives.plan import VideoSettings
from ingester.derivatives.request import DeriveRequest, DeriveResult, Made, allowance
from ingester.model import DerivativeReason, Kind, Status
from tests.factory import drop, encoded, instance
from tests.unit.derivatives.films import cine, endoscopy, ffmpeg

BOTH = frozenset(Kind)


def request(path: Path, **values: Any) -> DeriveRequest:
    return DeriveRequest(
        instance_id=7,
        path=str(path),
        path_in_archive=f"X/{path.name}",
        staging=str(path.parent / "staging"),
        **{"kinds": BOTH, **values},
    )


def derived(folder: Path, ds: Dataset | bytes, **values: Any) -> dict[Kind, Made]:
    result = derive(request(drop(folder / "a.dcm", ds), **values))
    assert result.trouble is None
    assert DeriveResult.from_json(result.to_json()) == result
    assert pickle.loads(pickle.dumps(result)) == result
    return {each.kind: each for each in result.made}


def staged(folder: Path, made: Made) -> Path:
    assert made.staged is not None
    return folder / "staging" / made.staged


def test_cine_gets_both(tmp_path: Path) -> None:
    made = derived(tmp_path, cine(8))
    video, thumbnail = made[Kind.VIDEO], made[Kind.THUMBNAIL]
    assert (video.status, thumbnail.status) == (Status.MADE, Status.MADE)
    found = probe(staged(tmp_path, video))
    assert (found.frames, found.width, found.height) == (8, 96, 64)
    expected = {
        "kind": "cine",
        "fps": 25.0,
        "fps_fraction": "25/1",
        "timing_source": "FrameTime",
        "frames": 8,
        "seconds": 0.32,
        "width": 96,
        "height": 64,
        "encoded": "encoded",
        "phi": "possible",
    }
    assert expected.items() <= video.detail.items()
    assert thumbnail.detail["frame"] == 5
    assert thumbnail.detail["rendering"] == "pixels"
    picture = Image.open(io.BytesIO(staged(tmp_path, thumbnail).read_bytes()))
    assert (picture.format, picture.mode) == ("JPEG", "L")
    assert sorted(each.name for each in (tmp_path / "staging").iterdir()) == [
        "thumbnail.jpg",
        "video.mp4",
    ]
    assert staged(tmp_path, video).stat().st_mode & 0o777 == 0o440


def test_one_pass_and_two_make_the_same_thumbnail(tmp_path: Path) -> None:
    both = derived(tmp_path / "a", cine(8))[Kind.THUMBNAIL]
    alone = derived(tmp_path / "b", cine(8), kinds=frozenset({Kind.THUMBNAIL}))[Kind.THUMBNAIL]
    assert staged(tmp_path / "a", both).read_bytes() == staged(tmp_path / "b", alone).read_bytes()
    assert both.detail == alone.detail


def test_single_frame(tmp_path: Path) -> None:
    made = derived(tmp_path, instance())
    assert made[Kind.VIDEO] == Made(
        Kind.VIDEO, Status.SKIPPED, DerivativeReason.SINGLE_FRAME, {}, None
    )
    assert made[Kind.THUMBNAIL].status is Status.MADE


def test_no_pixels(tmp_path: Path) -> None:
    ds = instance(sop_class="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR", PixelData=None)
    made = derived(tmp_path, ds)
    assert made[Kind.VIDEO].reason is DerivativeReason.NO_PIXELS
    assert made[Kind.THUMBNAIL].status is Status.MADE
    assert made[Kind.THUMBNAIL].detail["rendering"] in ("card", "document")


def test_unsupported_syntax_is_skipped_with_a_card(tmp_path: Path) -> None:
    data = encoded(endoscopy(b"abcdefgh" * 20, 3), "1.2.840.10008.1.2.4.94")
    made = derived(tmp_path, data)
    for kind in Kind:
        assert made[kind].status is Status.SKIPPED
        assert made[kind].reason is DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX
    assert made[Kind.THUMBNAIL].detail["rendering"] == "card"
    assert staged(tmp_path, made[Kind.THUMBNAIL]).exists()


def test_corrupt_pixels_fail_with_a_card(tmp_path: Path) -> None:
    data = encoded(endoscopy(b"\xff\xd8\xff" + b"nonsense" * 20, 3), "1.2.840.10008.1.2.4.50")
    made = derived(tmp_path, data)
    for kind in Kind:
        assert made[kind].reason is DerivativeReason.CORRUPT_PIXELS
        assert made[kind].status is Status.FAILED
    assert made[Kind.THUMBNAIL].detail["rendering"] == "card"


def test_stand_in_decodes_nothing(tmp_path: Path) -> None:
    made = derived(
        tmp_path,
        cine(4),
        kinds=frozenset({Kind.THUMBNAIL}),
        stand_in=DerivativeReason.DECODER_CRASHED,
    )
    found = made[Kind.THUMBNAIL]
    assert (found.status, found.reason) == (Status.FAILED, DerivativeReason.DECODER_CRASHED)
    assert found.detail["rendering"] == "card"


def test_unequal_times_make_a_frame_map(tmp_path: Path) -> None:
    ds = cine(4, FrameTimeVector=["0", "40", "80", "40"], FrameIncrementPointer=0x00181065)
    video = derived(tmp_path, ds)[Kind.VIDEO]
    assert video.detail["frame_map"] == [[1, 1], [2, 2], [3, 1], [4, 1]]
    assert probe(staged(tmp_path, video)).frames == video.detail["frames"] == 5


def test_trim_sweep_and_repetition_by_option(tmp_path: Path) -> None:
    ds = cine(6, StartTrim=2, StopTrim=5, PreferredPlaybackSequencing=1)
    kept = derived(tmp_path / "a", ds)[Kind.VIDEO].detail
    assert (kept["trim"], kept["sweep"], kept["frames"]) == ([2, 5], True, 6)
    settings = VideoSettings(trim=True, sweep=True, min_seconds=0.5)
    detail = derived(tmp_path / "b", ds, videos=settings)[Kind.VIDEO].detail
    assert [each for each, _ in detail["frame_map"]] == [2, 3, 4, 5, 4, 3] * 3


def test_too_many_frames_are_skipped(tmp_path: Path) -> None:
    video = derived(tmp_path, cine(6), videos=VideoSettings(max_frames=5))[Kind.VIDEO]
    assert (video.status, video.reason) == (Status.SKIPPED, DerivativeReason.TOO_LARGE)


def test_lost_frames_are_black_and_noted(tmp_path: Path) -> None:
    ds = cine(4, 64, 96)
    frames = []
    for number in range(4):
        out = io.BytesIO()
        start = number * 64 * 96
        Image.frombytes("L", (96, 64), ds.PixelData[start : start + 64 * 96]).save(out, "JPEG")
        frames.append(out.getvalue())
    frames[2] = frames[2][:3] + b"nonsense" * 5
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    video = derived(tmp_path, encoded(ds, "1.2.840.10008.1.2.4.50"))[Kind.VIDEO]
    assert video.status is Status.MADE
    assert video.detail["broken_frames"] == [3]
    assert video.detail["partial"] is True
    assert probe(staged(tmp_path, video)).frames == 4


def test_stream_gets_both(tmp_path: Path) -> None:
    film = tmp_path / "film.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=0.4", "-pix_fmt", "yuv420p", str(film))
    made = derived(tmp_path, encoded(endoscopy(film.read_bytes(), 10), "1.2.840.10008.1.2.4.100"))
    assert made[Kind.VIDEO].detail["encoded"] in ("copied", "transcoded")
    assert made[Kind.THUMBNAIL].detail["decoder"] == "ffmpeg"
    assert sorted(each.name for each in (tmp_path / "staging").iterdir()) == [
        "thumbnail.jpg",
        "video.mp4",
    ]


def test_missing_object_is_trouble_not_failure(tmp_path: Path) -> None:
    result = derive(request(tmp_path / "gone.dcm"))
    assert (result.made, result.trouble) == ((), "No such file or directory")


def test_longer_clips_are_allowed_more() -> None:
    still = DeriveRequest(1, "", "", "", frozenset({Kind.THUMBNAIL}), rows=512, columns=512)
    assert (allowance(still).wall_seconds, allowance(still).cpu_seconds) == (60, 20)
    clip = replace(still, kinds=BOTH, number_of_frames=1000)
    assert allowance(clip).wall_seconds > 300
    big = replace(still, rows=20000, columns=20000)
    assert allowance(big).memory_bytes > allowance(still).memory_bytes


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"[1, 2, 3]",
        b'[1, [["thumbnail", "made", null, {}, "../../evil"]], null]',
        b'[1, [["thumbnail", "perfect", null, {}, null]], null]',
        b'["x", [], null]',
    ],
)
def test_answers_that_make_no_sense_are_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"a worker|not a valid"):
        DeriveResult.from_json(answer)


class TestConvert:
    def test_cine(self, tmp_path: Path) -> None:
        made = convert(drop(tmp_path / "a.dcm", cine(4)))
        assert (made.path, made.kind) == (tmp_path / "a.mp4", Kind.VIDEO)
        assert probe(made.path).frames == 4
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.dcm", "a.mp4"]

    def test_still_in_full_size(self, tmp_path: Path) -> None:
        made = convert(drop(tmp_path / "a.dcm", instance(rows=300, columns=400)))
        with Image.open(made.path) as picture:
            assert picture.size == (400, 300)
        assert made.path == tmp_path / "a.jpg"

    def test_the_ending_chooses(self, tmp_path: Path) -> None:
        path = drop(tmp_path / "a.dcm", cine(4))
        assert convert(path, tmp_path / "b.jpg").kind is Kind.THUMBNAIL
        still = drop(tmp_path / "c.dcm", instance())
        with pytest.raises(DecodeError):
            convert(still, tmp_path / "c.mp4")

    def test_nothing_is_overwritten_unasked(self, tmp_path: Path) -> None:
        path = drop(tmp_path / "a.dcm", instance())
        (tmp_path / "a.jpg").write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            convert(path)
        assert (tmp_path / "a.jpg").read_bytes() == b"mine"
