"""The typed columns of the index, taken from the elements of one data set.

A value that cannot be read as its column's type is None here and stays raw in the
JSON text.  Of several values the first one counts, but text is kept whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ingester.dicom.character_sets import shown
from ingester.dicom.dictionary import PIXEL_DATA, entry
from ingester.dicom.elements import Bulk, Value
from ingester.dicom.uid import UnsafeUid, validated_uid
from ingester.dicom.values import iso_date, iso_time, json_value, text_of
from ingester.model import (
    ImageAttributes,
    PatientAttributes,
    SeriesAttributes,
    StudyAttributes,
)

Root = Mapping[int, tuple[bytes, Value]]

_PIXELS = (PIXEL_DATA, 0x7FE00008, 0x7FE00009)
_NOTHING: tuple[bytes, Value] = (b"", b"")


@lru_cache(maxsize=16384)
def plain_text(vr: bytes, value: bytes, context: str) -> str | None:
    """Return the text without its padding, None where nothing is left."""
    text, is_whole = text_of(vr, value, context)
    stripped = (text if is_whole else shown(text)).strip(" \0")
    return stripped or None


def patient_of(root: Root, context: str, issuer: str) -> PatientAttributes:
    """Return the patient columns; *issuer* stands in where the file names none."""
    return PatientAttributes(
        patient_id=_text(root, 0x00100020, b"LO", context),
        issuer_of_patient_id=_text(root, 0x00100021, b"LO", context) or issuer or None,
        patient_name=_text(root, 0x00100010, b"PN", context),
        patient_birth_date=_date(root, 0x00100030),
        patient_sex=_text(root, 0x00100040, b"CS", context),
    )


def study_of(root: Root, context: str) -> StudyAttributes:
    """Return the study columns."""
    return StudyAttributes(
        study_date=_date(root, 0x00080020),
        study_time=_time(root, 0x00080030),
        study_id=_text(root, 0x00200010, b"SH", context),
        accession_number=_text(root, 0x00080050, b"SH", context),
        study_description=_text(root, 0x00081030, b"LO", context),
        referring_physician_name=_text(root, 0x00080090, b"PN", context),
        institution_name=_text(root, 0x00080080, b"LO", context),
    )


def series_of(root: Root, context: str) -> SeriesAttributes:
    """Return the series columns."""
    return SeriesAttributes(
        modality=_text(root, 0x00080060, b"CS", context),
        series_number=_number(root, 0x00200011, context),
        series_date=_date(root, 0x00080021),
        series_time=_time(root, 0x00080031),
        series_description=_text(root, 0x0008103E, b"LO", context),
        body_part_examined=_text(root, 0x00180015, b"CS", context),
        protocol_name=_text(root, 0x00181030, b"LO", context),
        manufacturer=_text(root, 0x00080070, b"LO", context),
        manufacturer_model_name=_text(root, 0x00081090, b"LO", context),
        station_name=_text(root, 0x00081010, b"SH", context),
        frame_of_reference_uid=_uid(root, 0x00200052),
    )


def image_of(root: Root, context: str) -> ImageAttributes:
    """Return the columns of the instance itself."""
    return ImageAttributes(
        instance_number=_number(root, 0x00200013, context),
        number_of_frames=_number(root, 0x00280008, context),
        rows=_number(root, 0x00280010, context),
        columns=_number(root, 0x00280011, context),
        samples_per_pixel=_number(root, 0x00280002, context),
        bits_allocated=_number(root, 0x00280100, context),
        bits_stored=_number(root, 0x00280101, context),
        photometric_interpretation=_text(root, 0x00280004, b"CS", context),
    )


def has_pixels(root: Root) -> bool:
    """Tell whether the object brings pixels (Float and Double Float ones too)."""
    for tag in _PIXELS:
        value = root.get(tag, _NOTHING)[1]
        if value and (type(value) is not Bulk or value.length):
            return True
    return False


def has_other_length(root: Root, image: ImageAttributes) -> bool:
    """Tell whether native Pixel Data is longer or shorter than the header says.

    References
    ----------
    PS3.5 §8.1.1; YBR_FULL_422 holds two samples per pixel (PS3.3 §C.7.6.3.1.2).
    """
    value = root.get(PIXEL_DATA, _NOTHING)[1]
    if type(value) is Bulk:
        if value.spans is not None:
            return False
        length = value.length
    else:
        length = len(value) if type(value) is bytes else 0
    if not length or image.rows is None or image.columns is None or image.bits_allocated is None:
        return False
    samples = image.samples_per_pixel or 1
    if image.photometric_interpretation == "YBR_FULL_422":
        samples = 2
    frames = image.number_of_frames or 1
    bits = image.rows * image.columns * samples * image.bits_allocated * frames
    expected = -(-bits // 8)
    return length != expected + (expected & 1)


# -- one value ---------------------------------------------------------------------------


def _text(root: Root, tag: int, vr: bytes, context: str) -> str | None:
    value = root.get(tag, _NOTHING)[1]
    return plain_text(vr, value, context) if value and type(value) is bytes else None


def _date(root: Root, tag: int) -> str | None:
    text = _text(root, tag, b"DA", "<")
    return iso_date(text) if text else None


def _time(root: Root, tag: int) -> str | None:
    text = _text(root, tag, b"TM", "<")
    return iso_time(text) if text else None


def _uid(root: Root, tag: int) -> str | None:
    value = root.get(tag, _NOTHING)[1]
    try:
        return validated_uid(value) if type(value) is bytes else None
    except UnsafeUid:
        return None


def _number(root: Root, tag: int, context: str) -> int | None:
    vr, value = root.get(tag, _NOTHING)
    if vr == b"UN":
        vr = entry(tag).vr
    return _integer(vr, value, context) if value and type(value) is bytes else None


@lru_cache(maxsize=16384)
def _integer(vr: bytes, value: bytes, context: str) -> int | None:
    # SQLite's integers have 64 bits; whatever is larger is no count of anything.
    text = json_value(vr, value, True, context)[0]
    first = text.strip("[]").split(",")[0]
    if not first.lstrip("-").isdigit():
        return None
    number = int(first)
    return number if abs(number) < 2**63 else None
