"""Arrival records by patient, study, series and instance number, without any file."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ingester.model import (
    ArrivalRecord,
    ImageAttributes,
    Instance,
    Outcome,
    PatientAttributes,
    Reason,
    SeriesAttributes,
    Stored,
    StudyAttributes,
    Version,
)
from tests.factory import uid

AT = "2026-11-22T10:00:00.000Z"


def at(second: int) -> str:
    return f"2026-11-22T10:{second // 60:02d}:{second % 60:02d}.000Z"


def header(
    patient: int = 1,
    study: int = 1,
    series: int = 1,
    instance: int = 1,
    *,
    attributes: dict[str, Any] | None = None,
    **overrides: Any,
) -> Instance:
    """Return a header; *overrides* are columns of patients, studies, series or images.

    Unless *attributes* are given, the JSON header says what the columns say.
    """
    values: dict[str, Any] = {
        "patient_id": f"P{patient:04d}",
        "patient_name": f"Family{patient}^Given{patient}",
        "patient_birth_date": "1970-01-31",
        "patient_sex": "O",
        "study_date": f"2024-01-{study:02d}",
        "study_time": "10:15:30",
        "study_id": str(study),
        "accession_number": f"A{patient:03d}{study:03d}",
        "study_description": "Abdomen",
        "modality": "CT",
        "series_number": series,
        "series_description": "Portal venous",
        "instance_number": instance,
        "rows": 16,
        "columns": 16,
        **overrides,
    }

    def of(cls: type[Any]) -> Any:
        return cls(**{name: values[name] for name in cls.__slots__ if name in values})

    sop = uid(patient, study, series, instance)
    return Instance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=values.get("sop_instance_uid", sop),
        study_instance_uid=values.get("study_instance_uid", uid(patient, study)),
        series_instance_uid=values.get("series_instance_uid", uid(patient, study, series)),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient=of(PatientAttributes),
        study=of(StudyAttributes),
        series=of(SeriesAttributes),
        image=of(ImageAttributes),
        attributes=json.dumps(attributes or {"SOPInstanceUID": sop, **_keywords(values)}),
        has_pixels=True,
    )


def _keywords(columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns by their DICOM keywords: `patient_id` is PatientID."""
    parts = {"id": "ID", "of": "Of", "uid": "UID"}
    return {
        "".join(parts.get(part, part.capitalize()) for part in name.split("_")): value
        for name, value in columns.items()
        if value is not None
    }


def archived(
    instance: Instance,
    *,
    arrival_id: str | None = None,
    outcome: Outcome = Outcome.ARCHIVED,
    source: str = "MANUAL",
    batch: str | None = None,
    second: int = 0,
    detail: dict[str, Any] | None = None,
    salt: str = "",
) -> ArrivalRecord:
    """Return the record of an instance that was archived, a variant or in conflict."""
    version = Version.CURRENT if outcome is Outcome.ARCHIVED else Version(outcome.value)
    sha256 = hashlib.sha256((instance.sop_instance_uid + salt).encode()).hexdigest()
    name = instance.sop_instance_uid
    if version is not Version.CURRENT:
        name += "~" + sha256[:12]
    folder = f"{source}/{(instance.study.study_date or '0000-00-00').replace('-', '/')}"
    return ArrivalRecord(
        arrival_id=arrival_id or "a-" + sha256[:22],
        source=source,
        batch=batch,
        original_name="IM0001",
        arrived_at=at(second),
        finished_at=at(second),
        size_bytes=1000,
        sha256=sha256,
        outcome=outcome,
        detail=detail or {},
        instance=instance,
        stored=Stored(
            path=f"{folder}/{instance.study_instance_uid}/{name}.dcm",
            sha256=sha256,
            data_set_sha256=hashlib.sha256(sha256.encode()).hexdigest(),
            size_bytes=1000,
            archived_at=at(second),
            version=version,
        ),
    )


def set_aside(
    arrival_id: str,
    reason: Reason = Reason.INCOMPLETE,
    *,
    batch: str | None = None,
    second: int = 0,
    original_name: str = "IM0002",
) -> ArrivalRecord:
    """Return the record of a quarantined or foreign file."""
    return ArrivalRecord(
        arrival_id=arrival_id,
        source="MANUAL",
        batch=batch,
        original_name=original_name,
        arrived_at=at(second),
        finished_at=at(second),
        size_bytes=10,
        sha256="0" * 64,
        outcome=reason.outcome,
        reason=reason,
    )
