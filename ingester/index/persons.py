"""Who a patient is: what tells people apart, and who shares an ID with whom.

A person is known by ID, issuer, name and birth date.  A part that is left out says
nothing: it neither contradicts nor proves.  One ID (of one issuer) with two names or
two birth dates is two patients, and a problem for somebody who can ask.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from ingester.index.names import is_another, normalised, says_more
from ingester.model import PatientAttributes

#: ID, issuer, normalised name, birth date and, beside the identity, the sex; "" where
#: a part is left out.
Person = tuple[str, str, str, str, str]

_PARTS = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
)
_NAME = _PARTS.index("patient_name")
#: An ID that more people share than these identifies nobody (0, ANONYMOUS, PHANTOM).
_MOST_NAMESAKES = 10


def person_of(patient: PatientAttributes) -> Person:
    """Return what can be compared of a patient."""
    return (
        (patient.patient_id or "").strip(),
        (patient.issuer_of_patient_id or "").strip(),
        normalised(patient.patient_name),
        patient.patient_birth_date or "",
        patient.patient_sex or "",
    )


def differing_parts(known: Person, other: Person) -> Iterator[tuple[str, str]]:
    """Yield (column, the other's value) of each part on which two persons disagree."""
    for part, (old, new) in enumerate(zip(known, other, strict=True)):
        if old and new and old != new and (part != _NAME or is_another(old, new)):
            yield _PARTS[part], new


def tells_more(person: Person, known: Person) -> bool:
    """Tell whether *person* has all that is *known*, and more."""
    pairs = list(zip(person, known, strict=True))
    more = [new != old and (not old or says_more(new, old)) for new, old in pairs]
    return any(more) and all(
        new == old or is_more for (new, old), is_more in zip(pairs, more, strict=True)
    )


def namesakes(
    connection: sqlite3.Connection, patient_key: int, study_instance_uid: str
) -> Iterator[tuple[str, str, str]]:
    """Yield (column, value, the other's study) where patients of one ID disagree.

    The patient has no study yet: who has one was compared when that came.  Of each
    column only the first other patient counts, and a study that was compared with this
    one when its own patient came has told already.
    """
    if connection.execute(
        "SELECT 1 FROM studies WHERE patient_key = ? LIMIT 1", (patient_key,)
    ).fetchone():
        return
    name, birth_date = connection.execute(
        "SELECT patient_name_normalised, coalesce(patient_birth_date, '')"
        " FROM patients WHERE patient_key = ?",
        (patient_key,),
    ).fetchone()
    others = connection.execute(
        "SELECT o.patient_name_normalised, coalesce(o.patient_birth_date, ''),"
        " (SELECT study_instance_uid FROM studies AS s WHERE s.patient_key = o.patient_key"
        "  ORDER BY first_archived_at, study_instance_uid LIMIT 1) AS study"
        " FROM patients AS p JOIN patients AS o ON o.patient_id = p.patient_id"
        " AND coalesce(o.issuer_of_patient_id, '') = coalesce(p.issuer_of_patient_id, '')"
        " AND o.patient_key <> p.patient_key"
        " WHERE p.patient_key = ? AND study IS NOT NULL ORDER BY o.patient_key LIMIT ?",
        (patient_key, _MOST_NAMESAKES + 1),
    ).fetchall()
    for column, value, study in _first_of_each(name, birth_date, others):
        told = connection.execute(
            "SELECT 1 FROM contradictions WHERE level = 'patient' AND uid = ? AND attribute = ?"
            " AND other_uid = ?",
            (study, column, study_instance_uid),
        ).fetchone()
        if told is None:
            yield column, value, study


def compare_all(connection: sqlite3.Connection) -> None:
    """Note what `namesakes` would have told had it been asked whenever a patient came."""
    rows = connection.execute(
        "SELECT p.patient_id, coalesce(p.issuer_of_patient_id, ''), p.patient_name_normalised,"
        " coalesce(p.patient_birth_date, ''), s.study_instance_uid, min(i.instance_id),"
        " i.archived_at FROM patients AS p JOIN studies AS s ON s.patient_key = p.patient_key"
        " JOIN instances AS i ON i.study_instance_uid = s.study_instance_uid"
        " WHERE p.patient_id IN (SELECT patient_id FROM patients WHERE patient_id IS NOT NULL"
        "  GROUP BY patient_id HAVING count(*) > 1)"
        " GROUP BY p.patient_key ORDER BY 6"
    ).fetchall()
    earlier: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for patient_id, issuer, name, birth_date, study, instance_id, archived_at in rows:
        others = earlier.setdefault((patient_id, issuer), [])
        for column, value, other in _first_of_each(name, birth_date, others):
            connection.execute(
                "INSERT INTO contradictions (level, uid, attribute, value, other_uid,"
                " instance_id, at) VALUES ('patient', ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET other_uid = excluded.other_uid",
                (study, column, value, other, instance_id, archived_at),
            )
        others.append((name, birth_date, study))


def _first_of_each(
    name: str, birth_date: str, others: Sequence[tuple[str, str, str]]
) -> Iterator[tuple[str, str, str]]:
    """Yield (column, value, the other's study) for the first of *others* who disagrees."""
    if len(others) > _MOST_NAMESAKES:
        return
    for other_name, _, study in others:
        if is_another(name, other_name):
            yield "patient_name", name, study
            break
    for _, other_birth_date, study in others:
        if birth_date and other_birth_date and birth_date != other_birth_date:
            yield "patient_birth_date", birth_date, study
            break


def forget_agreements(connection: sqlite3.Connection, studies: str) -> None:
    """Drop what patients of other studies no longer contradict in these.

    *studies* is a JSON array of UIDs whose patients were read anew.
    """
    rows = connection.execute(
        "SELECT c.uid, c.attribute, c.value, p.patient_name_normalised, p.patient_birth_date,"
        " o.patient_name_normalised, o.patient_birth_date,"
        " p.patient_id = o.patient_id AND coalesce(p.issuer_of_patient_id, '') ="
        " coalesce(o.issuer_of_patient_id, '')"
        " FROM contradictions AS c"
        " JOIN studies AS s ON s.study_instance_uid = c.uid"
        " JOIN patients AS p ON p.patient_key = s.patient_key"
        " JOIN studies AS t ON t.study_instance_uid = c.other_uid"
        " JOIN patients AS o ON o.patient_key = t.patient_key"
        " WHERE c.level = 'patient' AND c.other_uid IN (SELECT value FROM json_each(?))",
        (studies,),
    ).fetchall()
    for uid, column, value, name, birth_date, other_name, other_birth_date, is_namesake in rows:
        if column == "patient_name":
            is_other = is_another(name, other_name)
        else:
            is_other = bool(birth_date and other_birth_date and birth_date != other_birth_date)
        if not (is_namesake and is_other):
            connection.execute(
                "DELETE FROM contradictions"
                " WHERE level = 'patient' AND uid = ? AND attribute = ? AND value = ?",
                (uid, column, value),
            )


def forget_patient(connection: sqlite3.Connection, patient_key: int) -> None:
    """Remove a patient who has no study, and whom no contradicting object can name."""
    try:
        connection.execute(
            "DELETE FROM patients AS p WHERE patient_key = ?"
            " AND NOT EXISTS (SELECT 1 FROM studies AS s WHERE s.patient_key = p.patient_key)"
            " AND NOT EXISTS (SELECT 1 FROM contradictions AS c WHERE c.level = 'patient'"
            "  AND c.other_uid IS NULL AND c.value = CASE c.attribute"
            "  WHEN 'patient_id' THEN p.patient_id"
            "  WHEN 'issuer_of_patient_id' THEN p.issuer_of_patient_id"
            "  WHEN 'patient_name' THEN p.patient_name_normalised"
            "  WHEN 'patient_birth_date' THEN p.patient_birth_date"
            "  ELSE p.patient_sex END)",
            (patient_key,),
        )
    except sqlite3.IntegrityError:
        return  # a table that somebody added refers to this row: it stays


def forget_patients(connection: sqlite3.Connection) -> None:
    """Remove all patients who have no study, and whom no contradicting object names."""
    rows = connection.execute(
        "SELECT patient_key FROM patients AS p WHERE NOT EXISTS"
        " (SELECT 1 FROM studies AS s WHERE s.patient_key = p.patient_key)"
    ).fetchall()
    for (patient_key,) in rows:
        forget_patient(connection, patient_key)
