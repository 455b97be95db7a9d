"""One patient ID and two people: told once, settled by a person, never by a misspelling."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingester.index import Writer
from ingester.index.names import is_another, normalised, says_more
from ingester.model import Outcome
from tests.factory import uid
from tests.unit.index.records import archived, at, header
from tests.unit.index.test_writer import ask

OTHER: dict[str, Any] = {"patient_id": "P0001", "patient_name": "Other^Person"}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer.open(tmp_path / "index.db")
    yield writer
    assert ask(writer, "PRAGMA foreign_key_check") == []
    writer.close()


def problems(writer: Writer) -> list[tuple[str, str]]:
    return ask(writer, "SELECT kind, reason FROM problems ORDER BY kind, reason")


def record(writer: Writer, *headers: Any) -> None:
    """Record each in a transaction of its own, as they come over a day."""
    for each in headers:
        writer.record([archived(each)])


@pytest.mark.parametrize("is_reopened", [False, True])
def test_one_id_with_another_name_or_birth_date_is_two_patients_and_a_problem(
    writer: Writer, is_reopened: bool
) -> None:
    record(writer, header())
    if is_reopened:
        writer._abandon()
    record(writer, header(2, **OTHER))
    assert problems(writer) == [("patient-identity", "patient_name")]
    (message,) = ask(writer, "SELECT message FROM problems")
    assert message.startswith(
        f"One patient ID, two patients: study {uid(2, 1)} has another name than study {uid(1, 1)}"
    )
    assert "Other" not in message
    assert "P0001" not in message
    assert ask(writer, "SELECT count(*) FROM patients") == [2]
    record(writer, header(3, patient_id="P0001", patient_name="Family1^Given1",
                          patient_birth_date="1980-01-01"))  # fmt: skip
    # The third differs from the first by the birth date, from the second by both.
    assert problems(writer) == [
        ("patient-identity", "patient_birth_date"),
        ("patient-identity", "patient_name"),
        ("patient-identity", "patient_name"),
    ]
    # More of a patient who is known is no news.
    record(writer, header(2, 2, **OTHER), header(2, 1, 2, 2, **OTHER))
    assert len(problems(writer)) == 3


@pytest.mark.parametrize("study", [uid(1, 1), uid(2, 1)])
def test_resolving_either_study_settles_it_and_a_third_patient_is_news(
    writer: Writer, study: str
) -> None:
    record(writer, header(), header(2, **OTHER))
    writer.resolve([], decision="accept", at=at(9), study_instance_uid=study)
    assert problems(writer) == []
    record(writer, header(3, patient_id="P0001", patient_name="Third^Person"))
    assert problems(writer) == [("patient-identity", "patient_name")]


@pytest.mark.parametrize(
    "said",
    [
        {"patient_id": None},
        {"issuer_of_patient_id": "CLINIC"},
        {"patient_name": None, "patient_birth_date": None},
        {"patient_name": "FAMILY1^GIVEN1^^"},
        {"patient_name": "Family1 Given1"},
        {"patient_name": "Family1^Given1^Maria^Dr."},
        {"patient_name": "Family1^Given1=山田^太郎=やまだ^たろう"},
        {"patient_name": "=山田^太郎"},
        {"patient_name": "Fam\ufffdly1^Given1"},
        {"patient_birth_date": None, "patient_sex": "F"},
    ],
)
def test_what_is_left_out_or_spelt_otherwise_contradicts_nothing(
    writer: Writer, said: dict[str, Any]
) -> None:
    record(writer, header(), header(2, **{**OTHER, "patient_name": "Family1^Given1", **said}))
    assert problems(writer) == []
    record(writer, header(3, **OTHER))  # whereas this is somebody else
    assert problems(writer) == [("patient-identity", "patient_name")]


@pytest.mark.parametrize(
    ("one", "other", "is_other"),
    [
        ("Müller^Jörg", "MUELLER^JOERG", False),
        ("Müller^Jörg", "Muller^Jorg", False),
        ("Sørensen^Åse", "Soerensen^Aase", False),
        ("Weiß", "WEISS", False),
        ("Семёнов", "СЕМЕНОВ", False),
        ("Διονύσιος", "ΔΙΟΝΥΣΙΟΣ", False),
        ("أحمد", "احمد", False),
        ("Yamada^Tarou", "Yamada^Tarou=山田^太郎", False),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou==やまだ^たろう", False),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ヤマダ^タロウ", False),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou=山口^太郎", True),
        ("か", "が", True),
        ("Smith^John", "Smith^Jane", True),
        ("Smith^John", "John^Smith", True),
        ("Smith^John", "Smith^J", True),
        ("Smith^John", "Smithe^John", True),
        ("Smith John", "Smith^Jane", True),
        ("何", "河", True),
    ],
)
def test_another_name_is_one_that_no_spelling_explains(
    one: str, other: str, is_other: bool
) -> None:
    assert is_another(normalised(one), normalised(other)) is is_other
    assert is_another(normalised(other), normalised(one)) is is_other


def test_more_component_groups_say_more() -> None:
    assert says_more("A=B", "A")
    assert says_more("A=B=C", "A==C")
    assert not says_more("A", "A")
    assert not says_more("A", "A=B")
    assert not says_more("A=B", "A==C")
    assert not says_more("AE=B", "Ä")


def test_a_report_without_a_name_that_comes_first_leaves_no_patient_behind(
    writer: Writer,
) -> None:
    nameless: dict[str, Any] = {
        "patient_name": None,
        "patient_birth_date": None,
        "patient_sex": None,
    }
    record(writer, header(modality="SR", **nameless), header(instance=2, series=2))
    record(writer, header(instance=3, series=3, **nameless))
    full: dict[str, Any] = {"patient_name": "Family1^Given1=山田^太郎"}
    record(writer, header(instance=4, series=4, **full))
    assert ask(writer, "SELECT patient_name FROM patients") == ["Family1^Given1=山田^太郎"]
    assert ask(writer, "SELECT patient_name FROM study_list") == ["Family1^Given1=山田^太郎"]
    assert problems(writer) == []
    # Whoever the nameless study turns out to be is compared then.
    record(writer, header(2, 1, **{**OTHER, **nameless}))
    assert problems(writer) == []
    record(writer, header(2, 1, 2, 2, **OTHER))
    assert problems(writer) == [("patient-identity", "patient_name")]
    assert ask(writer, "SELECT count(*) FROM patients") == [2]


def test_a_patient_whom_only_a_contradicting_object_names_is_compared_when_a_study_comes(
    writer: Writer,
) -> None:
    record(writer, header(), header(2), header(2, instance=2, **OTHER))
    assert problems(writer) == [
        ("patient-identity", "patient_id"), ("patient-identity", "patient_name"),
    ]  # fmt: skip
    record(writer, header(3, **OTHER))
    assert len(problems(writer)) == 3
    assert ask(writer, "SELECT count(*) FROM patients") == [3]


def test_a_patient_to_whom_somebodys_own_table_refers_stays(writer: Writer, tmp_path: Path) -> None:
    record(writer, header(patient_name=None))
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.executescript(
            "CREATE TABLE mine (patient_key INTEGER REFERENCES patients);"
            "INSERT INTO mine SELECT patient_key FROM patients;"
        )
    record(writer, header(instance=2))
    assert ask(writer, "SELECT patient_name FROM study_list") == ["Family1^Given1"]
    assert ask(writer, "SELECT count(*) FROM patients") == [2]


def test_an_id_that_many_share_identifies_nobody(writer: Writer) -> None:
    people = [header(n, patient_id="0", patient_name=f"N{n}") for n in range(1, 31)]
    writer.record([archived(each, second=n) for n, each in enumerate(people)])
    assert ask(writer, "SELECT count(*) FROM patients") == [30]
    assert problems(writer) == [("patient-identity", "patient_name")] * 10


def test_a_correction_that_is_made_current_takes_the_problem_away(writer: Writer) -> None:
    record(writer, header(), header(2, **OTHER), header(3, **OTHER))
    assert problems(writer) == [("patient-identity", "patient_name")]
    corrected = header(1, patient_name="Other^Person")
    writer.record([archived(corrected, outcome=Outcome.CONFLICT, salt="x", second=8)])
    writer.resolve([], decision="make-current", at=at(9), study_instance_uid=uid(1, 1))
    unsettled = "SELECT uid FROM contradictions WHERE other_uid IS NOT NULL"
    assert ask(writer, unsettled) == []
    assert problems(writer) == []
    # And a correction that takes it away from one pair may bring another.
    again = header(2, **{**OTHER, "patient_name": "Wrong^Again"})
    writer.record([archived(again, outcome=Outcome.CONFLICT, salt="y", second=10)])
    writer.resolve([], decision="make-current", at=at(11), study_instance_uid=uid(2, 1))
    assert ask(writer, "SELECT uid, other_uid FROM contradictions WHERE other_uid NOT NULL") == [
        (uid(2, 1), uid(1, 1))
    ]


def test_a_decision_about_something_else_tells_it_no_second_time(writer: Writer) -> None:
    record(writer, header(), header(2, **OTHER))
    other = header(1, study_description="Thorax")
    version = archived(other, outcome=Outcome.CONFLICT, salt="x", second=8)
    writer.record([version])
    decided = writer.resolve([version.arrival_id], decision="make-current", at=at(9))
    assert decided.settled == [version.arrival_id]
    assert ask(writer, "SELECT uid, other_uid FROM contradictions WHERE level = 'patient'") == [
        (uid(2, 1), uid(1, 1))
    ]
    assert problems(writer) == [("patient-identity", "patient_name")]
