"""Patients, studies and series, as their instances tell of them one by one.

Each field is taken from the first instance that has it.  A later instance that says
something else changes nothing: the contradiction is recorded, for `problems`.  So is a
patient ID under which two studies name different people (`persons.py`).  What was
seen lately is remembered, so that the thousandth instance of a series costs one
comparison; `forget` after every rollback, because memory does not roll back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from ingester.index.names import UNREADABLE, folded, is_another, normalised
from ingester.index.persons import (
    Person,
    differing_parts,
    forget_patient,
    namesakes,
    person_of,
    tells_more,
)
from ingester.model import Instance, PatientAttributes, SeriesAttributes, StudyAttributes

_REMEMBERED = 8192
_STUDY_COLUMNS = tuple(each.name for each in fields(StudyAttributes))
_SERIES_COLUMNS = tuple(each.name for each in fields(SeriesAttributes))
#: What describes rather than identifies: devices that work on one study each have their
#: own words and times for it, and so have the images of a series of radiographs.
NOT_COMPARED = frozenset(
    {
        "study_time", "study_id", "institution_name", "series_date", "series_time",
        "series_description", "body_part_examined", "protocol_name",
    }
)  # fmt: skip
_NAMES = frozenset({"referring_physician_name"})

_Attributes = TypeVar("_Attributes", StudyAttributes, SeriesAttributes)


@dataclass(slots=True)
class _Study:
    patient_key: int
    person: Person
    attributes: StudyAttributes
    seen: PatientAttributes | None = None  # of the latest instance that agreed


@dataclass(slots=True)
class _Series:
    study_instance_uid: str
    attributes: SeriesAttributes


@dataclass(slots=True)
class Contradiction:
    """One fact on which an instance and the row above it disagree; `uid` as in the table.

    `other_uid` is the study of another patient with the same ID.
    """

    level: str
    uid: str
    attribute: str
    value: str = ""
    other_uid: str | None = None


@dataclass(slots=True)
class Hierarchy:
    """The rows above an instance: made, filled, and compared."""

    connection: sqlite3.Connection
    _patients: dict[Person, int] = field(default_factory=dict)
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
            study = self._make_study(instance, archived_at, contradictions)
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
            "INSERT OR IGNORE INTO contradictions (level, uid, attribute, value, other_uid,"
            " instance_id, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.level,
                    each.uid,
                    each.attribute,
                    each.value,
                    each.other_uid,
                    instance_id,
                    archived_at,
                )
                for each in contradictions
            ],
        )

    def _make_study(
        self, instance: Instance, archived_at: str, contradictions: list[Contradiction]
    ) -> _Study:
        uid = instance.study_instance_uid
        row = self.connection.execute(
            f"SELECT patient_key, {', '.join(_STUDY_COLUMNS)} FROM studies"
            " WHERE study_instance_uid = ?",
            (uid,),
        ).fetchone()
        if row is None:
            key = self.patient_key(instance.patient)
            contradictions.extend(self._compare_namesakes(key, uid))
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
        person = person_of(instance.patient)
        # Asked anew: an object of another study may have told the patient's sex since,
        # and what comes out must not depend on what happens to be remembered.
        study.person = self._person_of(study.patient_key)
        differing = list(differing_parts(study.person, person))
        if differing:
            self.patient_key(instance.patient)  # an identity that some object names
            contradictions.extend(
                Contradiction("patient", instance.study_instance_uid, name, value)
                for name, value in differing
            )
            return
        study.seen = instance.patient
        if tells_more(person, study.person):
            self._take_over(instance, study, contradictions)

    def _take_over(
        self, instance: Instance, study: _Study, contradictions: list[Contradiction]
    ) -> None:
        """Let a fuller identity become the study's; nobody keeps the one that nobody has."""
        uid, before, key = (
            instance.study_instance_uid,
            study.patient_key,
            self.patient_key(instance.patient),
        )
        study.person = person_of(instance.patient)
        if key == before:
            return
        study.patient_key = key
        contradictions.extend(self._compare_namesakes(key, uid))
        self.connection.execute(
            "UPDATE studies SET patient_key = ? WHERE study_instance_uid = ?", (key, uid)
        )
        forget_patient(self.connection, before)
        self._patients = {who: known for who, known in self._patients.items() if known != before}

    def _compare_namesakes(self, patient_key: int, study_uid: str) -> list[Contradiction]:
        """Compare a patient who gets a first study with the others of the same ID."""
        return [
            Contradiction("patient", study_uid, name, value, other_uid)
            for name, value, other_uid in namesakes(self.connection, patient_key, study_uid)
        ]

    def patient_key(self, patient: PatientAttributes) -> int:
        """Return the key of a patient's row, made where there is none of this identity."""
        person = person_of(patient)
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

    def _person_of(self, patient_key: int) -> Person:
        row = self.connection.execute(
            "SELECT patient_id, issuer_of_patient_id, patient_name, patient_birth_date,"
            " patient_sex FROM patients WHERE patient_key = ?",
            (patient_key,),
        ).fetchone()
        return person_of(PatientAttributes(*row))

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
            elif name not in NOT_COMPARED and _contradict(name, old, new):
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


def _contradict(name: str, old: str | int, new: str | int) -> bool:
    if isinstance(old, int) or isinstance(new, int):
        return old != new
    one, other = normalised(old), normalised(new)
    if one == other or UNREADABLE in one + other:
        return False
    return name not in _NAMES or is_another(one, other)
