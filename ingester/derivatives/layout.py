"""What a frame's samples mean, as the header says and the data corrects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layout:
    """What the header says of a frame's samples."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    photometric_interpretation: str
    planar_configuration: int = 0
    high_bit: int | None = None


def frame_bytes(layout: Layout) -> int:
    """Return the bytes of one native frame."""
    bits = layout.rows * layout.columns * layout.samples * layout.bits_allocated
    return (bits + 7) // 8


@dataclass(frozen=True, slots=True)
class Decoded:
    """Samples as (rows, columns) or (rows, columns, samples), and what they mean.

    `layout` is corrected by what the codestream says; `is_partial` says that the
    codestream was cut short and the rest is made up.
    """

    samples: NDArray[Any]
    layout: Layout
    decoder: str
    is_partial: bool = False
