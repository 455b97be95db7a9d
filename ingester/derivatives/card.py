"""The type card: what stands in where there is no picture.

256 × 256, neutral: the modality code large, the name of the SOP class small, a line
for why there is no more.  Nothing on it comes from the object except by way of lists
of the Standard's own words, so no patient text can get onto it.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ingester.derivatives.values import text
from ingester.model import DerivativeReason

EDGE = 256
_BACKGROUND = (58, 62, 70)
_PANEL = (72, 77, 87)
_INK = (236, 238, 241)
_FAINT = (176, 182, 192)

#: The defined terms of Modality, present and retired (PS3.3 C.7.3.1.1.1).
MODALITIES = frozenset(
    [
        "ANN",
        "AR",
        "ASMT",
        "AU",
        "BDUS",
        "BI",
        "BMD",
        "CFM",
        "CR",
        "CT",
        "CTPROTOCOL",
        "DG",
        "DMS",
        "DOC",
        "DX",
        "ECG",
        "EEG",
        "EMG",
        "EOG",
        "EPS",
        "ES",
        "FID",
        "GM",
        "HC",
        "HD",
        "IO",
        "IOL",
        "IVOCT",
        "IVUS",
        "KER",
        "KO",
        "LEN",
        "LS",
        "M3D",
        "MG",
        "MR",
        "NM",
        "OAM",
        "OCT",
        "OP",
        "OPM",
        "OPT",
        "OPTBSV",
        "OPTENF",
        "OPV",
        "OSS",
        "OT",
        "PA",
        "PLAN",
        "POS",
        "PR",
        "PT",
        "PX",
        "REG",
        "RESP",
        "RF",
        "RG",
        "RTDOSE",
        "RTIMAGE",
        "RTINTENT",
        "RTPLAN",
        "RTRAD",
        "RTRECORD",
        "RTSEGANN",
        "RTSTRUCT",
        "RWV",
        "SEG",
        "SM",
        "SMR",
        "SR",
        "SRF",
        "STAIN",
        "TEXTUREMAP",
        "TG",
        "US",
        "VA",
        "XA",
        "XAPROTOCOL",
        "XC",
        "XRV",
        "AS",
        "CD",
        "CF",
        "CP",
        "CS",
        "DD",
        "DF",
        "DM",
        "DS",
        "EC",
        "FA",
        "FS",
        "LP",
        "MA",
        "MS",
        "OPR",
        "ST",
        "VF",
    ]
)

_WORDS = {
    DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX: "No decoder for these pixels",
    DerivativeReason.CORRUPT_PIXELS: "Pixel data cannot be read",
    DerivativeReason.TOO_LARGE: "Too large to show",
    DerivativeReason.TIMEOUT: "Rendering took too long",
    DerivativeReason.DECODER_CRASHED: "The decoder crashed",
    DerivativeReason.ENCODER_FAILED: "The encoder failed",
}


def modality_code(header: Dataset) -> str:
    """Return the Modality if it is a term of the Standard, else "DICOM"."""
    code = text(header, "Modality").upper()
    return code if code in MODALITIES else "DICOM"


def class_name(header: Dataset) -> str:
    """Return the name of the SOP class if it is one of the Standard's."""
    uid = UID(text(header, "SOPClassUID"))
    if not uid or uid.name == uid or uid.type != "SOP Class":
        return "Unknown or private object"
    return uid.name.replace(" Storage", "").replace(" - For", ", for")


def draw(
    header: Dataset,
    reason: DerivativeReason | None = None,
    *,
    icon: Image.Image | None = None,
    lines: Sequence[str] = (),
) -> Image.Image:
    """Return the card of an object, with its icon image in place of the code."""
    image = Image.new("RGB", (EDGE, EDGE), _BACKGROUND)
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((12, 12, EDGE - 13, EDGE - 13), radius=14, fill=_PANEL)
    if icon is not None:
        icon = icon.convert("RGB")
        scale = min(120 / icon.width, 112 / icon.height)
        size = max(1, round(icon.width * scale)), max(1, round(icon.height * scale))
        icon = icon.resize(size, Image.Resampling.BICUBIC)
        image.paste(icon, ((EDGE - size[0]) // 2, 88 - size[1] // 2))
    else:
        code = modality_code(header)
        _centred(pen, code, 96, _fitting(pen, code, 72, EDGE - 48), _INK)
    font = ImageFont.load_default(15)
    names = _wrapped(pen, class_name(header), font, EDGE - 44)[:3]
    top = 158
    for line in (*names, *lines):
        _centred(pen, line, top, font, _FAINT)
        top += 20
    if reason in _WORDS:
        _centred(pen, _WORDS[reason], EDGE - 30, ImageFont.load_default(13), _INK)
    return image


type_font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _fitting(pen: ImageDraw.ImageDraw, words: str, size: int, width: int) -> type_font:
    while size > 12 and pen.textlength(words, ImageFont.load_default(size)) > width:
        size -= 4
    return ImageFont.load_default(size)


def _centred(
    pen: ImageDraw.ImageDraw, words: str, y: int, font: type_font, ink: tuple[int, int, int]
) -> None:
    pen.text((EDGE // 2, y), words, font=font, fill=ink, anchor="mm")


def _wrapped(pen: ImageDraw.ImageDraw, words: str, font: type_font, width: int) -> list[str]:
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and pen.textlength(longer, font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
