"""Which object gets a video, of which kind, in which order of frames.

Every object gets a thumbnail; a video is for what moves: cines, rotations and,
by option, the slices of a volume one after the other (`scroll`).  Page scans,
whole slide images, segmentations, dose grids and parametric maps have many frames
and no motion.  All here is pure over the header: pixels are not looked at.

References
----------
PS3.3 C.7.6.6 (Frame Increment Pointer), C.7.6.16 (functional groups),
C.8.4.8 (NM Multi-frame), C.8.12.4 (WSI).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from ingester.derivatives.values import (
    functional_group,
    integer,
    item,
    items,
    number,
    numbers,
    text,
    value,
    values,
)
from ingester.model import DerivativeReason


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """What a site may choose about videos (`[videos]`)."""

    scroll: bool = True
    hevc: Literal["transcode", "copy"] = "transcode"
    audio: Literal["drop", "copy"] = "drop"
    trim: bool = False
    sweep: bool = False
    prefer_recommended_rate: bool = False
    min_seconds: float = 0
    max_edge: int = 1920
    max_frames: int = 5000


class Motion(StrEnum):
    """What moves in a video (`detail.kind`)."""

    CINE = "cine"  # time
    ROTATE = "rotate"  # the camera
    SCROLL = "scroll"  # the plane


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """Either the motion to show, in `order` (stored order where None), or why none."""

    motion: Motion | None = None
    reason: DerivativeReason | None = None
    order: tuple[int, ...] | None = None
    is_stream: bool = False  # the object holds a video already


#: MPEG-2, H.264 and HEVC (PS3.5 8.2.5 to 8.2.12), the fragmentable kinds too.
_STREAMS = {f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109)}
_STREAMS |= {f"{each}.1" for each in _STREAMS}
_SMPTE_2110 = "1.2.840.10008.1.2.7."

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_STILL_CLASSES = {
    _STORAGE + "77.1.6",  # whole slide
    _STORAGE + "66.4",  # segmentation
    _STORAGE + "66.7",  # label map segmentation
    _STORAGE + "481.2",  # RT dose
    _STORAGE + "30",  # parametric map
}
_VOLUME_CLASSES = {
    *(_STORAGE + each for each in ("2.1", "2.2")),  # enhanced and legacy converted CT
    *(_STORAGE + each for each in ("4.1", "4.3", "4.4")),  # the same of MR
    *(_STORAGE + each for each in ("130", "128.1")),  # the same of PET
    *(_STORAGE + each for each in ("13.1.1", "13.1.2")),  # 3D angiography, craniofacial
    *(_STORAGE + each for each in ("13.1.3", "13.1.4", "13.1.5")),  # tomosynthesis
    *(_STORAGE + each for each in ("77.1.5.4", "77.1.5.7", "77.1.5.8")),  # retina in depth
    _STORAGE + "6.2",  # enhanced ultrasound volume
}
_SECONDARY_CAPTURE = _STORAGE + "7"
_NUCLEAR = _STORAGE + "20"

_PAGE_NUMBER_VECTOR = 0x00182001
_SLICE_VECTOR = 0x00540080
_ROTATION_VECTORS = {0x00540050, 0x00540090}  # rotation, angular view
_TIME_VECTORS = {0x00540030, 0x00540060, 0x00540070}  # phase, R-R interval, time slot


def plan_video(
    ds: Dataset, *, frames: int, has_pixels: bool, transfer_syntax: str, scroll: bool = True
) -> VideoPlan:
    """Return what the video of an object of *frames* frames shows, or why there is none."""
    if not has_pixels or transfer_syntax.startswith(_SMPTE_2110):
        return VideoPlan(reason=DerivativeReason.NO_PIXELS)
    if transfer_syntax in _STREAMS:
        return VideoPlan(Motion.CINE, is_stream=True)
    if frames < 2:
        return VideoPlan(reason=DerivativeReason.SINGLE_FRAME)
    if _is_still(ds):
        return VideoPlan(reason=DerivativeReason.NOT_A_CINE)
    motion = _motion(ds, frames)
    if motion is None or (motion is Motion.SCROLL and not scroll):
        return VideoPlan(reason=DerivativeReason.NOT_A_CINE)
    order = _stack_order(ds, frames) if motion is Motion.SCROLL else None
    return VideoPlan(motion, order=order)


def is_video_syntax(transfer_syntax: str) -> bool:
    """Say whether the pixel data of this transfer syntax is a video stream."""
    return transfer_syntax in _STREAMS


def _is_still(ds: Dataset) -> bool:
    """Say whether the frames are tiles, labels, doses or pages."""
    sop_class = text(ds, "SOPClassUID")
    if sop_class in _STILL_CLASSES or value(ds, "TotalPixelMatrixColumns") is not None:
        return True
    if text(ds, "DimensionOrganizationType").startswith("TILED"):
        return True
    modality = text(ds, "Modality")
    if _PAGE_NUMBER_VECTOR in _pointer(ds) or modality == "DOC":
        return True
    is_capture = sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + ".")
    return is_capture and modality in ("OT", "") and not _states_time(ds)


def _pointer(ds: Dataset) -> set[int]:
    return {int(each) for each in values(ds, "FrameIncrementPointer") if isinstance(each, int)}


def _states_time(ds: Dataset) -> bool:
    """Say whether the header gives the frames a time at all."""
    keywords = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate")
    return any(values(ds, each) for each in keywords)


def _motion(ds: Dataset, frames: int) -> Motion | None:
    sop_class, modality = text(ds, "SOPClassUID"), text(ds, "Modality")
    if sop_class == _NUCLEAR or modality == "NM":
        return _nuclear_motion(ds)
    if _SLICE_VECTOR in _pointer(ds):
        return Motion.SCROLL
    if sop_class in _VOLUME_CLASSES:
        return _volume_motion(ds, frames)
    if modality == "MG" or (modality in ("CT", "MR", "PT", "OPT") and not _states_time(ds)):
        return Motion.SCROLL
    return Motion.CINE


def _nuclear_motion(ds: Dataset) -> Motion | None:
    """Return what an NM object shows; by its image type where no pointer says."""
    named = _pointer(ds)
    if _ROTATION_VECTORS & named:
        return Motion.ROTATE
    if _SLICE_VECTOR in named:
        return Motion.SCROLL
    if _TIME_VECTORS & named:
        return Motion.CINE
    types = [str(each).strip().upper() for each in values(ds, "ImageType")]
    kind = types[2] if len(types) > 2 else ""
    if kind.startswith("RECON"):
        return Motion.SCROLL
    if kind in ("TOMO", "GATED TOMO"):
        return Motion.ROTATE
    if kind in ("DYNAMIC", "GATED") or _states_time(ds):
        return Motion.CINE
    return None  # static and whole body views: detectors and energy windows


def _volume_motion(ds: Dataset, frames: int) -> Motion:
    """Return scroll, or cine where one location is seen at several times."""
    places = {None if each is None else tuple(each) for each in _positions(ds, frames)}
    is_one_place = len(places) <= 1
    return Motion.CINE if is_one_place and _temporal_positions(ds) >= 2 else Motion.SCROLL


def _temporal_positions(ds: Dataset) -> int:
    """Return how many moments the frames show, as far as the header tells."""
    groups = items(ds, "PerFrameFunctionalGroupsSequence")
    keywords = (
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    )
    return max(
        len({number(item(each, sequence), keyword) for each in groups} - {None})
        for sequence, keyword in keywords
    )


def _positions(ds: Dataset, frames: int) -> list[list[float | None] | None]:
    """Return each frame's image position (mm), None where it states none."""
    count = min(frames, len(items(ds, "PerFrameFunctionalGroupsSequence")))
    found: list[list[float | None] | None] = []
    for frame in range(count):
        group = functional_group(ds, "PlanePositionSequence", frame)
        position = numbers(group, "ImagePositionPatient")
        found.append(position if len(position) == 3 else None)
    return found


def _stack_order(ds: Dataset, frames: int) -> tuple[int, ...] | None:
    """Return the frames in order along one stack, or None for the stored order."""
    slices = [integer_or_none(each) for each in values(ds, "SliceVector")]
    if len(slices) == frames:
        return _sorted_if_distinct(slices)
    distances = _distances(ds, frames)
    if distances is None:
        return None
    order = _sorted_if_distinct(distances)
    by_index = _dimension_order(ds, frames)
    if order is not None and by_index in (order, order[::-1]):
        return by_index  # one stack, and the object says at which end it begins
    return order


def integer_or_none(raw: object) -> int | None:
    """Return an integer of a vector, None where it is something else."""
    return int(raw) if isinstance(raw, int | float) else None


def _sorted_if_distinct(keys: Sequence[float | None]) -> tuple[int, ...] | None:
    known = [each for each in keys if each is not None]
    if len(known) != len(keys) or len(set(known)) != len(keys):
        return None
    order = tuple(sorted(range(len(known)), key=known.__getitem__))
    return None if order == tuple(range(len(order))) else order


def _distances(ds: Dataset, frames: int) -> list[float] | None:
    """Return how far (mm) each frame lies along the normal, if all planes are parallel."""
    positions = _positions(ds, frames)
    if len(positions) != frames:
        return None
    orientations = set()
    for frame in range(frames):
        group = functional_group(ds, "PlaneOrientationSequence", frame)
        found = numbers(group, "ImageOrientationPatient")
        orientations.add(tuple(None if each is None else round(each, 4) for each in found))
    if len(orientations) != 1:
        return None
    only = orientations.pop()
    if len(only) != 6 or None in only or any(each is None or None in each for each in positions):
        return None
    normal = np.cross(np.array(only[:3], float), np.array(only[3:], float))
    return [round(float(np.dot(np.array(each, float), normal)), 3) for each in positions]


def _dimension_order(ds: Dataset, frames: int) -> tuple[int, ...] | None:
    """Return the frames sorted by their dimension indices, where all state some."""
    indices = []
    for group in items(ds, "PerFrameFunctionalGroupsSequence")[:frames]:
        content = item(group, "FrameContentSequence")
        indices.append(tuple(numbers(content, "DimensionIndexValues")))
    if len(set(indices)) != frames or any(not each or None in each for each in indices):
        return None
    return tuple(sorted(range(frames), key=lambda frame: [each or 0 for each in indices[frame]]))


@dataclass(frozen=True, slots=True)
class Playback:
    """What the header asks of a player: recorded, and applied only by option."""

    trim: tuple[int, int] | None  # first and last frame, counted from 1
    is_sweep: bool  # forth and back

    @classmethod
    def of(cls, ds: Dataset, frames: int) -> Playback:
        """Read Start Trim, Stop Trim and Preferred Playback Sequencing."""
        start, stop = integer(ds, "StartTrim"), integer(ds, "StopTrim")
        is_valid = start is not None and stop is not None and 1 <= start < stop <= frames
        trim = (start, stop) if is_valid and start is not None and stop is not None else None
        return cls(trim, integer(ds, "PreferredPlaybackSequencing") == 1)


def playing_order(
    order: Sequence[int], playback: Playback, *, trim: bool, sweep: bool
) -> tuple[int, ...]:
    """Return the frames to play, with the range cut and the way back appended by option."""
    chosen = tuple(order)
    if trim and playback.trim is not None:
        start, stop = playback.trim
        chosen = chosen[start - 1 : stop]
    if sweep and playback.is_sweep:
        chosen += chosen[-2:0:-1]
    return chosen
