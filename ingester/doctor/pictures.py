"""Can pictures be made: each codec tries a frame of its own, FFmpeg a video.

Tried in a process apart: a decoder built for another processor takes it down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ingester.doctor.apart import DiedError, apart
from ingester.doctor.findings import Check
from ingester.model import type_json

_EDGE = 16
_BITS = 8
#: Decoders that come with `pip install 'ingester[codecs]'`: the module of each.
OPTIONAL = {"pylibjpeg": "pylibjpeg", "pyjpegls": "jpeg_ls", "gdcm": "gdcm"}
_FFMPEG_SECONDS = 30.0


def _encoders() -> Mapping[str, tuple[str, Callable[[Any], bytes | bytearray]]]:
    """Return for each transfer syntax its name, and what makes a frame in it."""
    import imagecodecs as codecs

    from ingester.derivatives import decoders as known

    return {
        known.JPEG_BASELINE: ("JPEG", lambda a: codecs.jpeg8_encode(a, level=100)),
        known.JPEG_LOSSLESS_SV1: ("JPEG Lossless", lambda a: codecs.ljpeg_encode(a)),
        known.JPEG_LS: ("JPEG-LS", lambda a: codecs.jpegls_encode(a)),
        known.JPEG_2000_LOSSLESS: (
            "JPEG 2000", lambda a: codecs.jpeg2k_encode(a, codecformat="j2k", reversible=True)
        ),
        known.HTJ2K_LOSSLESS: ("HTJ2K", lambda a: codecs.htj2k_encode(a)),
        known.JPEG_XL[0]: ("JPEG XL", lambda a: codecs.jpegxl_encode(a, lossless=True)),
        known.RLE: ("RLE", _rle),
    }  # fmt: skip


def _rle(frame: Any) -> bytes:
    """Encode as PS3.5 Annex G does: one segment, literal runs only."""
    rows = [frame[row].tobytes() for row in range(frame.shape[0])]
    data = b"".join(bytes([len(row) - 1]) + row for row in rows)
    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    return header + data + bytes(len(data) % 2)


def read_all() -> type_json:
    """Decode a frame of each transfer syntax; returns name -> decoder, or null and why."""
    import numpy as np

    from ingester.derivatives import decoders
    from ingester.derivatives.layout import Layout

    frame = np.arange(_EDGE * _EDGE, dtype=np.uint8).reshape(_EDGE, _EDGE)
    layout = Layout(_EDGE, _EDGE, 1, _BITS, _BITS, False, "MONOCHROME2")
    told: dict[str, list[str | None]] = {}
    for syntax, (name, encode) in _encoders().items():
        try:
            decoded = decoders.decode(bytes(encode(frame)), syntax, layout)
            error = np.abs(decoded.samples.astype(int) - frame).max()
            told[name] = [decoded.decoder, None if error <= 2 else "gives other pixels"]
        except Exception as error:  # noqa: BLE001 - encoders and decoders raise anything
            told[name] = [None, f"{type(error).__name__}: {error}"[:200]]
    return told


def codecs(
    read: Callable[[], type_json] = read_all, *, has_module: Callable[[str], bool] | None = None
) -> Iterator[Check]:
    """Say which transfer syntaxes can be decoded, and which optional decoders lack."""
    fix = "pip install --force-reinstall imagecodecs pydicom"
    try:
        told = apart(read)
    except DiedError as error:
        yield Check.problem("codecs", f"decoding crashes: {error}", fix)
    else:
        bad = [f"{name} ({why})" for name, (_, why) in told.items() if why is not None]
        if bad:
            yield Check.problem("codecs", f"cannot be decoded: {', '.join(bad)}", fix)
        else:
            found = ", ".join(f"{name} ({decoder})" for name, (decoder, _) in told.items())
            yield Check.ok("codecs", f"decoded: {found}")
    is_there = has_module or (lambda module: find_spec(module) is not None)
    lacking = [name for name, module in OPTIONAL.items() if not is_there(module)]
    if lacking:
        yield Check.note(
            "codecs",
            f"not installed: {', '.join(lacking)}; they are asked where imagecodecs gives up",
            "pip install 'ingester[codecs]'",
        )


def encode_two_frames(folder: Path) -> type_json:
    """Make a video of two frames; returns FFmpeg's version and program."""
    import numpy as np

    from ingester.derivatives import video

    frames = [np.full((_EDGE, _EDGE), grey, dtype=np.uint8) for grey in (0, 200)]
    video.encode(
        frames,
        folder / "two.mp4",
        size=video.Size(_EDGE, _EDGE, (_EDGE, _EDGE)),
        is_colour=False,
        rate=Fraction(10),
    )
    return [video.ffmpeg_version(), video.ffmpeg_program()]


def ffmpeg(encode: Callable[[Path], type_json] = encode_two_frames) -> Check:
    """Say whether FFmpeg is there and makes H.264 that plays everywhere."""
    with TemporaryDirectory(prefix="ingester-doctor-") as folder:
        try:
            version, program = apart(lambda: encode(Path(folder)), seconds=_FFMPEG_SECONDS)
        except DiedError as error:
            return Check.problem(
                "ffmpeg",
                f"no video can be made: {error}",
                "pip install --force-reinstall imageio-ffmpeg, or name a program with libx264: "
                "export IMAGEIO_FFMPEG_EXE=/usr/bin/ffmpeg",
            )
    return Check.ok("ffmpeg", f"{version} at {program}; H.264 works")
