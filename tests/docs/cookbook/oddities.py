"""Records of what goes wrong or is rare, beside the hospital's everyday.

Each is there for a question of docs/sql.md that would find nothing without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from benchmarks.hospital import BATCH, DAY, SERIES_INSTANCE_UID
from ingester.index import Event
from ingester.model import ArrivalRecord, Outcome, Reason
from tests.factory import uid
from tests.unit.index.records import archived, header, set_aside

#: The first slice of the series that the page names.
FIRST_SLICE = f"{SERIES_INSTANCE_UID}.1"
#: A series of oblique slices, 2.5 mm apart, the fourth and fifth missing.
OBLIQUE = uid(909, 1, 1)

EVENTS = [
    Event(f"{DAY}T03:00:00.000Z", "disk.low", None, {"disk": "archive"}),
    Event(f"{DAY}T04:00:00.000Z", "receiver.down", None, {"receiver": "scp"}),
    Event(f"{DAY}T04:00:09.000Z", "receiver.up", None, {"receiver": "scp"}),
]


def at_night(second: int) -> str:
    return f"{DAY}T01:30:{second:02d}.000Z"


def at_noon(number: int) -> str:
    return f"{DAY}T11:40:00.{number:03d}Z"


def at(record: ArrivalRecord, when: str) -> ArrivalRecord:
    """Return the record of something that came and was archived at this moment."""
    stored = record.stored and replace(record.stored, archived_at=when)
    return replace(record, arrived_at=when, finished_at=when, stored=stored)


def records(like: ArrivalRecord) -> Iterator[ArrivalRecord]:
    """Yield the oddities; *like* is the record of `FIRST_SLICE`, the first of all."""
    yield from _last_night()
    yield from _twice(like)
    yield from _other_versions(like)
    yield from _cd()
    yield from _people()
    yield from _impossible()
    yield from _rare_classes()
    yield from _films()
    yield from _mammograms()
    yield from _slices()
    yield from _not_of_the_cohort()
    yield from _reports()
    yield at(_study(980), f"{_day(-1)}T12:00:00.000Z")
    yield at(_study(981), f"{_day(+1)}T12:00:00.000Z")
    # Its video fails, by the test.
    said = {"Rows": 16, "Columns": 16, "FrameTime": 40.0}
    yield _study(982, modality="US", number_of_frames=30, attributes=said)


def _last_night() -> Iterator[ArrivalRecord]:
    for number in (1, 2, 3):
        one = archived(header(900, 1, 1, number), source="CT2", batch="night")
        yield at(one, at_night(number))
    yield at(set_aside("night-1", Reason.MALFORMED, batch="night"), at_night(4))
    yield at(set_aside("night-2", Reason.INCOMPLETE, batch="night"), at_night(5))
    # By the test: sent back, and settled.
    yield at(set_aside("retried-1", Reason.INCOMPLETE, batch="night"), at_night(6))
    yield at(set_aside("settled-1", Reason.INCOMPLETE, batch="night"), at_night(7))


def _other_versions(like: ArrivalRecord) -> Iterator[ArrivalRecord]:
    assert like.instance is not None
    assert like.stored is not None
    said = json.loads(like.instance.attributes)
    changes: list[tuple[Outcome, dict[str, Any]]] = [
        (Outcome.CONFLICT, {"PatientWeight": 81.5, "KVP": 90.0}),
        (Outcome.VARIANT, {"TransferSyntaxUID": "1.2.840.10008.1.2.4.80"}),
    ]
    for second, (outcome, changed) in enumerate(changes):
        instance = replace(like.instance, attributes=json.dumps({**said, **changed}))
        if outcome is Outcome.VARIANT:
            instance = replace(instance, transfer_syntax_uid=changed["TransferSyntaxUID"])
        told = {"differs": sorted(changed), "pixels_differ": True}
        record = archived(instance, outcome=outcome, salt=str(outcome))
        if outcome is Outcome.CONFLICT:
            record = replace(record, detail=told)
        yield at(replace(record, source="MANUAL"), at_noon(second))


def _twice(like: ArrivalRecord) -> Iterator[ArrivalRecord]:
    for number in (1, 2):
        yield at(
            replace(
                like,
                arrival_id=f"twice-{number}",
                outcome=Outcome.DUPLICATE,
                instance=None,
                stored=None,
                instance_id=1,
            ),
            at_noon(100 + number),
        )


def _cd() -> Iterator[ArrivalRecord]:
    """Yield a DICOMDIR that names two objects too many and one that has come since.

    Another source has a batch of the same name.
    """
    missing = [
        {"file_id": f"DICOM/IM{number}", "sop_instance_uid": uid(901, 1, 1, number)}
        for number in (8, 9)
    ]
    come = {"file_id": "DICOM/IM1", "sop_instance_uid": FIRST_SLICE}
    record = set_aside("cd-1", Reason.NOT_DICOM, batch=BATCH, original_name=f"{BATCH}/A/DICOMDIR")
    detail = {"referenced": 40, "missing": 3, "missing_files": [missing[1], come, missing[0]]}
    dicomdir = replace(record, outcome=Outcome.UNPACKED, reason=None, detail=detail)
    yield at(dicomdir, at_noon(110))
    elsewhere = {"file_id": "X", "sop_instance_uid": uid(901, 1, 1, 10)}
    for number, other in enumerate(
        [replace(dicomdir, detail={"missing_files": [elsewhere]}), record], start=2
    ):
        yield at(replace(other, arrival_id=f"cd-{number}", source="CT1"), at_noon(110 + number))
    # By the test: sent back.
    yield at(set_aside("retried-2", batch=BATCH, original_name=f"{BATCH}/Z"), at_noon(120))


def _people() -> Iterator[ArrivalRecord]:
    """Yield one person under two IDs, and two people under one."""
    erna: dict[str, Any] = {"patient_name": "Doppelt^Erna", "patient_birth_date": "1950-05-05"}
    for patient, wanted in ((902, "X-1"), (903, "X-2")):
        yield _study(patient, patient_id=wanted, **erna)
    for patient, name in ((904, "Zwilling^Eins"), (905, "Zwilling^Zwei")):
        yield _study(patient, patient_id="Z-1", patient_name=name)
    for patient, wanted in ((906, "N-1"), (907, "N-2")):
        yield _study(patient, patient_id=wanted, patient_name="Niemand", patient_birth_date=None)
    for patient, issuer in ((908, "A"), (918, "B")):
        yield _study(patient, patient_id="I-1", issuer_of_patient_id=issuer, patient_name="Ida^I")


def _impossible() -> Iterator[ArrivalRecord]:
    yield _study(910, patient_id=None, patient_birth_date=None, accession_number=None)
    yield _study(911, patient_name="QA^Phantom 3", study_date="2031-01-01")
    yield _study(912, patient_birth_date="2025-01-01", study_date="2024-01-01")
    yield _study(913, patient_birth_date="1870-01-01", study_date=None)
    yield _study(914, patient_birth_date="1870-01-01")
    yield _study(915, patient_id=None, patient_name="Neu^Geboren", patient_birth_date="2024-01-01")


def _rare_classes() -> Iterator[ArrivalRecord]:
    for patient, sop_class in (
        (920, "1.2.840.10008.5.1.4.1.1.6"),
        (921, "1.2.840.10008.5.1.4.1.1.12.3"),
        (922, "1.3.12.2.1107.5.9.1"),
    ):
        record = _study(patient, modality="OT", source="XA1")
        assert record.instance is not None
        yield replace(record, instance=replace(record.instance, sop_class_uid=sop_class))


def _films() -> Iterator[ArrivalRecord]:
    for number, (modality, index, deviation) in enumerate(
        [("DX", 210.0, 0.2), ("DX", 450.0, 3.5), ("CR", 380.0, -0.3)], start=1
    ):
        yield _study(
            930 + number,
            modality=modality,
            station_name="FLC1",
            protocol_name="Thorax",
            study_date=DAY,
            attributes={"ExposureIndex": index, "DeviationIndex": deviation},
        )


def _mammograms() -> Iterator[ArrivalRecord]:
    for number, (modality, said) in enumerate(
        [
            ("MG", {"OrganDose": 0.021, "EntranceDoseInmGy": 6.5}),
            ("MG", {"OrganDose": 0.009, "EntranceDoseInmGy": 2.5}),
            ("MG", {"EntranceDoseInmGy": 3.0}),
            ("CR", {"OrganDose": 0.5, "EntranceDoseInmGy": 9.0}),
        ],
        start=1,
    ):
        yield _study(
            940 + number,
            modality=modality,
            station_name="MAMMO1",
            series_date="2026-02-01",
            attributes=said,
        )


def _slices() -> Iterator[ArrivalRecord]:
    for number in (1, 2, 3, 6, 7):
        along = 2.5 * number
        yield _study(
            909,
            instance=number,
            attributes={
                "ImagePositionPatient": [10.0, round(0.6 * along, 4), round(0.8 * along, 4)],
                "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 0.8, -0.6],
            },
        )
    # Two echoes: each number comes twice, one not at all.
    for instance, number in enumerate((1, 1, 2, 2, 4, 4), start=1):
        yield _study(950, instance=instance, instance_number=number, modality="MR")
    activity = {"Radiopharmaceutical": "FDG -- fluorodeoxyglucose", "RadionuclideTotalDose": 2.1e8}
    said = {"RadiopharmaceuticalInformationSequence": [activity]}
    yield _study(951, modality="PT", attributes=said)


def _not_of_the_cohort() -> Iterator[ArrivalRecord]:
    """Yield thin CT slices that lack one thing each."""
    said = {"ContrastBolusAgent": "Iohexol 350", "SliceThickness": 1.0}
    adult: dict[str, Any] = {"body_part_examined": "ABDOMEN", "patient_birth_date": "1960-06-01"}
    yield _study(960, attributes=said, **adult)  # this one lacks nothing
    yield _study(961, attributes=said, **{**adult, "patient_birth_date": "2010-06-01"})
    yield _study(962, attributes=said, **{**adult, "body_part_examined": "HEAD"})
    yield _study(963, attributes=said, modality="DX", **adult)
    yield _study(964, attributes={"SliceThickness": 1.0}, **adult)
    # Eighteen today.
    yield _study(965, attributes=said, **{**adult, "patient_birth_date": "2006-01-01"})


def _reports() -> Iterator[ArrivalRecord]:
    """Yield a CT study with a report, but not of its dose."""
    yield _study(970)
    record = _study(970, series=2, modality="SR")
    assert record.instance is not None
    yield replace(
        record,
        instance=replace(record.instance, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33"),
    )


def _day(ahead: int) -> str:
    return (date.fromisoformat(DAY) + timedelta(ahead)).isoformat()


def _study(
    patient: int,
    *,
    series: int = 1,
    instance: int = 1,
    source: str = "MANUAL",
    attributes: Mapping[str, Any] | None = None,
    **columns: Any,
) -> ArrivalRecord:
    """Return the record of an object of a study of its own; *columns* as in the index."""
    said = dict(attributes or {"A": 1})
    record = archived(
        header(patient, 1, series, instance, attributes=said, **columns), source=source
    )
    return at(record, at_noon(patient % 100 * 10 + instance))
