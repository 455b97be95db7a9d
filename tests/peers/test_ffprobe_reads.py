"""FFmpeg's own ffprobe finds in a video what was meant to be there."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

from ingester.derivatives.video import encode, fitted
from tests.peers.conftest import program
from tests.unit.derivatives.films import gray

_ENTRIES = "stream=codec_name,profile,pix_fmt,width,height,color_range,color_space,nb_read_frames"


def test_a_video_of_odd_size_is_what_every_player_reads(tmp_path: Path) -> None:
    rate = Fraction(1000, 33)
    size = fitted(97, 65, rate=rate, max_edge=1920)
    encode(gray(9, 65, 97), tmp_path / "a.mp4", size=size, is_colour=False, rate=rate)
    said = subprocess.run(
        [
            *(program("ffprobe"), "-v", "error", "-count_frames", "-show_entries", _ENTRIES),
            *("-of", "csv=p=0", str(tmp_path / "a.mp4")),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.strip() == "h264,High,98,66,yuv420p,tv,bt709,9"
