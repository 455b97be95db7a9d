"""One file made watchable without any archive: `ingester convert FILE [OUT]`.

The same plan, the same frames, the same encoder as in the archive; only the still is
in full size, for somebody who converts wants the picture and not its stamp.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ingester import durable
from ingester.derivatives import kinds, transcode
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.frames import FrameSource
from ingester.derivatives.mapping import ThumbnailSettings, pixel_aspect
from ingester.derivatives.pipeline import Clip, planned
from ingester.derivatives.plan import VideoSettings, is_video_syntax
from ingester.derivatives.reading import ObjectFile, open_object
from ingester.derivatives.stream import open_stream
from ingester.derivatives.thumbnail import ThumbnailMaker, encoded, render_thumbnail
from ingester.model import DerivativeReason, Kind, type_json

_STILLS = (".jpg", ".jpeg")
_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Converted:
    """What was made of a file, and where it lies."""

    path: Path
    kind: Kind  # a still counts as a thumbnail, whatever its size
    detail: dict[str, type_json]


def convert(
    path: Path,
    out: Path | None = None,
    *,
    thumbnails: ThumbnailSettings | None = None,
    videos: VideoSettings | None = None,
) -> Converted:
    """Make an MP4 of a DICOM file that moves, a JPEG of any other.

    Without *out* it lies beside the file, under its name; with one, the ending chooses:
    `.jpg` asks for a still of a cine, `.mp4` insists on a video.

    Raises
    ------
    DecodeError
        It holds nothing that could be shown, or no video where one was asked for.
    FileExistsError
        There is a file of that name already, and nobody named it.
    OSError
        The file cannot be read, or the result not written.
    """
    thumbnails, videos = thumbnails or ThumbnailSettings(), videos or VideoSettings()
    wanted = out.suffix.lower() if out is not None else ""
    folder = (out or path).absolute().parent
    with tempfile.TemporaryDirectory(prefix=".ingester-convert-", dir=folder) as scratch:
        made = Path(scratch) / "made"
        kind, detail = Kind.THUMBNAIL, {}
        if wanted not in _STILLS:
            try:
                kind, detail = Kind.VIDEO, _video(path, made, thumbnails, videos)
            except DecodeError as error:
                if wanted == ".mp4" or error.reason not in (
                    DerivativeReason.NO_PIXELS,
                    DerivativeReason.SINGLE_FRAME,
                    DerivativeReason.NOT_A_CINE,
                ):
                    raise
                kind = Kind.THUMBNAIL
        if kind is Kind.THUMBNAIL:
            jpeg, detail = _still(path, made, thumbnails)
            durable.write_file(made, jpeg, _MODE)
        target = out or path.with_name(
            path.name.removesuffix(".dcm") + (".mp4" if kind is Kind.VIDEO else ".jpg")
        )
        if out is None and target.exists():
            raise FileExistsError(f"{target} exists already; name another file")
        made.chmod(_MODE)
        durable.replace(made, target)
    return Converted(target, kind, detail)


def _video(
    path: Path, made: Path, thumbnails: ThumbnailSettings, videos: VideoSettings
) -> dict[str, type_json]:
    with open_object(path) as found:
        if _is_stream(found):
            stream = open_stream(found, path, made.with_name("stream"))
            return transcode.make_video(stream, made, videos)[1]
        with FrameSource(found) as source:
            plan = planned(source, videos)
            if plan.reason is not None:
                raise DecodeError(plan.reason, "there is nothing in it that moves")
            clip = Clip.of(source, plan, videos)
            return clip.encode(ThumbnailMaker(source, thumbnails), made)


def _still(
    path: Path, made: Path, settings: ThumbnailSettings
) -> tuple[bytes, dict[str, type_json]]:
    """Return the representative picture in full size; a document or card as it comes."""
    with open_object(path) as found:
        if _is_stream(found):
            stream = open_stream(found, path, made.with_name("stream"))
            picture, number = transcode.first_picture(stream, made.with_name("picture"))
            image = _squared(Image.fromarray(picture), 1 / stream.facts.aspect)
            return encoded(image), _described(image, number)
        if found.pixels is not None and found.pixels.length != 0:
            with FrameSource(found) as source:
                image, number = _frame(source, settings)
            return encoded(image), _described(image, number)
    thumbnail = render_thumbnail(path, settings)
    return thumbnail.jpeg, thumbnail.detail


def _frame(source: FrameSource, settings: ThumbnailSettings) -> tuple[Image.Image, int]:
    still = kinds.still_of(source, settings)
    if still is not None:
        image, number = Image.fromarray(still.picture), still.frame
    else:
        maker = ThumbnailMaker(source, settings)
        number = maker.candidates[0]
        image = Image.fromarray(maker.mapper.map(source.frame(number), number))
    return _squared(image, pixel_aspect(source, number)), number


def _squared(image: Image.Image, aspect: float) -> Image.Image:
    """Return the picture with square pixels; *aspect* is their height over their width."""
    if abs(aspect - 1) <= 0.01:
        return image
    width, height = image.width, image.height
    size = (width, round(height * aspect)) if aspect > 1 else (round(width / aspect), height)
    return image.resize(size, Image.Resampling.BICUBIC)


def _described(image: Image.Image, number: int) -> dict[str, type_json]:
    return {
        "rendering": "pixels",
        "frame": number + 1,
        "width": image.width,
        "height": image.height,
    }


def _is_stream(found: ObjectFile) -> bool:
    return is_video_syntax(found.declared_syntax) and found.pixels is not None
