from __future__ import annotations

import os
import sqlite3
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from ingester.errors import Fatal
from ingester.index import Corrupt, Reader, Writer
from ingester.index.names import folded, normalised
from ingester.model import Derivative, DerivativeReason, Kind, Outcome, Reason, Status
from tests.factory import uid
from tests.scripts import NAMES
from tests.unit.index.records import archived, at, header, set_aside


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer.open(tmp_path / "index.db")
    yield writer
    writer.close()


@pytest.fixture
def reader(writer: Writer) -> Iterator[Reader]:
    with Reader.open(writer.path) as reader:
        yield reader


def test_without_an_index_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="no index"):
        Reader.open(tmp_path / "index.db")


def test_what_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(Corrupt):
        Reader.open(tmp_path / "index.db")


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM arrivals",
        "INSERT INTO events (at, kind) VALUES ('', '')",
        "CREATE TEMP TABLE t (a)",
        "ATTACH 'other.db' AS other",
        "ATTACH ':memory:' AS other",
        "VACUUM INTO 'copy.db'",
        "VACUUM",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "PRAGMA wal_checkpoint",
        "PRAGMA writable_schema = ON",
        "BEGIN IMMEDIATE",
        "REINDEX",
        "ANALYZE",
        "SELECT load_extension('x')",
        "SELEC 1",
        "SELECT 1; SELECT 2",
    ],
)
def test_sql_that_does_more_than_read_is_refused(
    reader: Reader, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(Fatal):
        reader.query(sql)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM images",
        "SELECT * FROM study_list",
        "SELECT * FROM batches",
        "SELECT * FROM problems",
        "SELECT * FROM arrivals_by_day",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n",
        "SELECT key FROM headers, json_each(attributes)",
        "PRAGMA table_info(instances)",
        "PRAGMA user_version",
        "EXPLAIN QUERY PLAN SELECT * FROM images",
        "SELECT group_concat(name) OVER (ORDER BY name) FROM sqlite_master",
    ],
)
def test_sql_that_reads_is_answered(reader: Reader, sql: str) -> None:
    names, rows = reader.query(sql)
    assert names
    list(rows)


def test_a_reader_sees_what_is_committed_and_holds_nobody_up(
    writer: Writer, reader: Reader
) -> None:
    with reader.consistent():
        assert reader.rows("SELECT count(*) AS n FROM images") == [{"n": 0}]
        writer.record([archived(header())])
        assert reader.rows("SELECT count(*) AS n FROM images") == [{"n": 0}]
    assert reader.rows("SELECT count(*) AS n FROM images") == [{"n": 1}]


def test_an_index_nobody_has_open_is_readable_in_a_folder_nobody_may_write(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    writer = Writer.open(folder / "index.db")
    writer.record([archived(header())])
    writer.close()
    folder.chmod(0o500)
    try:
        with Reader.open(folder / "index.db") as reader:
            assert reader.rows("SELECT count(*) AS n FROM images") == [{"n": 1}]
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("words", "is_found"),
    [
        ("müller", True),
        ("Muller", True),
        ("MUELLER", True),
        ("jurgen müller", True),
        ("山田", False),
        ("2024-01", True),
        ("20240101", True),
        ("1.1.2024", True),
        ("2023", False),
        ("ct", True),
        ("MR", False),
        ("a001", True),
        ("p0001 abdomen", True),
        ("p0001 thorax", False),
        ("100%", False),
    ],
)
def test_find_takes_words_as_people_type_them(
    writer: Writer, reader: Reader, words: str, is_found: bool
) -> None:
    writer.record([archived(header(patient_name="Müller^Jürgen"))])
    assert bool(reader.find(words.split())) is is_found


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("number", range(len(NAMES)), ids=[name.script for name in NAMES])
def test_a_name_is_found_by_whatever_people_type(
    writer: Writer, reader: Reader, number: int, form: Literal["NFC", "NFD"]
) -> None:
    name = NAMES[number]
    written = unicodedata.normalize(form, name.text)
    writer.record([archived(header(patient_name=written, patient_id="7"))])
    for typed in name.typed:
        assert len(reader.find([typed])) == 1, typed
    for typed in name.other:
        assert reader.find([typed]) == [], typed


def test_words_of_a_description_are_found_in_any_script(writer: Writer, reader: Reader) -> None:
    for study, description in enumerate(("CHEST^ROUTINE", "胸部CT平扫", "Поясница", "Schädel")):
        writer.record([archived(header(study=study, study_description=description))])
    for typed, study in (
        ("routine chest", 0), ("胸部", 1), ("平扫 ct", 1), ("поясница", 2), ("poyasnitsa", 2),
        ("schadel", 3), ("SCHÄDEL", 3),
    ):  # fmt: skip
        assert [row["study_id"] for row in reader.find([typed])] == [str(study)], typed


def test_numbers_are_found_in_full_width_and_as_written(writer: Writer, reader: Reader) -> None:
    writer.record([archived(header(patient_id="ÄB-17", accession_number="４７１１"))])
    for typed in ("ÄB-17", "Äb-17", "17", "１７", "４７１１"):
        assert len(reader.find([typed])) == 1, typed
    assert reader.find(["^"]) == []


def test_find_lists_the_latest_first(writer: Writer, reader: Reader) -> None:
    writer.record([archived(header(study=n)) for n in (2, 3, 1)])
    assert [row["study_id"] for row in reader.find([])] == ["3", "2", "1"]
    assert [row["study_id"] for row in reader.find(["family"], limit=1)] == ["3"]


def test_names() -> None:
    assert normalised(" de  la^ Cruz ^^ ") == normalised("DE LA^CRUZ") == "DE LA^CRUZ"
    assert normalised("A^B==") == "A^B"
    assert normalised(None) == folded(None) == ""
    assert folded("Łukasz^Ørsted") == "lukasz orsted"
    assert folded("Ильин^Ярь") == "ilin yar"
    assert folded("O’Brien^D`Arcy") == folded("O'Brien^D'Arcy") == "o'brien d'arcy"
    assert folded("ﾔﾏﾀﾞ^ﾀﾛｳ") == folded("ヤマダ^タロウ") == folded("やまだ^たろう") == "yamada tarou"


def test_show_tells_all_of_a_uid(writer: Writer, reader: Reader) -> None:
    detail = {"differs": ["PatientName"], "pixels_differ": True}
    ids = writer.record(
        [
            archived(header(attributes={"KVP": 120})),
            archived(header(), outcome=Outcome.CONFLICT, salt="x", detail=detail, second=1),
            archived(header(series=2)),
        ]
    )
    assert ids[0] is not None
    writer.record_derivatives(
        [Derivative(ids[0], Kind.THUMBNAIL, Status.MADE, None, "x.jpg", 1, at(2), {"frame": 3})]
    )
    shown = reader.show(uid(1, 1, 1, 1))
    assert shown is not None
    assert (shown.level, len(shown.instances), len(shown.history)) == ("instance", 2, 2)
    assert shown.instances[0]["attributes"] == {"KVP": 120}
    assert shown.instances[0]["derivatives"][0]["detail"] == {"frame": 3}
    told = shown.history[1]["explanation"]
    assert "names another patient (PatientName differs); it differs in its pixels" in told
    assert [row["kind"] for row in shown.problems] == ["conflict"]
    study = reader.show(uid(1, 1))
    assert study is not None
    assert (study.level, len(study.series), len(study.instances)) == ("study", 2, 3)
    series = reader.show(uid(1, 1, 2))
    assert series is not None
    assert (series.level, len(series.instances)) == ("series", 1)
    assert reader.show("1.2.3") is None


def test_quarantine_batches_and_problems(writer: Writer, reader: Reader) -> None:
    (i, *_) = writer.record(
        [
            archived(header(), batch="CD"),
            set_aside("a-1", batch="CD"),
            set_aside("a-2", Reason.NOT_DICOM, batch="CD"),
            set_aside("a-3", batch="CD"),
        ]
    )
    assert i is not None
    writer.record_derivatives(
        [Derivative(i, Kind.VIDEO, Status.FAILED, DerivativeReason.TIMEOUT, None, 1, at(3))]
    )
    writer.mark_retried("a-3", "a-4", at(4))
    assert [row["arrival_id"] for row in reader.quarantine()] == ["a-1"]
    assert [row["arrival_id"] for row in reader.quarantine(with_foreign=True)] == ["a-1", "a-2"]
    assert (reader.sources_of_batch("CD"), reader.batch_names()) == (["MANUAL"], ["CD"])
    assert (reader.sources_of_batch("DC"), reader.batch("MANUAL", "DC")) == ([], None)
    batch = reader.batch("MANUAL", "CD")
    assert batch is not None
    assert (batch["arrived"], batch["archived"], batch["quarantined"], batch["foreign"]) == (
        3, 1, 1, 1,
    )  # fmt: skip
    messages = [row["message"] for row in reader.problems()]
    assert messages == [
        "The file was cut short: part of it never arrived. Send it again."
        " Next: ingester retry a-1, or: ingester resolve a-1",
        "The video could not be made: it took longer than the limits allow."
        " The object itself is archived and whole. Next: ingester derive --failed",
    ]


def test_every_reason_has_words_of_its_own(writer: Writer, reader: Reader) -> None:
    reasons = [each for each in Reason if each.outcome is Outcome.QUARANTINED]
    writer.record([set_aside(f"a-{each}", each) for each in reasons])
    messages = {row["message"].partition(" Next: ")[0] for row in reader.problems()}
    assert len(messages) == len(reasons)
    assert "The file could not be archived." not in messages


def test_every_question_of_the_views_uses_an_index(reader: Reader) -> None:
    asked = {
        "SELECT * FROM instances WHERE sop_instance_uid = 'x'": "instances_by_sop_instance_uid",
        "SELECT * FROM images WHERE study_instance_uid = 'x'": "instances_by_study",
        "SELECT * FROM arrivals WHERE source = 'x' AND batch = 'y'": "arrivals_by_batch",
        "SELECT * FROM problems": "arrivals_quarantined",
        "SELECT count(*) FROM derivatives WHERE kind = 'video' AND pipeline_version >= 1":
            "derivatives_by_kind",
    }  # fmt: skip
    for sql, index in asked.items():
        plan = " ".join(str(row[-1]) for row in reader.query(f"EXPLAIN QUERY PLAN {sql}")[1])
        assert index in plan, (sql, plan)


def test_undecodable_text_does_not_spoil_an_answer(writer: Writer, reader: Reader) -> None:
    writer.record([set_aside("a-1")])
    writer.run_in_transaction(
        lambda c: c.execute("UPDATE arrivals SET batch = CAST(x'42ff' AS TEXT)")
    )
    assert reader.rows("SELECT batch FROM arrivals") == [{"batch": "B\ufffd"}]


def test_readers_cannot_be_talked_into_writing(reader: Reader) -> None:
    with pytest.raises(sqlite3.DatabaseError):
        reader.connection.execute("DELETE FROM arrivals")
