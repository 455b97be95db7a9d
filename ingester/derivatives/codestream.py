"""What a compressed frame says of itself: size, components, precision, colour.

The header of the object may be wrong about the frame inside it; the codestream is
what the decoder obeys.  So its few leading bytes are read here, for the size check
before anything is decoded, for telling a wrong transfer syntax, and for the colour
of JPEG, where markers beat the Photometric Interpretation (PS3.5 §8.2.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """How a frame is compressed, as its first bytes tell."""

    JPEG = "jpeg"  # baseline, extended, progressive
    JPEG_LOSSLESS = "jpeg-lossless"
    JPEG_LS = "jpeg-ls"
    JPEG_2000 = "jpeg-2000"
    HTJ2K = "htj2k"
    JPEG_XL = "jpeg-xl"


@dataclass(frozen=True, slots=True)
class Codestream:
    """The parameters of a compressed frame."""

    family: Family
    rows: int
    columns: int
    components: int
    precision: int
    is_signed: bool = False
    component_ids: tuple[int, ...] = ()
    is_subsampled: bool = False
    adobe_transform: int | None = None
    has_jfif: bool = False
    process: int = 0  # the SOF marker's low byte
    is_reversible_colour: bool | None = None  # JPEG 2000: the component transform is used

    def photometric_interpretation(self, declared: str) -> str:
        """Return what the colour of a JPEG frame is, whatever is declared.

        References
        ----------
        Adobe's APP14 and JFIF's APP0 win, then component ids that spell RGB; what is
        left is as declared, but subsampled chroma can only be YCbCr.
        """
        if self.components != 3:
            return declared
        if self.adobe_transform is not None:
            return "YBR_FULL" if self.adobe_transform == 1 else "RGB"
        if self.component_ids in ((82, 71, 66), (114, 103, 98)):
            return "RGB"
        if self.has_jfif or self.is_subsampled:
            return "YBR_FULL"
        return declared if declared == "RGB" else "YBR_FULL"

    @property
    def libjpeg_colour(self) -> str:
        """Return the colour space that libjpeg would guess from the markers."""
        if self.components != 3:
            return ""
        if self.has_jfif:
            return "YBR_FULL"
        if self.adobe_transform is not None:
            return "RGB" if self.adobe_transform == 0 else "YBR_FULL"
        return "RGB" if self.component_ids == (82, 71, 66) else "YBR_FULL"


def parse(data: bytes) -> Codestream | None:
    """Return the parameters of a compressed frame, or None where it is none we know."""
    try:
        if data.startswith(b"\xff\xd8"):
            return _parse_jpeg(data)
        if data.startswith(b"\xff\x4f\xff\x51"):
            return _parse_jpeg_2000(data)
        if data.startswith(b"\x00\x00\x00\x0cjP  "):
            start = data.find(b"\xff\x4f\xff\x51")
            return _parse_jpeg_2000(data[start:]) if start > 0 else None
        if data.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
            return Codestream(Family.JPEG_XL, 0, 0, 0, 0)
    except (struct.error, IndexError):
        return None
    return None


def _markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start of its content, end) up to the first scan."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            position += 1
            continue
        marker = data[position + 1]
        if marker in (0xFF, 0x00) or 0xD0 <= marker <= 0xD8 or marker == 0x01:
            position += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        yield marker, position + 4, position + 2 + length
        if marker in (0xDA, 0xD9):
            return
        position += 2 + length


def _parse_jpeg(data: bytes) -> Codestream | None:
    adobe: int | None = None
    has_jfif = False
    for marker, start, end in _markers(data):
        if marker == 0xEE and data[start : start + 5] == b"Adobe" and end - start >= 12:
            adobe = data[start + 11]
        elif marker == 0xE0 and data[start : start + 4] == b"JFIF":
            has_jfif = True
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, count = struct.unpack_from(">BHHB", data, start)
            parts = [data[start + 6 + 3 * i : start + 9 + 3 * i] for i in range(count)]
            sampling = {part[1] for part in parts}
            # APP markers may stand behind the frame header too: look on for them.
            late = _late_colour(data, end) if adobe is None and not has_jfif else (adobe, has_jfif)
            return Codestream(
                family=Family.JPEG_LS
                if marker == 0xF7
                else Family.JPEG_LOSSLESS
                if marker in (0xC3, 0xC7, 0xCB, 0xCF)
                else Family.JPEG,
                rows=rows,
                columns=columns,
                components=count,
                precision=precision,
                component_ids=tuple(part[0] for part in parts),
                is_subsampled=len(sampling) > 1,
                adobe_transform=late[0],
                has_jfif=late[1],
                process=marker & 0x0F if marker != 0xF7 else 55,
            )
    return None


def _late_colour(data: bytes, start: int) -> tuple[int | None, bool]:
    adobe: int | None = None
    has_jfif = False
    for marker, begin, end in _markers(b"\xff\xd8" + data[start : start + 65536]):
        content = data[start + begin - 2 : start + end - 2]
        if marker == 0xEE and content[:5] == b"Adobe" and len(content) >= 12:
            adobe = content[11]
        elif marker == 0xE0 and content[:4] == b"JFIF":
            has_jfif = True
    return adobe, has_jfif


def _parse_jpeg_2000(data: bytes) -> Codestream | None:
    # SIZ follows SOC at once (ISO/IEC 15444-1 A.5.1).
    x1, y1, x0, y0 = struct.unpack_from(">LLLL", data, 8)
    count = struct.unpack_from(">H", data, 40)[0]
    depths = [data[42 + 3 * i] for i in range(min(count, 16))]
    steps = {(data[43 + 3 * i], data[44 + 3 * i]) for i in range(min(count, 16))}
    family = Family.JPEG_2000
    transform: bool | None = None
    for marker, start, _ in _markers(b"\xff\x4f" + data[2:4096]):
        if marker == 0x50:  # CAP: part 15 capabilities
            family = Family.HTJ2K
        elif marker == 0x52:  # COD: the multiple component transformation
            transform = data[start + 4] != 0
        elif marker == 0x90:
            break
    return Codestream(
        family=family,
        rows=y1 - y0,
        columns=x1 - x0,
        components=count,
        precision=(depths[0] & 0x7F) + 1,
        is_signed=bool(depths[0] & 0x80),
        is_subsampled=len(steps) > 1,
        is_reversible_colour=transform,
    )
