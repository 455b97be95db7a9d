"""The thumbnail of an object: of its pixels, of its document, or a card.

For an object that gets a video too, one pass over the frames makes both:

    with FrameSource(path) as source:
        maker = ThumbnailMaker(source, settings)
        for index, frame in enumerate(source.frames()):
            picture = maker.mapper.map(frame, index)
            maker.offer(index, picture)
            ...                                   # and into the video
        thumbnail = maker.finish()

For all others, and where that failed, `render_thumbnail(path, settings)` does
everything and always returns something: at the least a card.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from ingester.derivatives import card, decoders, documents, icc, icon, kinds
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.frames import FrameSource
from ingester.derivatives.mapping import (
    FrameMapper,
    ThumbnailSettings,
    pixel_aspect,
    type_picture,
)
from ingester.derivatives.reading import open_object
from ingester.derivatives.values import numbers, text, value
from ingester.model import DerivativeReason, Status, type_json

EDGE = 256
_UPSCALED_BELOW = 128
_QUALITY = 85
_NEAR_BLACK = 2.0
_SMALL_SCINTIGRAM = 64
_WITH_TEXT = frozenset(("US", "SC", "ES", "XC", "OT", "DOC"))
_SKIPPED = (DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX, DerivativeReason.TOO_LARGE)

__all__ = [
    "Thumbnail",
    "ThumbnailMaker",
    "ThumbnailSettings",
    "card_thumbnail",
    "document_thumbnail",
    "render_thumbnail",
    "representative_frames",
]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A finished JPEG and what the record says of it."""

    jpeg: bytes
    status: Status
    reason: DerivativeReason | None
    detail: dict[str, type_json]


def render_thumbnail(path: str | Path, settings: ThumbnailSettings | None = None) -> Thumbnail:
    """Make the thumbnail of the object at *path*, a card at the least.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    settings = settings or ThumbnailSettings()
    try:
        with FrameSource(path) as source:
            return thumbnail_of_frames(source, settings)
    except DecodeError as error:
        if error.reason is DerivativeReason.NO_PIXELS and settings.documents == "render":
            document = document_thumbnail(path)
            if document is not None:
                return document
        return card_thumbnail(path, error.reason)
    except MemoryError:
        return card_thumbnail(path, DerivativeReason.TOO_LARGE)


def thumbnail_of_frames(source: FrameSource, settings: ThumbnailSettings) -> Thumbnail:
    """Make the thumbnail of a source from as few frames as possible.

    Raises
    ------
    DecodeError
        None of the frames that would do can be decoded.
    """
    still = kinds.still_of(source, settings)
    if still is not None:
        is_smooth = text(source.header, "Modality").upper() == "NM"
        image = reduced(still.picture, pixel_aspect(source, still.frame), is_smooth=is_smooth)
        return _made_of_pixels(source, image, still.frame, still.detail)
    maker = ThumbnailMaker(source, settings)
    failure: DecodeError | None = None
    for index in maker.candidates:
        try:
            maker.offer(index, maker.mapper.map(source.frame(index), index))
        except DecodeError as error:
            failure = failure or error
            continue
        if maker.is_satisfied:
            break
    if failure is not None and not maker.has_picture:
        raise failure
    return maker.finish()


def card_thumbnail(path: str | Path, reason: DerivativeReason | None) -> Thumbnail:
    """Make the card of an object, or the one that stands in for its picture.

    An object without pixels (`no-pixels` or None) has its card as intended picture.
    """
    is_intended = reason in (None, DerivativeReason.NO_PIXELS)
    try:
        with open_object(path) as found:
            header = found.header
            if is_intended and not found.is_whole:
                is_intended, reason = False, DerivativeReason.CORRUPT_PIXELS
    except DecodeError as error:
        header, is_intended, reason = Dataset(), False, error.reason
    picture = card.draw(
        header,
        None if is_intended else reason,
        icon=None if is_intended else icon.icon_image(header),
    )
    detail: dict[str, type_json] = {
        "rendering": "card",
        "frame": None,
        "window": None,
        "window_source": None,
        "decoder": None,
        "width": picture.width,
        "height": picture.height,
        "versions": _versions(""),
    }
    if is_intended:
        return Thumbnail(encoded(picture), Status.MADE, None, detail)
    status = Status.SKIPPED if reason in _SKIPPED else Status.FAILED
    return Thumbnail(encoded(picture), status, reason, detail)


def document_thumbnail(path: str | Path) -> Thumbnail | None:
    """Render a report or a waveform, None where the object is neither or is damaged."""
    with open_object(path) as found:
        image = documents.document_image(found.header) if found.is_whole else None
    if image is None:
        return None
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    detail: dict[str, type_json] = {
        "rendering": "document",
        "frame": None,
        "window": None,
        "window_source": None,
        "decoder": None,
        "width": image.width,
        "height": image.height,
        "versions": _versions(""),
        "phi": "possible",
    }
    return Thumbnail(encoded(image), Status.MADE, None, detail)


class ThumbnailMaker:
    """Choose among the frames that pass by, and make the thumbnail.

    Attributes
    ----------
    mapper : FrameMapper
        Maps frames to pictures, for the video too.
    candidates : tuple[int, ...]
        The frames (from 0) that would do, the preferred one first.
    """

    def __init__(self, source: FrameSource, settings: ThumbnailSettings | None = None) -> None:
        self._source = source
        self._settings = settings or ThumbnailSettings()
        self.candidates = representative_frames(source.header, source.number_of_frames)
        self.mapper = FrameMapper(source, self._settings, lead=self.candidates[0])
        self._offered: dict[int, tuple[Image.Image, bool]] = {}

    @property
    def has_picture(self) -> bool:
        """Tell whether any candidate has been offered."""
        return bool(self._offered)

    @property
    def is_satisfied(self) -> bool:
        """Tell whether a candidate that is not near-black has been offered."""
        return any(shows_something for _, shows_something in self._offered.values())

    def offer(self, index: int, picture: type_picture) -> None:
        """Keep a picture, made small, if it is a candidate."""
        if index not in self.candidates or index in self._offered:
            return
        shows_something = float(picture[::4, ::4].std()) >= _NEAR_BLACK
        self._offered[index] = (self._reduced(picture, index), shows_something)

    def finish(self) -> Thumbnail:
        """Return the thumbnail of the best frame seen.

        Raises
        ------
        DecodeError
            No candidate was offered.
        """
        offered = [index for index in self.candidates if index in self._offered]
        if not offered:
            raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "no frame could be read")
        chosen = next((index for index in offered if self._offered[index][1]), offered[0])
        image = self._offered[chosen][0]
        return _made_of_pixels(self._source, image, chosen, self.mapper.detail)

    def _reduced(self, picture: type_picture, index: int) -> Image.Image:
        is_smooth = text(self._source.header, "Modality").upper() == "NM"
        return reduced(picture, pixel_aspect(self._source, index), is_smooth=is_smooth)


def _made_of_pixels(
    source: FrameSource, image: Image.Image, frame: int, window: dict[str, type_json]
) -> Thumbnail:
    image = icc.as_srgb(image, source.header)
    detail: dict[str, type_json] = {
        "rendering": "pixels",
        "frame": frame + 1,
        **window,
        "decoder": source.decoder,
        "width": image.width,
        "height": image.height,
        "versions": _versions(source.decoder),
    }
    if may_show_text(source.header):
        detail["phi"] = "possible"
    if source.is_partial:
        detail["partial"] = True
    return Thumbnail(encoded(image), Status.MADE, None, detail)


def representative_frames(header: Dataset, count: int) -> tuple[int, ...]:
    """Return the frames (from 0) to try for a thumbnail, the best first.

    References
    ----------
    Representative Frame Number, PS3.3 C.7.6.6; Frame Numbers of Interest, C.7.6.9.
    """
    wanted: list[int] = []
    for keyword in ("RepresentativeFrameNumber", "FrameNumbersOfInterest"):
        stated = [int(each) - 1 for each in numbers(header, keyword)[:1] if each is not None]
        wanted += [each for each in stated if 0 <= each < count]
    is_pages = value(header, "PageNumberVector") is not None or text(header, "Modality") == "DOC"
    if count >= 8 and not is_pages:
        wanted.append(count // 2)
    else:
        wanted.append(0)
    wanted += [count // 4, 3 * count // 4, 0]
    return tuple(dict.fromkeys(wanted))


def reduced(picture: type_picture, aspect: float = 1.0, *, is_smooth: bool = False) -> Image.Image:
    """Return a picture with its long edge at 256, square pixels, small ones enlarged.

    Only pictures of less than 128 px are enlarged, by whole factors so that their
    pixels stay crisp; *is_smooth* (scintigrams) enlarges them by interpolation.
    """
    image = Image.fromarray(np.ascontiguousarray(picture))
    width, height = float(image.width), float(image.height)
    if aspect > 1:
        height *= aspect
    else:
        width /= aspect
    long_edge = max(width, height)
    if long_edge < _UPSCALED_BELOW:
        if is_smooth and long_edge <= _SMALL_SCINTIGRAM:
            scale, method = EDGE / long_edge, Image.Resampling.BICUBIC
        else:
            scale = float(EDGE // long_edge)
            is_exact = aspect == 1.0
            method = Image.Resampling.NEAREST if is_exact else Image.Resampling.BICUBIC
    else:
        scale, method = min(1.0, EDGE / long_edge), Image.Resampling.BICUBIC
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == image.size:
        return image
    return image.resize(size, method, reducing_gap=2.0)


def encoded(image: Image.Image) -> bytes:
    """Return a JPEG: baseline, 4:4:4, and nothing in it but the picture."""
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    out = io.BytesIO()
    options: dict[str, Any] = {"subsampling": 0} if image.mode == "RGB" else {}
    image.save(out, "JPEG", quality=_QUALITY, optimize=True, **options)
    return out.getvalue()


def may_show_text(header: Dataset) -> bool:
    """Tell whether patient text may be burned into the pixels, as far as one can know."""
    is_denied = text(header, "BurnedInAnnotation").upper() == "NO"
    return not is_denied or text(header, "Modality").upper() in _WITH_TEXT


def _versions(decoder: str) -> dict[str, str]:
    return {"Pillow": version("Pillow"), **decoders.versions(decoder)}
