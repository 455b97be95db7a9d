"""Colour management for photographs and slides: from their ICC profile to sRGB.

Only thumbnails are converted; nothing is embedded in them (PS3.3 C.11.15).
"""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageCms
from pydicom.dataset import Dataset

from ingester.derivatives.values import item, text, value

_PHOTOGRAPHED = frozenset(("SM", "GM", "XC", "ES", "OP", "DMS"))
_MOST_PROFILE_BYTES = 4 * 2**20


def as_srgb(image: Image.Image, header: Dataset) -> Image.Image:
    """Return the image in sRGB, unchanged where there is no usable profile."""
    if image.mode != "RGB" or text(header, "Modality").upper() not in _PHOTOGRAPHED:
        return image
    profile = value(header, "ICCProfile")
    if not profile:
        profile = value(item(header, "OpticalPathSequence"), "ICCProfile")
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _MOST_PROFILE_BYTES:
        return image
    transform = _transform(profile)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
