"""Which version of an object is the current one, and what follows for the rows above.

A person may make another version current.  The two then exchange places: the new one
stands where the old one stood in the order of arrival, and patient, study and series
are filled anew in that order, by the same `Hierarchy` that fills them when files
arrive.  So a study shows the corrected name once its corrected version is current, and
a rebuild that takes the same decisions between the same objects comes to the same rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ingester.index import said
from ingester.index.hierarchy import Hierarchy
from ingester.index.names import folded
from ingester.index.persons import forget_agreements, forget_patients
from ingester.model import ImageAttributes, Instance

#: Source -> the issuer of patient IDs that its files may leave out.
IssuerOf = Callable[[str], str]


def no_issuer(_source: str) -> str:
    """Return that no source leaves its issuer out."""
    return ""


def make_current(connection: sqlite3.Connection, instance_id: int) -> str:
    """Let this version be the current one of its UID; returns its path.

    The version that was current takes its place as variant or conflict.  The rows above
    are left to `fill_anew`.
    """
    uid, version, path = connection.execute(
        "SELECT sop_instance_uid, version, path FROM instances WHERE instance_id = ?",
        (instance_id,),
    ).fetchone()
    if version != "current":
        connection.execute(
            "UPDATE instances SET version = ? WHERE sop_instance_uid = ? AND version = 'current'",
            (version, uid),
        )
        connection.execute(
            "UPDATE instances SET version = 'current' WHERE instance_id = ?", (instance_id,)
        )
    return str(path)


def fill_anew(
    connection: sqlite3.Connection,
    hierarchy: Hierarchy,
    made_current: Sequence[int],
    issuer_of: IssuerOf,
) -> None:
    """Fill the rows above these instances as if they had come in their new order.

    *made_current* are the instances that a person made current, in that order.
    """
    studies = {
        row[0]
        for row in connection.execute(
            "SELECT DISTINCT study_instance_uid FROM instances"
            " WHERE instance_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(made_current)),),
        )
    }
    for instance_id in made_current:
        studies |= _spell_patient(connection, hierarchy, instance_id, issuer_of)
    for group in _groups(connection, studies):
        _fill(connection, hierarchy, group, issuer_of)
    forget_patients(connection)
    hierarchy.forget()


@dataclass(frozen=True, slots=True)
class _Group:
    """Studies that share series with one another (nearly always just one study)."""

    studies: str  # JSON arrays of UIDs
    series: str


def _groups(connection: sqlite3.Connection, studies: set[str]) -> Iterator[_Group]:
    left = set(studies)
    while left:
        found = {left.pop()}
        series: set[str] = set()
        while True:
            among = (json.dumps(sorted(found)),)
            rows = connection.execute(
                "SELECT DISTINCT series_instance_uid FROM instances"
                " WHERE study_instance_uid IN (SELECT value FROM json_each(?))",
                among,
            )
            series = {row[0] for row in rows.fetchall()}
            rows = connection.execute(
                "SELECT DISTINCT study_instance_uid FROM instances"
                " WHERE series_instance_uid IN (SELECT value FROM json_each(?))",
                (json.dumps(sorted(series)),),
            )
            more = {row[0] for row in rows.fetchall()} - found
            if not more:
                break
            found |= more
        left -= found
        yield _Group(json.dumps(sorted(found)), json.dumps(sorted(series)))


def _fill(
    connection: sqlite3.Connection, hierarchy: Hierarchy, group: _Group, issuer_of: IssuerOf
) -> None:
    instances = list(_in_order(connection, group))
    moments = connection.execute(
        "SELECT first_archived_at, last_archived_at, study_instance_uid FROM studies"
        " WHERE study_instance_uid IN (SELECT value FROM json_each(?))",
        (group.studies,),
    ).fetchall()
    settled = connection.execute(
        f"SELECT resolved_at, level, uid, attribute, value FROM contradictions WHERE {_OF_GROUP}"
        " AND resolved_at IS NOT NULL",
        (group.studies, group.series),
    ).fetchall()
    # The instances refer to these rows, which are back before the transaction ends.
    connection.execute("PRAGMA defer_foreign_keys = ON")
    connection.execute(
        f"DELETE FROM contradictions WHERE {_OF_GROUP}", (group.studies, group.series)
    )
    connection.execute(
        "DELETE FROM series WHERE series_instance_uid IN (SELECT value FROM json_each(?))",
        (group.series,),
    )
    connection.execute(
        "DELETE FROM studies WHERE study_instance_uid IN (SELECT value FROM json_each(?))",
        (group.studies,),
    )
    hierarchy.forget()
    for instance_id in instances:
        instance, archived_at = _said(connection, instance_id, issuer_of)
        hierarchy.note(hierarchy.record(instance, archived_at), instance_id, archived_at)
    connection.executemany(
        "UPDATE studies SET first_archived_at = ?, last_archived_at = ?"
        " WHERE study_instance_uid = ?",
        moments,
    )
    connection.executemany(
        "UPDATE contradictions SET resolved_at = ?"
        " WHERE level = ? AND uid = ? AND attribute = ? AND value = ?",
        settled,
    )
    forget_agreements(connection, group.studies)


_OF_GROUP = (
    "((level IN ('patient', 'study') AND uid IN (SELECT value FROM json_each(?1)))"
    " OR (level = 'series' AND uid IN (SELECT value FROM json_each(?2))))"
)


def _in_order(connection: sqlite3.Connection, group: _Group) -> Iterator[int]:
    """Yield the instances in order of arrival, current versions in their first's place."""
    rows = connection.execute(
        "SELECT instance_id, sop_instance_uid, version = 'current' FROM instances"
        " WHERE study_instance_uid IN (SELECT value FROM json_each(?)) ORDER BY instance_id",
        (group.studies,),
    ).fetchall()
    first: dict[str, int] = {}
    place: dict[int, int] = {}
    for instance_id, uid, is_current in rows:
        place[instance_id] = instance_id
        other = first.setdefault(uid, instance_id)
        if is_current:
            place[other], place[instance_id] = instance_id, other
    yield from sorted(place, key=place.__getitem__)


def _said(
    connection: sqlite3.Connection, instance_id: int, issuer_of: IssuerOf
) -> tuple[Instance, str]:
    """Return what an instance says of the rows above it, and when it was archived."""
    sop_class, sop, study, series, syntax, source, archived_at, text = connection.execute(
        "SELECT i.sop_class_uid, i.sop_instance_uid, i.study_instance_uid, i.series_instance_uid,"
        " i.transfer_syntax_uid, i.source, i.archived_at, coalesce(h.attributes, '{}')"
        " FROM instances AS i LEFT JOIN headers AS h USING (instance_id) WHERE i.instance_id = ?",
        (instance_id,),
    ).fetchone()
    attributes = said.attributes_of(text)
    instance = Instance(
        sop_class_uid=sop_class,
        sop_instance_uid=sop,
        study_instance_uid=study,
        series_instance_uid=series,
        transfer_syntax_uid=syntax,
        patient=said.patient_of(attributes, issuer_of(source)),
        study=said.study_of(attributes),
        series=said.series_of(attributes),
        image=ImageAttributes(),
        attributes=text,
        has_pixels=False,
    )
    return instance, archived_at


def _spell_patient(
    connection: sqlite3.Connection, hierarchy: Hierarchy, instance_id: int, issuer_of: IssuerOf
) -> set[str]:
    """Let the row of this instance's patient say what it says: the name's spelling, the sex.

    Both are no part of an identity, so another version may have filled the row.  Returns
    the studies that have to be compared with another sex now.
    """
    instance, _ = _said(connection, instance_id, issuer_of)
    patient = instance.patient
    key = hierarchy.patient_key(patient)
    (sex,) = connection.execute(
        "SELECT patient_sex FROM patients WHERE patient_key = ?", (key,)
    ).fetchone()
    connection.execute(
        "UPDATE patients SET patient_name = coalesce(?, patient_name), patient_name_folded ="
        " coalesce(?, patient_name_folded), patient_sex = coalesce(?, patient_sex)"
        " WHERE patient_key = ?",
        (patient.patient_name, folded(patient.patient_name) or None, patient.patient_sex, key),
    )
    if patient.patient_sex in (None, sex):
        return set()
    hierarchy.forget()
    rows = connection.execute(
        "SELECT study_instance_uid FROM studies WHERE patient_key = ?", (key,)
    )
    return {row[0] for row in rows}
