"""From frames to pictures: 8 bits, one look for the whole clip.

A `FrameMapper` decides once, from the header and a sample of the frames, how an
object is shown, and then maps frame after frame, so that thumbnail and video of one
pass look alike and nothing flickers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingester.derivatives import colour, grayscale, voi
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.frames import FrameSource
from ingester.derivatives.grayscale import Modality, Rendering, Voi
from ingester.derivatives.values import functional_group, numbers, text
from ingester.model import type_json

type_picture = NDArray[np.uint8]

_MOST_SAMPLES = 16
_MOST_TABLES = 32
_BLOCK_VALUES = 2**22


@dataclass(frozen=True, slots=True)
class ThumbnailSettings:
    """The keys of `[thumbnails]`; those about the window hold for videos too."""

    documents: str = "render"
    prefer_voi_lut: tuple[str, ...] = ("MG", "DX", "CR")
    pet_inverse: bool = False
    overlays: bool = False


class FrameMapper:
    """Map the frames of one source to 8-bit pictures.

    Pictures are C-contiguous uint8 of shape (rows, columns) or (rows, columns, 3);
    all pictures of one source have the same shape.
    """

    def __init__(
        self, source: FrameSource, settings: ThumbnailSettings | None = None, *, lead: int = 0
    ) -> None:
        """Look at a source; *lead* is the frame whose window holds for the clip."""
        self._source = source
        self._settings = settings or ThumbnailSettings()
        self._lead = lead
        self._palette = self._find_palette()
        self._voi: Voi | None = None
        self._ignores_modality = False
        self._inverted = False
        self._padding: tuple[float, float] | None = None
        self._tables: dict[tuple[Modality, str], type_picture] = {}
        self._modality: Modality | None = None
        self._order = "<" if source.header.original_encoding[1] is not False else ">"

    @property
    def is_colour(self) -> bool:
        """Tell whether pictures have three samples a pixel."""
        return self._source.is_colour or self._palette is not None

    @property
    def detail(self) -> dict[str, type_json]:
        """Return what the record says of the window: meaningful after the first frame."""
        if self._voi is None:
            return {"window": None, "window_source": None}
        shows_window = self._voi.table is None and self._voi.source != "identity"
        window = [grayscale.finite(self._voi.centre), grayscale.finite(self._voi.width)]
        found: dict[str, type_json] = {
            "window": window if shows_window else None,
            "window_source": self._voi.source,
        }
        if self._voi.is_low_confidence:
            found["low_confidence"] = True
        return found

    def map(self, frame: NDArray[Any], index: int = 0) -> type_picture:
        """Return the picture of a frame; *index* (from 0) chooses its own rescale."""
        if frame.ndim == 3:
            return self._as_colour(colour.eight_bits(frame, self._source.layout.bits_stored))
        if self._palette is not None:
            table, first, threshold = self._palette
            picture = colour.mapped(frame, table, first)
            if threshold is not None:
                gray = self._gray(np.minimum(frame, threshold - 1), index)
                picture = np.where((frame >= threshold)[:, :, None], picture, gray[:, :, None])
            return np.ascontiguousarray(picture)
        picture = self._gray(frame, index)
        return self._as_colour(picture) if self._source.is_colour else picture

    def _as_colour(self, picture: type_picture) -> type_picture:
        """Keep one shape for a clip whose frames differ in kind."""
        if picture.ndim == 2 and self.is_colour:
            return np.ascontiguousarray(np.repeat(picture[:, :, None], 3, axis=2))
        return picture

    def _find_palette(self) -> tuple[type_picture, int, int | None] | None:
        header = self._source.header
        is_supplemental = text(header, "PixelPresentation").upper() in ("COLOR", "MIXED")
        if not self._source.is_palette and not is_supplemental:
            return None
        found = colour.palette(header)
        if found is None:
            return None
        table, first = found
        return table, first, None if self._source.is_palette else first

    def _gray(self, frame: NDArray[Any], index: int) -> type_picture:
        if self._voi is None:
            self._decide(frame, index)
        modality = self._modality_of(index)
        assert self._voi is not None
        rendering = Rendering(modality, self._voi, self._inverted, self._padding)
        if frame.dtype.kind in "iu" and frame.dtype.itemsize <= 2:
            key = (modality, frame.dtype.str)
            table = self._tables.get(key)
            if table is None:
                if len(self._tables) >= _MOST_TABLES:
                    self._tables.clear()
                table = self._tables[key] = rendering.table(frame.dtype)
            return np.take(table, np.ascontiguousarray(frame).view(f"u{frame.dtype.itemsize}"))
        result = np.empty(frame.shape, np.uint8)
        rows = max(1, _BLOCK_VALUES // max(1, frame.shape[1]))
        for start in range(0, frame.shape[0], rows):
            result[start : start + rows] = rendering.apply(frame[start : start + rows])
        return result

    def _modality_of(self, index: int) -> Modality:
        if self._ignores_modality:
            return Modality()
        header = self._source.header
        if self._modality is None or grayscale.has_frame_groups(header):
            self._modality = grayscale.modality_of(header, index, self._order)
        return self._modality

    def _decide(self, frame: NDArray[Any], index: int) -> None:
        """Choose the one window of the clip."""
        source = self._source
        header, layout = source.header, source.layout
        self._inverted = grayscale.is_inverted(header, layout.photometric_interpretation)
        if grayscale.is_for_processing(header):
            self._inverted = grayscale.is_processing_inverted(header, self._inverted)
        kind = text(header, "Modality").upper()
        if kind == "PT" and self._settings.pet_inverse:
            self._inverted = not self._inverted
        if layout.bits_stored == 1:
            self._voi = Voi("identity", 0.5, 1.0, "LINEAR_EXACT")
            self._ignores_modality = True
            return
        self._padding = grayscale.padding_range(header, layout)
        stored, shown = self._sample(frame, index)
        lead = grayscale.modality_of(header, self._lead, self._order)
        modality, self._voi = voi.choose_voi(
            header,
            layout,
            lead,
            stored,
            shown,
            frame=self._lead,
            prefer_table=kind in self._settings.prefer_voi_lut,
            order=self._order,
        )
        self._ignores_modality = modality is not lead

    def _sample(
        self, frame: NDArray[Any], index: int
    ) -> tuple[grayscale.type_values, grayscale.type_values]:
        """Return values of frames evenly spaced over the clip, stored and rescaled."""
        stored: list[grayscale.type_values] = []
        shown: list[grayscale.type_values] = []
        for place in self._sampled_indices(index):
            try:
                part = frame if place == index else self._source.frame(place)
            except DecodeError:
                continue  # a clip is judged by the frames that can be read
            if part.ndim != 2:
                continue
            kept = voi.without_padding(voi.sample([part]), self._padding)
            stored.append(kept)
            shown.append(grayscale.modality_of(self._source.header, place, self._order).apply(kept))
        return np.concatenate(stored), np.concatenate(shown)

    def _sampled_indices(self, index: int) -> Sequence[int]:
        count = self._source.number_of_frames
        if count <= _MOST_SAMPLES:
            return sorted({*range(count), index})
        spaced = {round(i * (count - 1) / (_MOST_SAMPLES - 1)) for i in range(_MOST_SAMPLES)}
        return sorted({*spaced, index})


def pixel_aspect(source: FrameSource, frame: int) -> float:
    """Return the height of a pixel over its width, 1 where it is near or absurd."""
    header = source.header
    measures = functional_group(header, "PixelMeasuresSequence", frame)
    for where, keyword in (
        (header, "PixelAspectRatio"),
        (measures, "PixelSpacing"),
        (header, "PixelSpacing"),
        (header, "ImagerPixelSpacing"),
        (header, "NominalScannedPixelSpacing"),
    ):
        pair = numbers(where, keyword)
        if len(pair) < 2 or not pair[0] or not pair[1] or pair[0] < 0 or pair[1] < 0:
            continue
        ratio = pair[0] / pair[1]
        return ratio if abs(ratio - 1) > 0.01 and 0.1 < ratio < 10 else 1.0
    return 1.0
