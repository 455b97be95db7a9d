"""What an archived object says of its patient, study and series, from its JSON header.

When a person makes another version current, the rows above it are filled anew from
what the index holds: no file need be read, or even be there.  The header was turned
into JSON and into typed columns by the same rules, so this road leads to the same
values (the tests compare the two).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from ingester.index.names import UNREADABLE
from ingester.model import PatientAttributes, SeriesAttributes, StudyAttributes

Attributes = Mapping[str, Any]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{6})?", re.ASCII)
_UID = re.compile(r"[0-9]([0-9.]{0,62}[0-9])?", re.ASCII)
#: A byte that could not be decoded: raw in the header, replaced in columns.
_RAW_BYTE = re.compile(r"\\x[0-9A-F]{2}")


def attributes_of(text: str) -> Attributes:
    """Return a header's JSON text as a mapping of keywords."""
    found: Attributes = json.loads(text)
    return found


def patient_of(said: Attributes, issuer: str) -> PatientAttributes:
    """Return the patient columns; *issuer* stands in where the object names none."""
    return PatientAttributes(
        patient_id=_text(said, "PatientID"),
        issuer_of_patient_id=_text(said, "IssuerOfPatientID") or issuer or None,
        patient_name=_text(said, "PatientName"),
        patient_birth_date=_date(said, "PatientBirthDate"),
        patient_sex=_text(said, "PatientSex"),
    )


def study_of(said: Attributes) -> StudyAttributes:
    """Return the study columns."""
    return StudyAttributes(
        study_date=_date(said, "StudyDate"),
        study_time=_time(said, "StudyTime"),
        study_id=_text(said, "StudyID"),
        accession_number=_text(said, "AccessionNumber"),
        study_description=_text(said, "StudyDescription"),
        referring_physician_name=_text(said, "ReferringPhysicianName"),
        institution_name=_text(said, "InstitutionName"),
    )


def series_of(said: Attributes) -> SeriesAttributes:
    """Return the series columns."""
    return SeriesAttributes(
        modality=_text(said, "Modality"),
        series_number=_integer(said, "SeriesNumber"),
        series_date=_date(said, "SeriesDate"),
        series_time=_time(said, "SeriesTime"),
        series_description=_text(said, "SeriesDescription"),
        body_part_examined=_text(said, "BodyPartExamined"),
        protocol_name=_text(said, "ProtocolName"),
        manufacturer=_text(said, "Manufacturer"),
        manufacturer_model_name=_text(said, "ManufacturerModelName"),
        station_name=_text(said, "StationName"),
        frame_of_reference_uid=_uid(said, "FrameOfReferenceUID"),
    )


def _text(said: Attributes, keyword: str) -> str | None:
    value = said.get(keyword)
    if value is None or isinstance(value, dict):
        return None
    # Several values against the rule: text is kept whole.
    values = value if isinstance(value, list) else [value]
    parts = ["" if each is None else _RAW_BYTE.sub(UNREADABLE, str(each)) for each in values]
    return "\\".join(parts).strip(" \0") or None


def _date(said: Attributes, keyword: str) -> str | None:
    value = said.get(keyword)
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        return None


def _time(said: Attributes, keyword: str) -> str | None:
    value = said.get(keyword)
    return value if isinstance(value, str) and _TIME.fullmatch(value) else None


def _integer(said: Attributes, keyword: str) -> int | None:
    value = said.get(keyword)
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _uid(said: Attributes, keyword: str) -> str | None:
    value = said.get(keyword)
    return value if isinstance(value, str) and _UID.fullmatch(value) else None
