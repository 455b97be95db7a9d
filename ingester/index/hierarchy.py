"""Patients, studies and series, as their instances tell of them one by one.

Each field is taken from the first instance that has it.  A later instance that says
something else changes nothing: the contradiction is recorded, for `problems`.  What
was seen lately is remembered, so that the thousandth instance of a series costs one
comparison; `forget` after every rollback, because memory does not roll back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from ingester.index.names import folded, normalised
from ingester.model import Instance, PatientAttributes, SeriesAttributes, StudyAttributes

_REMEMBERED = 8192
_STUDY_COLUMNS = tuple(each.name for each in fields(StudyAttributes))
_SERIES_COLUMNS = tuple(each.name for each in fields(SeriesAttributes))
_TIMES = frozenset({"study_time", "series_time"})
_IDENTITY_COLUMNS = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
)

# Identity and, last, the sex: "" where a part is absent.
_Person = tuple[str, str, str, str, str]
_Attributes = TypeVar("_Attributes", StudyAttributes, SeriesAttributes)


@dataclass(slots=True)
class _Study:
    patient_key: int
    person: _Person
    attributes: StudyAttributes
    seen: PatientAttributes | None = None  # of the latest instance that agreed


@dataclass(slots=True)
class _Series:
    study_instance_uid: str
    attributes: SeriesAttributes


@dataclass(slots=True)
class Contradiction:
    """One fact on which an instance and the row above it disagree; `uid` as in the table."""

    level: str
    uid: str
    attribute: str
    value: str = ""


@dataclass(slots=True)
class Hierarchy:
    """The rows above an instance: made, filled, and compared."""

    connection: sqlite3.Connection
    _patients: dict[_Person, int] = field(default_factory=dict)
    _studies: dict[str, _Study] = field(default_factory=dict)
    _series: dict[str, _Series] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget what was remembered: a transaction was rolled back."""
        self._patients.clear()
        self._studies.clear()
        self._series.clear()

    def record(self, instance: Instance, archived_at: str) -> list[Contradiction]:
        """Make or fill the rows above *instance*; returns what it contradicts."""
        contradictions: list[Contradiction] = []
        study = self._studies.get(instance.study_instance_uid)
        if study is None:
            study = self._make_study(instance, archived_at)
        if study.seen is not instance.patient and study.seen != instance.patient:
            self._compare_patient(instance, study, contradictions)
        if study.attributes != instance.study:
            study.attributes = self._fill(
                "study", instance.study_instance_uid, study.attributes, instance.study,
                contradictions,
            )  # fmt: skip
        series = self._series.get(instance.series_instance_uid)
        if series is None:
            series = self._make_series(instance)
        if series.study_instance_uid != instance.study_instance_uid:
            contradictions.append(
                Contradiction("series", instance.series_instance_uid, "study_instance_uid")
            )
        if series.attributes != instance.series:
            series.attributes = self._fill(
                "series", instance.series_instance_uid, series.attributes, instance.series,
                contradictions,
            )  # fmt: skip
        return contradictions

    def note(
        self, contradictions: Sequence[Contradiction], instance_id: int, archived_at: str
    ) -> None:
        """Record what an instance contradicts; what was told before is not told again."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO contradictions (level, uid, attribute, value,"
            " instance_id, at) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (each.level, each.uid, each.attribute, each.value, instance_id, archived_at)
                for each in contradictions
            ],
        )

    def _make_study(self, instance: Instance, archived_at: str) -> _Study:
        uid = instance.study_instance_uid
        row = self.connection.execute(
            f"SELECT patient_key, {', '.join(_STUDY_COLUMNS)} FROM studies"
            " WHERE study_instance_uid = ?",
            (uid,),
        ).fetchone()
        if row is None:
            key = self.patient_key(instance.patient)
            values = tuple(getattr(instance.study, name) for name in _STUDY_COLUMNS)
            self.connection.execute(
                "INSERT INTO studies (study_instance_uid, patient_key, first_archived_at,"
                f" last_archived_at, {', '.join(_STUDY_COLUMNS)})"
                f" VALUES (?, ?, ?, ?{', ?' * len(_STUDY_COLUMNS)})",
                (uid, key, archived_at, archived_at, *values),
            )
            study = _Study(key, self._person_of(key), instance.study)
        else:
            study = _Study(row[0], self._person_of(row[0]), StudyAttributes(*row[1:]))
        if len(self._studies) >= _REMEMBERED:
            self._studies.clear()
        self._studies[uid] = study
        return study

    def _make_series(self, instance: Instance) -> _Series:
        uid = instance.series_instance_uid
        row = self.connection.execute(
            f"SELECT study_instance_uid, {', '.join(_SERIES_COLUMNS)} FROM series"
            " WHERE series_instance_uid = ?",
            (uid,),
        ).fetchone()
        if row is None:
            values = tuple(getattr(instance.series, name) for name in _SERIES_COLUMNS)
            self.connection.execute(
                f"INSERT INTO series (series_instance_uid, study_instance_uid,"
                f" {', '.join(_SERIES_COLUMNS)}) VALUES (?, ?{', ?' * len(_SERIES_COLUMNS)})",
                (uid, instance.study_instance_uid, *values),
            )
            series = _Series(instance.study_instance_uid, instance.series)
        else:
            series = _Series(row[0], SeriesAttributes(*row[1:]))
        if len(self._series) >= _REMEMBERED:
            self._series.clear()
        self._series[uid] = series
        return series

    def _compare_patient(
        self, instance: Instance, study: _Study, contradictions: list[Contradiction]
    ) -> None:
        """Compare the patient an instance names with its study's.

        A part that one of them leaves out contradicts nothing; where the instance
        only adds parts, its fuller identity becomes the study's.
        """
        person = _person(instance.patient)
        # Asked anew: an object of another study may have told the patient's sex since,
        # and what comes out must not depend on what happens to be remembered.
        study.person = self._person_of(study.patient_key)
        differing = [
            Contradiction("patient", instance.study_instance_uid, name, new)
            for name, old, new in zip(_IDENTITY_COLUMNS, study.person, person, strict=True)
            if old and new and old != new
        ]
        contradictions.extend(differing)
        key = self.patient_key(instance.patient)
        if differing:
            return
        study.seen = instance.patient
        adds = any(new and not old for old, new in zip(study.person, person, strict=True))
        if adds and all(new or not old for old, new in zip(study.person, person, strict=True)):
            study.person = person
            if key != study.patient_key:
                study.patient_key = key
                self.connection.execute(
                    "UPDATE studies SET patient_key = ? WHERE study_instance_uid = ?",
                    (key, instance.study_instance_uid),
                )

    def patient_key(self, patient: PatientAttributes) -> int:
        """Return the key of a patient's row, made where there is none of this identity."""
        person = _person(patient)
        key = self._patients.get(person)
        if key is not None:
            return key
        row = self.connection.execute(
            "SELECT patient_key, patient_sex FROM patients"
            " WHERE coalesce(patient_id, '') = ? AND coalesce(issuer_of_patient_id, '') = ?"
            " AND patient_name_normalised = ? AND coalesce(patient_birth_date, '') = ?",
            person[:4],
        ).fetchone()
        if row is None:
            made = self.connection.execute(
                "INSERT INTO patients (patient_id, issuer_of_patient_id, patient_name,"
                " patient_name_folded, patient_name_normalised, patient_birth_date, patient_sex)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    person[0] or None,
                    person[1] or None,
                    patient.patient_name,
                    folded(patient.patient_name) or None,
                    person[2],
                    person[3] or None,
                    patient.patient_sex,
                ),
            )
            key = int(made.lastrowid or 0)
        else:
            key = int(row[0])
            if row[1] is None and patient.patient_sex:
                self.connection.execute(
                    "UPDATE patients SET patient_sex = ? WHERE patient_key = ?",
                    (patient.patient_sex, key),
                )
        if len(self._patients) >= _REMEMBERED:
            self._patients.clear()
        self._patients[person] = key
        return key

    def _person_of(self, patient_key: int) -> _Person:
        row = self.connection.execute(
            "SELECT patient_id, issuer_of_patient_id, patient_name, patient_birth_date,"
            " patient_sex FROM patients WHERE patient_key = ?",
            (patient_key,),
        ).fetchone()
        return _person(PatientAttributes(*row))

    def _fill(
        self,
        level: str,
        uid: str,
        known: _Attributes,
        said: _Attributes,
        contradictions: list[Contradiction],
    ) -> _Attributes:
        """Fill the fields nobody had yet; note those that disagree."""
        filled: dict[str, str | int] = {}
        columns = _STUDY_COLUMNS if level == "study" else _SERIES_COLUMNS
        for name in columns:
            old, new = getattr(known, name), getattr(said, name)
            if new is None or old == new:
                continue
            if old is None:
                filled[name] = new
            elif _comparable(name, old) != _comparable(name, new):
                contradictions.append(Contradiction(level, uid, name))
        if not filled:
            return known
        table, key = (
            ("studies", "study_instance_uid")
            if level == "study"
            else ("series", "series_instance_uid")
        )
        self.connection.execute(
            f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in filled)} WHERE {key} = ?",
            (*filled.values(), uid),
        )
        return replace(known, **filled)  # type: ignore[arg-type]  # names come from the class


def _person(patient: PatientAttributes) -> _Person:
    return (
        (patient.patient_id or "").strip(),
        (patient.issuer_of_patient_id or "").strip(),
        normalised(patient.patient_name),
        patient.patient_birth_date or "",
        patient.patient_sex or "",
    )


def _comparable(name: str, value: str | int) -> str | int:
    """Return what must be equal for two values not to contradict one another."""
    if isinstance(value, int):
        return value
    if name in _TIMES and "." in value:
        return value.rstrip("0").rstrip(".")
    return normalised(value)
