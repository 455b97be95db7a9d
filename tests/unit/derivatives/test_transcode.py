"""Objects that hold a video: out of the object, copied where possible, else encoded."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from ingester.derivatives.errors import DecodeError
from ingester.derivatives.mp4 import Probe
from ingester.derivatives.plan import VideoSettings
from ingester.derivatives.reading import open_object
from ingester.derivatives.stream import open_stream, parse_description, sniff
from ingester.derivatives.transcode import first_picture, make_video
from ingester.derivatives.video import encode, fitted
from ingester.model import DerivativeReason, type_json
from tests.factory import drop, encoded
from tests.unit.derivatives.films import endoscopy, ffmpeg, gray

FRAMES = 20
H264, MPEG2, HEVC = (f"1.2.840.10008.1.2.4.{number}" for number in (102, 100, 107))

X265 = ["-c:v", "libx265", "-x265-params", "log-level=error:pools=1"]
#: name of the stream: (transfer syntax, arguments that make it of an MP4)
STREAMS: dict[str, tuple[str, list[str]]] = {
    "a.mp4": (H264, ["-c", "copy"]),
    "a.ts": (H264, ["-c", "copy"]),
    "smooth.h264": (H264, ["-c:v", "libx264", "-bf", "0", "-f", "h264"]),
    "reordered.h264": (H264, ["-c:v", "libx264", "-bf", "2", "-x264-params", "b-adapt=0"]),
    "interlaced.ts": (H264, ["-c:v", "libx264", "-flags", "+ilme+ildct", "-x264opts", "tff=1"]),
    "deep.ts": (H264, ["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
    "a.m2v": (MPEG2, ["-c:v", "mpeg2video"]),
    "a.mpg": (MPEG2, ["-c:v", "mpeg2video", "-f", "vob"]),
    "hevc.mp4": (HEVC, X265),
    "a.hevc": (HEVC, X265),
}


@pytest.fixture(scope="module")
def stream_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("streams")
    source = folder / "source.mp4"
    size = fitted(96, 64, rate=Fraction(25), max_edge=1920)
    encode(gray(FRAMES, 64, 96), source, size=size, is_colour=False, rate=Fraction(25))

    def made(name: str) -> bytes:
        out = folder / name
        if not out.exists():
            ffmpeg("-i", str(source), *STREAMS[name][1], "-threads", "1", str(out))
        return out.read_bytes()

    return made


def derived(
    folder: Path, stream: bytes, syntax: str, settings: VideoSettings | None = None
) -> tuple[Probe, dict[str, type_json]]:
    path = drop(folder / "a.dcm", encoded(endoscopy(stream, FRAMES), syntax))
    with open_object(path) as found:
        opened = open_stream(found, path, folder / "stream")
    return make_video(opened, folder / "out.mp4", settings or VideoSettings())


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_becomes_a_video_of_all_its_frames(
    name: str, stream_of: Callable[[str], bytes], tmp_path: Path
) -> None:
    made, detail = derived(tmp_path, stream_of(name), STREAMS[name][0])
    assert made.frames == FRAMES
    assert made.seconds == Fraction(FRAMES, 25)
    assert (made.codec, made.chroma_format, made.bit_depth) == ("avc1", 1, 8)
    assert made.is_even
    assert made.is_faststart
    is_copied = name in ("a.mp4", "a.ts", "smooth.h264")
    assert detail["encoded"] == ("copied" if is_copied else "transcoded")
    assert detail["fps_fraction"] == "25/1"


def test_bytes_come_out_as_they_went_in(stream_of: Callable[[str], bytes], tmp_path: Path) -> None:
    data = stream_of("a.mp4")
    if len(data) % 2 == 0:  # so that the object holds a byte of padding
        data += b"\0\0\0\x09free\0"
    derived(tmp_path, data, H264)
    assert (tmp_path / "stream").read_bytes() == data


def test_hevc_is_copied_by_option(stream_of: Callable[[str], bytes], tmp_path: Path) -> None:
    made, detail = derived(tmp_path, stream_of("hevc.mp4"), HEVC, VideoSettings(hevc="copy"))
    assert (made.codec, detail["encoded"]) == ("hvc1", "copied")


def test_first_picture(stream_of: Callable[[str], bytes], tmp_path: Path) -> None:
    path = drop(tmp_path / "a.dcm", encoded(endoscopy(stream_of("a.ts"), FRAMES), H264))
    with open_object(path) as found:
        opened = open_stream(found, path, tmp_path / "stream")
    picture, number = first_picture(opened, tmp_path / "picture")
    assert (picture.shape, number) == ((64, 96, 3), 0)


def test_truncated_stream_ends_early(stream_of: Callable[[str], bytes], tmp_path: Path) -> None:
    data = stream_of("a.ts")
    made, detail = derived(tmp_path, data[: len(data) // 2 // 188 * 188], H264)
    assert 0 < made.frames < FRAMES
    assert detail["stated_frames"] == FRAMES


@pytest.mark.parametrize(
    "data", [bytes(8), b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\n"]
)
def test_what_is_no_stream_is_never_opened(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DecodeError) as error:
        derived(tmp_path, data, H264)
    assert error.value.reason is DerivativeReason.CORRUPT_PIXELS


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\0\0\0\x1cftypisom", "mov"),
        (b"\x47" + bytes(187) + b"\x47", "mpegts"),
        (b"\0\0\1\xba\x44", "mpeg"),
        (b"\0\0\1\xb3\x14", "mpegvideo"),
        (b"\0\0\0\1\x67\x64", "h264"),
        (b"\0\0\1\x09\xf0", "h264"),
        (b"\0\0\0\1\x40\1", "hevc"),
        (b"\0\0\0\1\x46\1", "hevc"),
    ],
)
def test_sniff(head: bytes, container: str) -> None:
    assert sniff(head, H264) == container


def test_description() -> None:
    found = parse_description(
        "Input #0, mpegts, from 'a':\n"
        "  Stream #0:0[0x100]: Video: h264 (High 4:2:2) ([27][0][0][0] / 0x001B), "
        "yuv422p(tv, bt470bg/unknown/unknown, top first), 720x576 [SAR 16:15 DAR 4:3], "
        "29.97 fps, 50 tbr, 90k tbn\n"
    )
    assert (found.codec, found.pixel_format) == ("h264", "yuv422p")
    assert (found.width, found.height, found.is_interlaced) == (720, 576, True)
    assert found.rate == Fraction(30000, 1001)
    assert found.aspect == pytest.approx(16 / 15)
