"""Small cines and streams for the tests of this room."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from ingester.derivatives import video
from tests.factory import instance

ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
VIDEO_ENDOSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.1.1"


def gray(frames: int, rows: int, columns: int) -> NDArray[np.uint8]:
    """Return a ramp with a bar that moves: frame k has it in column k."""
    ramp = np.linspace(20, 235, columns).astype(np.uint8)
    film = np.tile(ramp, (frames, rows, 1))
    for number in range(frames):
        film[number, : rows // 2, : columns // 2] = 20 + 10 * (number % 20)
    return film


def cine(frames: int = 6, rows: int = 64, columns: int = 96, **overrides: Any) -> Dataset:
    """Return an 8-bit ultrasound cine of `gray`."""
    values: dict[str, Any] = {
        "Modality": "US",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "FrameTime": "40",
        "FrameIncrementPointer": 0x00181063,
        "PixelData": gray(frames, rows, columns).tobytes(),
        **overrides,
    }
    return instance(
        rows=rows, columns=columns, frames=frames, sop_class=ULTRASOUND_MULTIFRAME, **values
    )


def endoscopy(stream: bytes, frames: int, **overrides: Any) -> Dataset:
    """Return an object that holds a video stream, in two fragments."""
    half = len(stream) // 4 * 2
    ds = instance(
        rows=64,
        columns=96,
        frames=frames,
        sop_class=VIDEO_ENDOSCOPY,
        Modality="ES",
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_PARTIAL_420",
        FrameTime="40",
        PixelData=encapsulate([stream[:half], stream[half:]], has_bot=False),
        **overrides,
    )
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def ffmpeg(*arguments: str) -> None:
    """Run FFmpeg quietly; it must succeed."""
    program = [video.ffmpeg_program(), "-nostdin", "-v", "error", "-y"]
    subprocess.run([*program, *arguments], check=True)


def decoded(path: Path, width: int, height: int, pixels: str = "gray") -> NDArray[np.uint8]:
    """Return a video's frames as FFmpeg decodes them."""
    done = subprocess.run(
        [
            *(video.ffmpeg_program(), "-nostdin", "-v", "error", "-i", str(path)),
            # Passed through: an edit list shall neither drop nor repeat frames here.
            *("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", pixels, "-"),
        ],
        check=True,
        capture_output=True,
    )
    samples = 1 if pixels == "gray" else 3
    shape = (-1, height, width) if samples == 1 else (-1, height, width, samples)
    return np.frombuffer(done.stdout, np.uint8).reshape(shape)
