"""Which studies somebody means who types a few words.

    found, values = matching(["müller", "2024-03", "MR"])
    connection.execute(f"SELECT s.study_instance_uid {found}", values)

All studies are gone through, with their patients, and no objects: a list of twenty
thousand takes some hundredths of a second.  The connection must know `folded`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ingester.index.names import HAS_DIGRAPH, wanted, words_of


def matching(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the FROM and WHERE of the studies that match every word, and their values."""
    parts = [part for word in words for part in words_of(word)]
    conditions, values = ["0"] if words and not parts else ["1"], list[str]()
    for word in parts:
        # Patients are compared once, and not with each of their studies again.
        of_patient, its_values = _of_patient(word)
        values += its_values
        of_study, its_values = _of_study(word)
        values += its_values
        conditions.append(
            f"(s.patient_key IN (SELECT patient_key FROM patients WHERE {of_patient})"
            f" OR {of_study})"
        )
    return f"FROM studies AS s WHERE {' AND '.join(conditions)}", values


def _of_patient(word: str) -> tuple[str, list[str]]:
    look = wanted(word)
    condition, values = _any(
        ("instr(patient_name_folded, ?)", look.folded),
        ("instr(replace(patient_name_folded, ' ', ''), ?)", look.joined),
        ("instr(replace(replace(patient_name_normalised, '^', ''), ' ', ''), ?)", look.signs),
        ("instr(lower(patient_id), lower(?))", _texts(word)),
    )
    if look.shortened is not None:
        condition += " OR (patient_name GLOB ? AND instr(patient_name_folded, ?))"
        values += [HAS_DIGRAPH, look.shortened]
    return condition, values


def _of_study(word: str) -> tuple[str, list[str]]:
    look = wanted(word)
    condition, values = _any(
        ("instr(lower(s.accession_number), lower(?))", _texts(word)),
        ("instr(folded(s.study_description), ?)", (*look.folded, *look.joined)),
        ("instr(upper(s.study_description), ?)", look.signs),
        ("s.study_instance_uid = ?", [word]),
        ("s.study_instance_uid IN (SELECT study_instance_uid FROM series WHERE modality = ?)",
         [word.upper()]),
    )  # fmt: skip
    date = _beginning_of_date(word)
    if date is not None:
        condition += " OR substr(s.study_date, 1, length(?)) = ?"
        values += [date, date]
    return condition, values


def _texts(word: str) -> Iterable[str]:
    return dict.fromkeys((word, unicodedata.normalize("NFKC", word)))  # full-width digits


def _any(*conditions: tuple[str, Iterable[str]]) -> tuple[str, list[str]]:
    """Join each condition, once for each of its values, by OR."""
    pairs = [(condition, value) for condition, values in conditions for value in values]
    return " OR ".join(condition for condition, _ in pairs), [value for _, value in pairs]


def _beginning_of_date(word: str) -> str | None:
    """Return `YYYY[-MM[-DD]]` where a word may mean that."""
    if re.fullmatch(r"\d{4}(-\d{2}){0,2}", word):
        return word
    if re.fullmatch(r"(19|20)\d{6}", word):
        return f"{word[:4]}-{word[4:6]}-{word[6:]}"
    if local := re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", word):
        return f"{local[3]}-{int(local[2]):02d}-{int(local[1]):02d}"
    return None
