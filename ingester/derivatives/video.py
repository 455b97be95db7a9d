"""Frames into an H.264 file that every player opens, or a reason why not.

FFmpeg's program does the work (the library around its wheel ignores exit codes
and resamples odd sizes): frames go down a pipe, its complaints into a file, and
what comes out is read back box by box before it counts.  Nothing is resampled
unless it must be: odd sizes are padded by repeating the last row or column, only
tiny, huge and non-square pictures are scaled.

    size = fitted(columns, rows, aspect=1, rate=rate, max_edge=1920)
    encode(frames, out, size=size, is_colour=False, rate=rate) -> Probe
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from ingester import durable
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.mp4 import NotAnMp4, Probe, probe
from ingester.model import DerivativeReason, type_json

#: Level 5.1: what Windows decodes. Long and short edge, macroblocks per second.
LARGEST = (4096, 2304)
_MACROBLOCKS_A_SECOND = 983_040
_HIGHEST_LEVEL = 51
#: Players fail on less; what is smaller is enlarged towards the comfortable edge.
SMALLEST_EDGE = 64
_COMFORTABLE_EDGE = 256
#: A ratio nearer to 1 is rounding, one beyond is a mistake in the header.
_SQUARE = 0.01
_LARGEST_RATIO = 10

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Size:
    """How a frame of `width` x `height` becomes a picture of even size.

    `scaled` differs from the frame's size where resampling is ordered; `is_nearest` then
    says that pixels are only enlarged.  Padding up to even sizes comes after it.
    """

    width: int
    height: int
    scaled: tuple[int, int]
    is_nearest: bool = False

    @property
    def even(self) -> tuple[int, int]:
        """Return the size of the video."""
        return self.scaled[0] + self.scaled[0] % 2, self.scaled[1] + self.scaled[1] % 2

    def filters(self) -> list[str]:
        """Return the filters before the colour conversion; padding must precede that."""
        chosen = []
        if self.scaled != (self.width, self.height):
            kernel = "neighbor" if self.is_nearest else "bicubic"
            chosen.append(f"scale={self.scaled[0]}:{self.scaled[1]}:flags={kernel}")
        if self.even != self.scaled:
            right, bottom = self.scaled[0] % 2, self.scaled[1] % 2
            chosen.append(f"pad={self.even[0]}:{self.even[1]}:0:0")
            chosen.append(f"fillborders=right={right}:bottom={bottom}:mode=smear")
        return chosen


def fitted(width: int, height: int, *, aspect: float = 1.0, rate: Fraction, max_edge: int) -> Size:
    """Return the size of the video for frames of *width* x *height*.

    *aspect* is the height of a pixel divided by its width; players differ in what they
    make of such a ratio, so the picture itself is made square.
    """
    is_square = abs(aspect - 1) <= _SQUARE or not 1 / _LARGEST_RATIO < aspect < _LARGEST_RATIO
    wide, high = float(width), float(height)
    if not is_square:
        wide, high = (wide, high * aspect) if aspect > 1 else (wide / aspect, high)
    shrink = _shrinking(wide, high, rate, max_edge)
    short, long = sorted((wide, high))
    if shrink < 1:
        # Scaled anyway: straight to even numbers, so that nothing is padded.
        scaled = (max(2, 2 * round(wide * shrink / 2)), max(2, 2 * round(high * shrink / 2)))
        return Size(width, height, scaled)
    times = 1
    if short < SMALLEST_EDGE:
        times = max(1, min(math.ceil(_COMFORTABLE_EDGE / short), int(max_edge / long)))
    if is_square:
        return Size(width, height, (width * times, height * times), is_nearest=True)
    return Size(width, height, (max(1, round(wide * times)), max(1, round(high * times))))


def _shrinking(wide: float, high: float, rate: Fraction, max_edge: int) -> float:
    """Return the factor (at most 1) that brings a picture within the limits."""
    short, long = sorted((wide, high))
    blocks = math.ceil(wide / 16) * math.ceil(high / 16)
    speed = _MACROBLOCKS_A_SECOND / float(blocks * rate)
    return min(
        1.0,
        max_edge / long,
        LARGEST[0] / long,
        LARGEST[1] / short,
        # Rounding up to whole macroblocks costs a little on each edge.
        1.0 if speed >= 1 else math.sqrt(speed) * 0.98,
    )


TO_VIDEO_COLOURS = (
    "scale=in_range=pc:out_range=tv:out_color_matrix=bt709:flags=accurate_rnd+full_chroma_int"
)
TAGS = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
#: What follows `-vf`: the encoder, and a file without dates, names or our version.
ENCODER = (
    *("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-profile:v", "high"),
    *("-g", "30", "-threads", "1"),
)
CONTAINER = (
    *("-movflags", "+faststart", "-map_metadata", "-1"),
    *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", "mp4"),
)


def command(size: Size, *, is_colour: bool, rate: Fraction, out: Path) -> list[str]:
    """Return the arguments that make *out* of raw frames on standard input."""
    filters = [*size.filters(), TO_VIDEO_COLOURS, "format=yuv420p", "setsar=1", TAGS]
    return [
        *("-f", "rawvideo", "-pix_fmt", "rgb24" if is_colour else "gray"),
        *("-s", f"{size.width}x{size.height}"),
        *("-r", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"),
        *("-an", "-sn", "-dn", "-vf", ",".join(filters)),
        *ENCODER,
        *CONTAINER,
        os.fspath(out),
    ]


def encode(
    frames: Iterable[NDArray[np.uint8]],
    out: Path,
    *,
    size: Size,
    is_colour: bool,
    rate: Fraction,
    repeats: Sequence[int] | None = None,
) -> tuple[Probe, int]:
    """Encode 8-bit frames and verify what came out; flushing it is the caller's.

    Parameters
    ----------
    frames
        Arrays of (rows, columns), or (rows, columns, 3) for colour, one at a time.
    repeats
        How many times each frame is shown; once where None.

    Returns
    -------
    What the file says of itself, and how many of *frames* there were.

    Raises
    ------
    DecodeError
        FFmpeg failed or made something else than was asked for (`encoder-failed`).
    OSError
        The disk is full.
    """
    shape = (size.height, size.width, 3) if is_colour else (size.height, size.width)
    taken = shown = 0
    with Ffmpeg(command(size, is_colour=is_colour, rate=rate, out=out), out) as ffmpeg:
        for frame in frames:
            if frame.shape != shape or frame.dtype != np.uint8:
                raise DecodeError(
                    DerivativeReason.CORRUPT_PIXELS, "the frames are not all of one size"
                )
            view = np.ascontiguousarray(frame).data.cast("B")
            times = repeats[taken] if repeats is not None and taken < len(repeats) else 1
            for _ in range(times):
                ffmpeg.write(view)
            taken += 1
            shown += times
        if not shown:
            raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "there is not one frame")
        ffmpeg.finish()
    made = read_back(out)
    check_playable(made)
    _check_faithful(made, shown, rate, size)
    return made, taken


class Ffmpeg:
    """A run of FFmpeg: its input pipe, its complaints, its end.

    Complaints go into a file beside *out*, never into a pipe nobody reads.  Leaving the
    context before `finish` kills it.
    """

    def __init__(self, arguments: Sequence[str], out: Path, *, has_input: bool = True) -> None:
        self._log = out.with_name(out.name + ".log")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [ffmpeg_program(), "-nostdin", "-hide_banner", "-v", "error", "-y", *arguments],
                stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                bufsize=0,
                env={"LC_ALL": "C"},
                preexec_fn=_die_with_parent if _has_one_thread() else None,
            )

    def __enter__(self) -> Ffmpeg:
        return self

    def write(self, frame: memoryview) -> None:
        """Write one frame; the pipe's fullness is the back-pressure."""
        pipe = self._process.stdin
        assert pipe is not None
        try:
            while frame:
                frame = frame[pipe.write(frame) :]
        except BrokenPipeError:
            self._process.wait()
            self._fail()

    def finish(self) -> None:
        """Close the input and wait; an exit code other than 0 is a failure."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.wait() != 0:
            self._fail()

    def _fail(self) -> NoReturn:
        # What FFmpeg says may quote the stream: only what is known is passed on.
        said = self._log.read_bytes()[-65536:]
        for code in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(code).encode() in said:
                raise OSError(code, os.strerror(code))
        if self._process.returncode == -signal.SIGXFSZ:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        raise DecodeError(
            DerivativeReason.ENCODER_FAILED,
            f"FFmpeg ended with exit code {self._process.returncode}",
        )

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # what was still buffered has no reader any more
        self._process.wait()
        durable.unlink(self._log)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _has_one_thread() -> bool:
    """Say whether Python may run between fork and exec: in a worker, not elsewhere."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


@lru_cache(maxsize=1)
def ffmpeg_program() -> str:
    """Return the path of FFmpeg's program (the wheel's, unless the environment names one).

    Raises
    ------
    DecodeError
        There is none (`encoder-failed`).
    """
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise _refused("there is no FFmpeg program") from error


@lru_cache(maxsize=1)
def ffmpeg_version() -> str:
    """Return FFmpeg's version."""
    return str(imageio_ffmpeg.get_ffmpeg_version())


def read_back(out: Path) -> Probe:
    """Return what the file just written says of itself."""
    try:
        return probe(out)
    except NotAnMp4 as error:
        raise _refused(str(error)) from error
    except FileNotFoundError as error:
        raise _refused("no file was written") from error


def check_playable(made: Probe) -> None:
    """Hold a file to what every player needs; `encoder-failed` where it falls short."""
    if made.codec != "avc1" or made.profile > 100 or made.level > _HIGHEST_LEVEL:
        raise _refused("the video is not H.264 High or below, level 5.1 or below")
    if made.chroma_format != 1 or made.bit_depth != 8:
        raise _refused("the video is not 8-bit 4:2:0")
    if made.width % 2 or made.height % 2:
        raise _refused("the video has an odd size")
    if not made.is_faststart or made.has_metadata:
        raise _refused("the video's index comes last, or it bears metadata")
    if not made.frames or not made.ticks:
        raise _refused("the video has no frames")


def _check_faithful(made: Probe, frames: int, rate: Fraction, size: Size) -> None:
    """Hold a file to what was sent: each frame, at its moment, in its size."""
    if made.frames != frames:
        raise _refused(f"{frames} frames were sent, the video has {made.frames}")
    if (made.width, made.height) != size.even:
        raise _refused("the video has another size")
    if abs(made.ticks - frames / rate * made.timescale) > 1:
        raise _refused("the video plays at another rate")
    if made.colour != (1, 1, 1, False):
        raise _refused("the video does not say how its colours are meant")


def _refused(message: str) -> DecodeError:
    return DecodeError(DerivativeReason.ENCODER_FAILED, message)


def described(made: Probe, rate: Fraction) -> dict[str, type_json]:
    """Return the rate and the size of a video as `derivatives.detail` holds them."""
    return {
        "fps": round(float(rate), 6),
        "fps_fraction": f"{rate.numerator}/{rate.denominator}",
        "frames": made.frames,
        "seconds": round(float(made.seconds), 6),
        "width": made.width,
        "height": made.height,
    }
