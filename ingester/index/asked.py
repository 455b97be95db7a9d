"""What somebody may mean who names something: a UID, its beginning, an accession number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ingester.index.readers import Reader

Level = Literal["study", "series", "instance"]

#: Each level's column, and the table with a row for each.
_LEVELS: tuple[tuple[Level, str, str], ...] = (
    ("study", "study_instance_uid", "studies"),
    ("series", "series_instance_uid", "series"),
    ("instance", "sop_instance_uid", "instances"),
)


@dataclass(frozen=True, slots=True)
class Meant:
    """Something in the index, by its level and UID; `study` is the UID of its study."""

    level: Level
    uid: str
    study: str


def meant(index: Reader, text: str, most: int) -> list[Meant]:
    """Return what *text* may mean, at most *most* of it.

    A UID; else the studies with this accession number; else every UID that begins so,
    of the highest level that has some.
    """
    for look in (_named, _with_accession_number, _beginning):
        found = [each for _, each in zip(range(most), look(index, text), strict=False)]
        if found:
            return found
    return []


def _named(index: Reader, text: str) -> Iterator[Meant]:
    for level, column, table in _LEVELS:
        query = f"SELECT study_instance_uid FROM {table} WHERE {column} = ? LIMIT 1"
        for row in index.rows(query, (text,)):
            yield Meant(level, text, row["study_instance_uid"])
            return


def _with_accession_number(index: Reader, text: str) -> Iterator[Meant]:
    query = (
        "SELECT study_instance_uid FROM studies WHERE accession_number = ?"
        " ORDER BY study_date DESC, study_instance_uid"
    )
    for row in index.rows(query, (text,)):
        yield Meant("study", row["study_instance_uid"], row["study_instance_uid"])


def _beginning(index: Reader, text: str) -> Iterator[Meant]:
    for level, column, table in _LEVELS:
        is_any = False
        for uid, study in _after(index, text, column, table):
            is_any = True
            yield Meant(level, uid, study)
        if is_any:
            return


def _after(index: Reader, text: str, column: str, table: str) -> Iterator[tuple[str, str]]:
    """Yield the UIDs that begin with *text*, from the index of UIDs, one by one."""
    # ":" is the character behind "9", the last of those that UIDs are made of.
    query = (
        f"SELECT {column} AS uid, study_instance_uid FROM {table}"
        f" WHERE {column} > ? AND {column} < ? ORDER BY {column} LIMIT 1"
    )
    last = text
    while rows := index.rows(query, (last, f"{text}:")):
        last = rows[0]["uid"]
        yield last, rows[0]["study_instance_uid"]


def words_of_names(index: Reader) -> list[str]:
    """Return every word of patients' names, folded, once."""
    rows = index.rows(
        "SELECT DISTINCT patient_name_folded AS name FROM patients"
        " WHERE patient_name_folded IS NOT NULL"
    )
    return sorted({word for row in rows for word in row["name"].split()})
