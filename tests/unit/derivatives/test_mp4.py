"""The probe tells what is in an MP4 file, and no nonsense of what is not one."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import pytest

from ingester.derivatives.mp4 import NotAnMp4, boxes_end, probe
from ingester.derivatives.video import encode, fitted
from tests.unit.derivatives.films import ffmpeg, gray


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("mp4") / "a.mp4"
    size = fitted(96, 64, rate=Fraction(25), max_edge=1920)
    encode(gray(8, 64, 96), out, size=size, is_colour=False, rate=Fraction(25))
    return out.read_bytes()


def test_what_is_said(film: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(film)
    found = probe(tmp_path / "a.mp4")
    assert (found.codec, found.frames, found.seconds) == ("avc1", 8, Fraction(8, 25))
    assert found.is_even
    assert boxes_end(tmp_path / "a.mp4") == len(film)


def test_other_layouts(film: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(film)
    source = str(tmp_path / "a.mp4")
    late = tmp_path / "late.mp4"
    ffmpeg("-i", source, "-c", "copy", "-metadata", "title=x", str(late))
    found = probe(late)
    assert not found.is_faststart
    assert found.has_metadata
    deep = tmp_path / "deep.mp4"
    ffmpeg("-i", source, "-c:v", "libx264", "-pix_fmt", "yuv444p10le", str(deep))
    assert (probe(deep).chroma_format, probe(deep).bit_depth) == (3, 10)
    sound = tmp_path / "sound.mp4"
    ffmpeg("-i", source, "-f", "lavfi", "-i", "sine=d=0.3", "-c:v", "copy", str(sound))
    assert probe(sound).has_audio


@pytest.mark.parametrize("data", [b"", b"ID3", b"\0\0\0\x08ftyp", b"\xff" * 500])
def test_not_an_mp4(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(NotAnMp4):
        probe(tmp_path / "a")


def test_cut_short(film: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(film[: len(film) // 2])
    with pytest.raises(NotAnMp4):
        probe(tmp_path / "a")


def test_damage_never_surprises(film: bytes, tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "a"
    for _ in range(300):
        data = bytearray(film)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(min(1200, len(data)))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            probe(path)
        except NotAnMp4:
            continue
