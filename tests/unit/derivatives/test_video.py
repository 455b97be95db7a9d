"""What FFmpeg makes of frames, by content and by structure."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ingester.derivatives import video
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.mp4 import Probe
from ingester.derivatives.video import Size, encode, fitted
from ingester.model import DerivativeReason
from tests.unit.derivatives.films import decoded, gray

RATE = Fraction(1000, 33)


def made(film: NDArray[np.uint8], out: Path, rate: Fraction = RATE) -> Probe:
    size = fitted(film.shape[2], film.shape[1], rate=rate, max_edge=1920)
    return encode(film, out, size=size, is_colour=film.ndim == 4, rate=rate)[0]


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else 99.0


@pytest.mark.parametrize("columns", [96, 97])
@pytest.mark.parametrize("rows", [64, 65])
def test_every_parity_keeps_every_pixel(tmp_path: Path, rows: int, columns: int) -> None:
    film = gray(5, rows, columns)
    found = made(film, tmp_path / "a.mp4")
    width, height = columns + columns % 2, rows + rows % 2
    assert (found.width, found.height, found.frames) == (width, height, 5)
    back = decoded(tmp_path / "a.mp4", width, height)[:, :rows, :columns]
    assert psnr(film, back) >= 32
    for edge in (np.s_[:, :, -1], np.s_[:, -1, :]):
        assert np.abs(film[edge].astype(int) - back[edge].astype(int)).mean() <= 3


def test_structure(tmp_path: Path) -> None:
    found = made(gray(40, 64, 96), tmp_path / "a.mp4")
    assert (found.codec, found.profile, found.chroma_format, found.bit_depth) == ("avc1", 100, 1, 8)
    assert found.level <= 51
    assert found.colour == (1, 1, 1, False)
    assert found.is_faststart
    assert not found.has_audio
    assert not found.has_metadata
    assert found.longest_keyframe_gap <= 30
    assert Fraction(found.durations[0][1], found.timescale) == Fraction(33, 1000)
    assert len(found.durations) == 1


@pytest.mark.parametrize("frames", [1, 2])
def test_shortest_clips(tmp_path: Path, frames: int) -> None:
    assert made(gray(frames, 64, 96), tmp_path / "a.mp4").frames == frames


def test_colour_bars_keep_their_colours(tmp_path: Path) -> None:
    bars = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (128, 128, 128), (255, 255, 255)]
    film = np.repeat(np.array([bars], np.uint8), 24, axis=1)[:, None].repeat(64, axis=1)
    film = film.repeat(3, axis=0)
    made(film, tmp_path / "a.mp4")
    back = decoded(tmp_path / "a.mp4", film.shape[2], 64, "rgb24")
    centres = back[1, 32, 12::24].astype(int)
    assert np.abs(centres - np.array(bars)).max() <= 3


def test_order_of_frames(tmp_path: Path) -> None:
    film = gray(12, 64, 96)
    made(film, tmp_path / "a.mp4")
    seen = decoded(tmp_path / "a.mp4", 96, 64)[:, 10:20, 10:30].mean(axis=(1, 2))
    assert np.abs(seen - film[:, 10:20, 10:30].mean(axis=(1, 2))).max() < 4


def test_repeated_frames(tmp_path: Path) -> None:
    film = gray(3, 64, 96)
    size = fitted(96, 64, rate=RATE, max_edge=1920)
    found, taken = encode(
        film, tmp_path / "a.mp4", size=size, is_colour=False, rate=RATE, repeats=(1, 4, 2)
    )
    assert (found.frames, taken) == (7, 3)


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.mp4", "b.mp4"):
        made(gray(10, 64, 96), tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    films = [gray(1, 64, 96)[0], gray(1, 64, 98)[0]]
    size = fitted(96, 64, rate=RATE, max_edge=1920)
    with pytest.raises(DecodeError) as error:
        encode(films, tmp_path / "a.mp4", size=size, is_colour=False, rate=RATE)
    assert error.value.reason is DerivativeReason.CORRUPT_PIXELS
    assert not (tmp_path / "a.mp4.log").exists()


def test_failing_encoder_is_told_by_its_exit_code(tmp_path: Path) -> None:
    out = tmp_path / "missing" / "a.mp4"
    size = fitted(96, 64, rate=RATE, max_edge=1920)
    with pytest.raises(FileNotFoundError):
        encode(gray(2, 64, 96), out, size=size, is_colour=False, rate=RATE)
    with (
        pytest.raises(DecodeError) as error,
        video.Ffmpeg(["-f", "nothing", "-i", "pipe:0", "x.mp4"], tmp_path / "x.mp4") as ffmpeg,
    ):
        ffmpeg.finish()
    assert error.value.reason is DerivativeReason.ENCODER_FAILED


def test_full_disk_is_the_world_s_fault(tmp_path: Path) -> None:
    full = tmp_path / "full.mp4"
    full.symlink_to("/dev/full")
    size = fitted(96, 64, rate=RATE, max_edge=1920)
    with pytest.raises(OSError, match="No space left"):
        encode(gray(60, 64, 96), full, size=size, is_colour=False, rate=RATE)


class TestSize:
    def test_nothing_is_scaled_without_need(self) -> None:
        found = fitted(511, 301, rate=RATE, max_edge=1920)
        assert found.scaled == (511, 301)
        assert found.even == (512, 302)
        assert found.filters() == [
            "pad=512:302:0:0",
            "fillborders=right=1:bottom=1:mode=smear",
        ]

    def test_tiny_is_enlarged_by_a_whole_number(self) -> None:
        found = fitted(33, 20, rate=RATE, max_edge=1920)
        assert found.scaled == (33 * 13, 20 * 13)
        assert "flags=neighbor" in found.filters()[0]

    def test_large_is_reduced(self) -> None:
        assert fitted(4000, 3000, rate=RATE, max_edge=1920).scaled == (1920, 1440)

    def test_no_option_goes_past_level_5_1(self) -> None:
        width, height = fitted(9000, 9000, rate=Fraction(10), max_edge=9000).even
        assert max(width, height) <= 4096
        assert min(width, height) <= 2304
        wide, high = fitted(1900, 1900, rate=Fraction(200), max_edge=1920).even
        assert (wide / 16) * (high / 16) * 200 <= 983_040

    def test_oblong_pixels_are_made_square(self) -> None:
        assert fitted(200, 100, aspect=2.0, rate=RATE, max_edge=1920).scaled == (200, 200)
        assert fitted(200, 100, aspect=0.5, rate=RATE, max_edge=1920).scaled == (400, 100)

    def test_absurd_aspect_is_ignored(self) -> None:
        assert fitted(200, 100, aspect=40.0, rate=RATE, max_edge=1920).scaled == (200, 100)

    def test_even_size_needs_no_padding(self) -> None:
        assert Size(96, 64, (96, 64)).filters() == []
