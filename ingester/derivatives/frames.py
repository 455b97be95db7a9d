"""The frames of an object, one in memory at a time.

A `FrameSource` is opened by path.  It works out what the pixels really are (the
header's word, corrected by the length of the data and by the codestreams), refuses
what is too large before anything is allocated, and then yields frames as arrays:
stored values (rows, columns) for grayscale and palette, RGB (rows, columns, 3) for
colour.  What the values mean is for `grayscale` and `colour` to say.

    with FrameSource(path) as source:
        for frame in source.frames(): ...
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from ingester.derivatives import decoders, native
from ingester.derivatives.codestream import parse
from ingester.derivatives.colour import rgb
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.fragments import Encapsulated, index_frames
from ingester.derivatives.layout import Layout
from ingester.derivatives.reading import (
    EXPLICIT_LITTLE_ENDIAN,
    ObjectFile,
    PixelElement,
    open_object,
)
from ingester.derivatives.values import integer, text
from ingester.model import DerivativeReason

MOST_PIXELS = 512 * 2**20
MOST_BYTES = 4 * 2**30
_VIDEO = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109))

type_frame = NDArray[Any]


def _is_too_large(rows: int, columns: int) -> bool:
    return rows * columns > MOST_PIXELS


class FrameSource:
    """The decoded frames of one object.

    Attributes
    ----------
    header : Dataset
        Everything before the pixels.
    layout : Layout
        The geometry and meaning of a frame, corrected by what the data shows.
    number_of_frames : int
        How many frames there are, whatever the header says.
    transfer_syntax : str
        The evident one.
    decoder : str
        Who decoded the last frame; empty before the first.
    is_partial : bool
        Whether anything of the frames seen so far is missing and made up.
    """

    def __init__(self, source: str | Path | ObjectFile) -> None:
        """Open an object.

        Raises
        ------
        OSError
            The file cannot be read.
        DecodeError
            There are no pixels, or none that could be shown.
        """
        self._file = source if isinstance(source, ObjectFile) else open_object(source)
        self.header = self._file.header
        self.decoder = ""
        self.is_partial = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.stream.close()

    @property
    def is_colour(self) -> bool:
        """Tell whether frames are RGB, by what is known before the first is decoded."""
        return self.layout.samples >= 3

    @property
    def is_palette(self) -> bool:
        """Tell whether frames are indices into a palette."""
        return self.layout.photometric_interpretation == "PALETTE COLOR"

    def frames(self, indices: Iterable[int] | None = None) -> Iterator[type_frame]:
        """Yield frames, all or those of *indices* (counted from 0, in that order).

        Raises
        ------
        DecodeError
            A frame cannot be decoded; the ones before were good.
        """
        for index in range(self.number_of_frames) if indices is None else indices:
            yield self.frame(index)

    def frame(self, index: int) -> type_frame:
        """Return one frame, counted from 0."""
        if not 0 <= index < self.number_of_frames:
            raise IndexError(index)
        try:
            if self._encapsulated is None:
                return self._native_frame(index)
            return self._compressed_frame(self._encapsulated, index)
        except MemoryError as error:
            raise DecodeError(DerivativeReason.TOO_LARGE, "a frame does not fit memory") from error

    def _open(self) -> None:
        pixels = self._file.pixels
        declared = self._file.declared_syntax
        if pixels is None or pixels.length == 0:
            raise DecodeError(DerivativeReason.NO_PIXELS, "the object has no pixel data")
        if declared in _VIDEO:
            raise DecodeError(
                DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX, "the pixels are a video stream"
            )
        self._pixels = pixels
        self._encapsulated: Encapsulated | None = None
        self.transfer_syntax = declared
        self.layout = native.layout_of(self.header, pixels)
        stated = max(0, integer(self.header, "NumberOfFrames") or 0)
        if native.is_encapsulated(self._file.stream, pixels, declared):
            self._open_compressed(pixels, declared, stated)
        else:
            self._open_native(pixels, declared, stated)
        self._check_size(self.layout)

    def _open_compressed(self, pixels: PixelElement, declared: str, stated: int) -> None:
        found = index_frames(
            self._file.stream,
            pixels.offset,
            self.header,
            stated or (1 if declared == decoders.RLE else 0),
            is_one_to_one=declared in (decoders.RLE, decoders.DEFLATED_FRAME),
        )
        if not found.frames:
            raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "there is no frame in the data")
        stream = parse(found.read(self._file.stream, 0))
        self.transfer_syntax = decoders.syntax_of(declared, stream)
        if self.transfer_syntax not in decoders.ORDER:
            raise DecodeError(
                DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX,
                f"no decoder reads transfer syntax {declared or '(none)'}",
            )
        if stream is not None and stream.rows > 0 and stream.columns > 0:
            if _is_too_large(stream.rows, stream.columns) and not _is_too_large(
                self.layout.rows, self.layout.columns
            ):
                raise DecodeError(
                    DerivativeReason.CORRUPT_PIXELS, "the frame contradicts the header's size"
                )
            self.layout = replace(
                self.layout,
                rows=stream.rows,
                columns=stream.columns,
                samples=stream.components or self.layout.samples,
            )
        self._encapsulated = found
        self.number_of_frames = len(found.frames)
        self.is_partial = found.is_cut_short or len(found.frames) < stated

    def _open_native(self, pixels: PixelElement, declared: str, stated: int) -> None:
        if declared in decoders.ORDER or not declared.startswith("1.2.840.10008.1.2"):
            self.transfer_syntax = EXPLICIT_LITTLE_ENDIAN
        length = self._file.stream.size - pixels.offset
        length = length if pixels.length is None else min(length, pixels.length)
        self._length = max(0, length)
        self.layout = native.fitted(self.layout, pixels.length or self._length, stated)
        self._check_size(self.layout)
        bits = native.frame_bits(self.layout)
        whole = self._length * 8 // bits
        if self._length == 0:
            raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "the pixel data is cut off")
        present = max(1, -(-self._length * 8 // bits))
        if whole < max(1, stated):
            self.number_of_frames = min(present, max(1, stated))
            self.is_partial = True
        else:
            # More than stated: hidden frames if they fill the data, else it is only padding.
            is_filled = self._length - whole * bits // 8 <= 1
            self.number_of_frames = whole if is_filled else max(1, stated)

    def _check_size(self, layout: Layout) -> None:
        if layout.rows < 1 or layout.columns < 1 or layout.samples < 1:
            raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "the frame has no size")
        sample_bits = layout.rows * layout.columns * layout.samples * layout.bits_allocated
        if _is_too_large(layout.rows, layout.columns) or sample_bits > MOST_BYTES * 8:
            raise DecodeError(DerivativeReason.TOO_LARGE, "a frame is larger than 512 megapixels")

    def _native_frame(self, index: int) -> type_frame:
        bits = native.frame_bits(self.layout)
        begin = index * bits
        first, last = begin // 8, -(-(begin + bits) // 8)
        swaps = native.swaps_bytes(self.layout, self._pixels)
        if swaps:  # bytes come in pairs: begin and end at an even one
            first, last = first - first % 2, last + last % 2
        self._file.stream.seek(self._pixels.offset + first)
        data = self._file.stream.read(min(last, self._length) - first)
        if len(data) < -(-(begin + bits) // 8) - first:
            self.is_partial = True
        self.decoder = "native"
        samples = native.unpack(
            data,
            self.layout,
            skip_bits=begin - first * 8,
            is_little_endian=self._pixels.is_little_endian,
            keyword=self._pixels.keyword,
            swaps=swaps,
        )
        return self._meaning(samples, self.layout)

    def _compressed_frame(self, encapsulated: Encapsulated, index: int) -> type_frame:
        data = encapsulated.read(self._file.stream, index)
        stream = parse(data)
        if stream is not None and stream.rows and stream.columns:
            self._check_size(
                replace(
                    self.layout,
                    rows=stream.rows,
                    columns=stream.columns,
                    samples=max(1, stream.components),
                )
            )
        decoded = decoders.decode(data, self.transfer_syntax, self.layout)
        self.decoder = decoded.decoder
        self.is_partial = self.is_partial or decoded.is_partial
        samples, layout = decoded.samples, decoded.layout
        if samples.ndim == 1:  # native inside
            samples = native.unpack(
                samples.tobytes(),
                layout,
                skip_bits=0,
                is_little_endian=True,
                keyword="PixelData",
                swaps=False,
            )
        elif samples.ndim == 2 and samples.dtype.kind in "iu":
            samples = native.signed(samples, layout)
        if index == 0 or not self.layout.photometric_interpretation:
            self.layout = replace(
                self.layout, samples=layout.samples, bits_stored=layout.bits_stored
            )
        return self._meaning(samples, layout)

    def _meaning(self, samples: type_frame, layout: Layout) -> type_frame:
        if samples.ndim == 3:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                samples = rgb(samples, layout.photometric_interpretation, layout.bits_stored)
        return native.sized(samples, self.layout.rows, self.layout.columns)

    @property
    def modality(self) -> str:
        """Return the Modality, empty where it is absent."""
        return text(self.header, "Modality")
