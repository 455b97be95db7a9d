"""Which studies somebody means who types a few words.

    found, values = matching(["müller", "2024-03", "MR"])
    connection.execute(f"SELECT s.study_instance_uid {found}", values)

All studies are gone through, with their patients, and no objects: a list of twenty
thousand takes some hundredths of a second.  The connection must know `folded`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ingester.index.names import HAS_DIGRAPH, wanted, words_of


def matching(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the FROM and WHERE of the studies that match every word, and their values."""
    parts = [part for word in words for part in words_of(word)]
    conditions, values = ["0"] if words and not parts else ["1"], list[str]()
    for word in parts:
        condition, its_values = _matching(word)
        conditions.append(condition)
        values += its_values
    return (
        "FROM studies AS s JOIN patients AS p ON p.patient_key = s.patient_key"
        f" WHERE {' AND '.join(conditions)}",
        values,
    )


def _matching(word: str) -> tuple[str, list[str]]:
    look = wanted(word)
    texts = dict.fromkeys((word, unicodedata.normalize("NFKC", word)))  # full-width digits
    conditions: list[str] = []
    values: list[str] = []
    for condition, its_values in (
        ("instr(p.patient_name_folded, ?)", look.folded),
        ("instr(replace(p.patient_name_folded, ' ', ''), ?)", look.joined),
        ("instr(replace(replace(p.patient_name_normalised, '^', ''), ' ', ''), ?)", look.signs),
        ("instr(lower(p.patient_id), lower(?))", texts),
        ("instr(lower(s.accession_number), lower(?))", texts),
        ("instr(folded(s.study_description), ?)", (*look.folded, *look.joined)),
        ("instr(upper(s.study_description), ?)", look.signs),
        ("s.study_instance_uid = ?", [word]),
        ("s.study_instance_uid IN (SELECT study_instance_uid FROM series WHERE modality = ?)",
         [word.upper()]),
    ):  # fmt: skip
        for value in its_values:
            conditions.append(condition)
            values.append(value)
    if look.shortened is not None:
        conditions.append("(p.patient_name GLOB ? AND instr(p.patient_name_folded, ?))")
        values += [HAS_DIGRAPH, look.shortened]
    date = _beginning_of_date(word)
    if date is not None:
        conditions.append("substr(s.study_date, 1, length(?)) = ?")
        values += [date, date]
    return f"({' OR '.join(conditions)})", values


def _beginning_of_date(word: str) -> str | None:
    """Return `YYYY[-MM[-DD]]` where a word may mean that."""
    if re.fullmatch(r"\d{4}(-\d{2}){0,2}", word):
        return word
    if re.fullmatch(r"(19|20)\d{6}", word):
        return f"{word[:4]}-{word[4:6]}-{word[6:]}"
    if local := re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", word):
        return f"{local[3]}-{int(local[2]):02d}-{int(local[1]):02d}"
    return None
