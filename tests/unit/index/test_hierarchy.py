from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingester.index import Writer
from ingester.model import ArrivalRecord
from tests.factory import uid
from tests.unit.index.records import archived, at, header
from tests.unit.index.test_writer import ask


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer.open(tmp_path / "index.db")
    yield writer
    writer.close()


def reopened(writer: Writer) -> Writer:
    writer.close()
    return Writer.open(writer.path)


def problems(writer: Writer) -> list[tuple[str, str]]:
    return ask(writer, "SELECT kind, reason FROM problems ORDER BY kind, reason")


@pytest.mark.parametrize("is_reopened", [False, True])
def test_later_instances_fill_what_the_first_left_out(writer: Writer, is_reopened: bool) -> None:
    writer.record([archived(header(study_id=None, series_description=None, patient_sex=None))])
    if is_reopened:
        writer = reopened(writer)
    writer.record([archived(header(instance=2))])
    assert ask(writer, "SELECT study_id, patient_sex FROM study_list") == [("1", "O")]
    assert ask(writer, "SELECT series_description FROM series") == ["Portal venous"]
    assert problems(writer) == []
    writer.close()


@pytest.mark.parametrize("is_reopened", [False, True])
def test_contradictions_change_nothing_and_show_once(writer: Writer, is_reopened: bool) -> None:
    writer.record([archived(header())])
    if is_reopened:
        writer = reopened(writer)
    for number in (2, 3):
        other = header(instance=number, study_description="Thorax", modality="MR")
        writer.record([archived(other)])
    assert ask(writer, "SELECT study_description FROM studies") == ["Abdomen"]
    assert ask(writer, "SELECT modality FROM series") == ["CT"]
    assert problems(writer) == [
        ("contradiction", "modality"),
        ("contradiction", "study_description"),
    ]
    (message,) = ask(writer, "SELECT message FROM problems WHERE reason = 'modality'")
    assert message.startswith("Objects of one series disagree about the series: modality differs.")
    writer.close()


def test_spelling_is_no_contradiction(writer: Writer) -> None:
    writer.record([archived(header(study_time="10:15:30.500000"))])
    same: dict[str, Any] = {"patient_name": "FAMILY1^given1^^", "study_description": " abdomen "}
    writer.record([archived(header(instance=2, study_time="10:15:30.5", **same))])
    assert problems(writer) == []
    assert ask(writer, "SELECT count(*) FROM patients") == [1]


@pytest.mark.parametrize("is_reopened", [False, True])
def test_a_study_of_two_patients_is_a_problem(writer: Writer, is_reopened: bool) -> None:
    writer.record([archived(header())])
    if is_reopened:
        writer = reopened(writer)
    writer.record([archived(header(instance=2, patient_id="X", patient_name="Other^One"))])
    assert problems(writer) == [
        ("patient-identity", "patient_id"),
        ("patient-identity", "patient_name"),
    ]
    assert ask(writer, "SELECT patient_id FROM study_list") == ["P0001"]
    assert ask(writer, "SELECT count(*) FROM patients") == [2]
    writer.close()


def test_a_third_patient_is_a_new_problem_after_the_second_was_resolved(writer: Writer) -> None:
    writer.record([archived(header()), archived(header(instance=2, patient_id="X"))])
    writer.resolve([], decision="accept", at=at(1), study_instance_uid=uid(1, 1))
    writer.record([archived(header(instance=3, patient_id="X"))])
    assert problems(writer) == []
    writer.record([archived(header(instance=4, patient_id="Y"))])
    assert problems(writer) == [("patient-identity", "patient_id")]


def test_the_fuller_identity_becomes_the_studys(writer: Writer) -> None:
    writer.record([archived(header(patient_birth_date=None))])
    writer.record([archived(header(instance=2))])
    writer.record([archived(header(instance=3, patient_name=None))])
    assert ask(writer, "SELECT patient_birth_date, patient_name FROM study_list") == [
        ("1970-01-31", "Family1^Given1")
    ]
    assert problems(writer) == []


def test_what_describes_rather_than_identifies_is_not_compared(writer: Writer) -> None:
    # Two devices at one study, and the views of one series of radiographs.
    writer.record([archived(header(modality="DX", body_part_examined="HAND"))])
    other = header(
        instance=2, modality="DX", study_time="11:00:00", study_id="77", institution_name="East",
        series_date="2024-01-02", series_time="11:00:01", series_description="lateral",
        body_part_examined="WRIST", protocol_name="wrist",
    )  # fmt: skip
    writer.record([archived(other)])
    assert problems(writer) == []
    assert ask(writer, "SELECT study_time, institution_name FROM studies") == [("10:15:30", "East")]


@pytest.mark.parametrize(
    ("column", "level"),
    [
        ("study_date", "study"), ("accession_number", "study"), ("study_description", "study"),
        ("referring_physician_name", "study"), ("modality", "series"),
        ("series_number", "series"), ("manufacturer", "series"),
        ("manufacturer_model_name", "series"), ("station_name", "series"),
        ("frame_of_reference_uid", "series"),
    ],
)  # fmt: skip
def test_what_identifies_is_compared(writer: Writer, column: str, level: str) -> None:
    value: dict[str, Any] = {column: 1 if column == "series_number" else "1.2"}
    other: dict[str, Any] = {column: 2 if column == "series_number" else "1.3"}
    writer.record([archived(header(**value)), archived(header(instance=2, **other))])
    assert problems(writer) == [("contradiction", column)]
    (message,) = ask(writer, "SELECT message FROM problems")
    assert message.startswith(f"Objects of one {level} disagree about the {level}: ")


def test_a_physician_may_be_spelt_in_several_ways(writer: Writer) -> None:
    names = ("Müller^Anna", "MUELLER^ANNA^^Dr.", "Muller^Anna", "M\ufffdller^Anna")
    for number, name in enumerate(names):
        writer.record([archived(header(instance=number, referring_physician_name=name))])
    assert problems(writer) == []


def test_a_series_in_two_studies_is_a_problem(writer: Writer) -> None:
    writer.record([archived(header())])
    writer.record([archived(header(study=2, series_instance_uid=uid(1, 1, 1)))])
    assert problems(writer) == [("contradiction", "study_instance_uid")]
    assert ask(writer, "SELECT series_count, instance_count FROM study_list") == [(1, 1), (1, 1)]


def test_the_moments_of_a_study_do_not_depend_on_the_order(writer: Writer) -> None:
    for n, second in enumerate((5, 9, 7)):
        writer.record([archived(header(instance=n), second=second)])
    assert ask(writer, "SELECT first_archived_at, last_archived_at FROM studies") == [
        (at(5), at(9))
    ]


_people = st.sampled_from([1, 2])
_records = st.lists(
    st.tuples(_people, st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)),
    min_size=1,
    max_size=8,
    unique=True,
)


def _contents(records: list[ArrivalRecord], cuts: int) -> dict[str, list[Any]]:
    with TemporaryDirectory() as folder:
        writer = Writer.open(Path(folder) / "index.db")
        for start in range(0, len(records), cuts):
            batch = records[start : start + cuts]
            writer.record(batch)
            writer.record(batch)
        found = {
            "studies": ask(writer, "SELECT patient_id, patient_name, study_instance_uid,"
                " study_date, first_archived_at, last_archived_at, series_count, instance_count,"
                " size_bytes, modalities, sources, folders FROM study_list ORDER BY 3"),
            "patients": ask(writer, "SELECT patient_id, patient_name_folded, patient_sex"
                " FROM patients ORDER BY 1"),
            "series": ask(writer, "SELECT * FROM series ORDER BY 1"),
            "instances": ask(writer, "SELECT sop_instance_uid, path, sha256 FROM instances"
                " ORDER BY path"),
            "problems": ask(writer, "SELECT kind, reason FROM problems ORDER BY 1, 2"),
        }  # fmt: skip
        writer.close()
    return found


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(numbers=_records, data=st.data())
def test_any_order_and_any_batches_give_the_same_rows(
    numbers: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    records = [archived(header(*each), second=n) for n, each in enumerate(numbers)]
    shuffled = data.draw(st.permutations(records))
    one = _contents(records, len(records))
    other = _contents(shuffled, data.draw(st.integers(1, len(records))))
    assert one == other
