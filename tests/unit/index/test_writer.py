from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingester import durable
from ingester.errors import Fatal, Retry
from ingester.index import Corrupt, Event, NotRecorded, Writer, is_missing
from ingester.model import (
    Derivative,
    DerivativeReason,
    Kind,
    Outcome,
    Reason,
    Status,
    Version,
)
from tests.factory import uid
from tests.unit.index.records import archived, at, header, set_aside


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    writer = Writer.open(path)
    yield writer
    writer.close()


def ask(writer: Writer, sql: str, *values: Any) -> list[Any]:
    rows = writer.run_in_transaction(lambda c: c.execute(sql, values).fetchall())
    return [row[0] if len(row) == 1 else tuple(row) for row in rows]


def derivative(instance_id: int, kind: Kind, status: Status = Status.MADE) -> Derivative:
    reason = None if status is Status.MADE else DerivativeReason.TIMEOUT
    return Derivative(instance_id, kind, status, reason, "x.jpg", 1, at(0), {"fps": 12.5})


def test_a_new_index_is_ours_and_not_for_everybody(writer: Writer, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    assert ask(writer, "PRAGMA application_id") == [0x494E4753]
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "mmap_size": 0,
               "wal_autocheckpoint": 0, "busy_timeout": 2000}  # fmt: skip
    connection = writer._connect()
    for name, value in pragmas.items():
        assert connection.execute(f"PRAGMA {name}").fetchone()[0] == value, name


def test_an_archived_instance_has_all_its_rows(writer: Writer) -> None:
    record = archived(header(attributes={"SliceThickness": 1.25}), batch="CD_1")
    (instance_id,) = writer.record([record])
    assert ask(writer, "SELECT path, modality, patient_id, study_id, version FROM images") == [
        (record.stored and record.stored.path, "CT", "P0001", "1", "current")
    ]
    assert ask(writer, "SELECT json_extract(attributes, '$.SliceThickness') FROM headers") == [1.25]
    assert ask(writer, "SELECT arrival_id, outcome, instance_id, batch FROM arrivals") == [
        (record.arrival_id, "archived", instance_id, "CD_1")
    ]


def test_recording_again_changes_nothing(writer: Writer) -> None:
    records = [
        archived(header(instance=1)),
        archived(header(instance=1), outcome=Outcome.CONFLICT, salt="x", detail={"differs": []}),
        set_aside("a-q"),
    ]
    first = writer.record(records)
    before = list(writer._connect().iterdump())
    assert writer.record(records) == first
    assert writer.record([records[2], records[0]]) == [first[2], first[0]]
    assert list(writer._connect().iterdump()) == before


def test_one_arrival_twice_in_one_call_is_one_row(writer: Writer) -> None:
    record = archived(header())
    first, second = writer.record([record, record])
    assert first == second
    assert ask(writer, "SELECT count(*) FROM arrivals") == [1]


def test_the_same_path_and_bytes_again_are_the_same_instance(writer: Writer) -> None:
    record = archived(header())
    (first,) = writer.record([record])
    (second,) = writer.record([replace(record, arrival_id="a-other")])
    assert first == second
    assert ask(writer, "SELECT count(*) FROM instances") == [1]


def test_finished_names_those_with_a_row(writer: Writer) -> None:
    record = archived(header())
    writer.record([record])
    assert writer.finished([record.arrival_id, "a-unknown"]) == {record.arrival_id}
    assert writer.finished([]) == set()


def test_versions_come_oldest_first(writer: Writer) -> None:
    one = archived(header())
    two = archived(header(), outcome=Outcome.VARIANT, salt="v")
    ids = writer.record([one, two])
    found = writer.versions([uid(1, 1, 1, 1), "1.2.3"])
    assert list(found) == [uid(1, 1, 1, 1)]
    versions = found[uid(1, 1, 1, 1)]
    assert [each.instance_id for each in versions] == ids
    assert [each.version for each in versions] == [Version.CURRENT, Version.VARIANT]
    assert one.stored is not None
    assert versions[0].sha256 == one.stored.sha256


def test_a_refused_record_leaves_no_trace_and_the_others_stay(writer: Writer) -> None:
    good = [archived(header(instance=number)) for number in (1, 2, 3)]
    # A second current version of one UID: the index lets only one be.
    bad = archived(header(patient=9, sop_instance_uid=uid(1, 1, 1, 1)), salt="x")
    with pytest.raises(NotRecorded) as caught:
        writer.record([good[0], bad, good[1], good[2]])
    assert set(caught.value.failed) == {bad.arrival_id}
    assert [each is None for each in caught.value.instance_ids] == [False, True, False, False]
    assert ask(writer, "SELECT count(*) FROM instances") == [3]
    assert ask(writer, "SELECT patient_id FROM patients") == ["P0001"]
    # What was remembered of the refused record's patient and study is forgotten too.
    writer.record([archived(header(patient=9))])
    assert ask(writer, "SELECT count(*) FROM studies") == [2]


def test_numbers_too_large_for_sqlite_refuse_one_record_only(writer: Writer) -> None:
    bad = archived(header(patient=2, instance_number=10**30))
    with pytest.raises(NotRecorded):
        writer.record([archived(header()), bad])
    assert ask(writer, "SELECT count(*) FROM arrivals") == [1]


def test_names_that_are_no_text_are_kept_visible(writer: Writer) -> None:
    name = os.fsdecode(b"B\xfcro/IM1")
    writer.record([set_aside("a-1", original_name=name)])
    assert ask(writer, "SELECT original_name FROM arrivals") == ["B\\udcfcro/IM1"]


def test_quarantine_and_conflict_are_events_of_the_same_transaction(writer: Writer) -> None:
    writer.record([archived(header()), set_aside("a-q", batch="B"), set_aside("a-f", Reason.EMPTY)])
    writer.record([archived(header(), outcome=Outcome.CONFLICT, salt="x")])
    rows = ask(writer, "SELECT kind, study_instance_uid, detail FROM events ORDER BY event_id")
    assert [row[:2] for row in rows] == [
        ("arrival.quarantined", None),
        ("arrival.conflict", uid(1, 1)),
    ]
    assert json.loads(rows[0][2]) == {
        "arrival_id": "a-q", "source": "MANUAL", "batch": "B", "reason": "incomplete",
    }  # fmt: skip


def test_attempts_are_counted_until_the_arrival_has_its_row(writer: Writer, path: Path) -> None:
    assert writer.attempts("a-q") == 0
    assert [writer.count_attempt("a-q"), writer.count_attempt("a-q")] == [1, 2]
    writer.close()
    again = Writer.open(path)
    assert again.attempts("a-q") == 2
    again.record([set_aside("a-q", Reason.POISON)])
    assert again.attempts("a-q") == 0
    again.close()


def test_pending_derivatives_are_what_has_no_row(writer: Writer) -> None:
    ids = [i or 0 for i in writer.record([archived(header(instance=n)) for n in range(1, 5)])]
    wanted = {Kind.THUMBNAIL: 1, Kind.VIDEO: 1}

    def pending(limit: int = 10, exclude: tuple[int, ...] = ()) -> dict[int, set[str]]:
        found = writer.pending_derivatives(wanted, limit, exclude=exclude)
        return {each.instance_id: set(each.kinds) for each in found}

    assert pending(2) == {ids[0]: {"thumbnail", "video"}, ids[1]: {"thumbnail", "video"}}
    assert list(pending(2, exclude=(ids[0], ids[1]))) == ids[2:]
    writer.record_derivatives([derivative(ids[0], Kind.THUMBNAIL)])
    writer.record_derivatives([derivative(each, Kind.VIDEO) for each in ids])
    assert list(pending()) == ids[1:]
    writer.record_derivatives([derivative(each, Kind.THUMBNAIL) for each in ids])
    assert pending() == {}
    writer.record([archived(header(instance=9))])
    assert len(pending()) == 1
    wanted[Kind.VIDEO] = 2
    assert len(pending()) == 5


def test_forgotten_derivatives_are_pending_again(writer: Writer) -> None:
    (i,) = writer.record([archived(header())])
    assert i is not None
    both = {Kind.THUMBNAIL: 1, Kind.VIDEO: 1}
    writer.record_derivatives(
        [derivative(i, Kind.THUMBNAIL), derivative(i, Kind.VIDEO, Status.FAILED)]
    )
    assert writer.pending_derivatives(both, 1) == []
    assert writer.forget_derivatives(Kind.THUMBNAIL, "failed") == 0
    assert writer.forget_derivatives(None, "failed") == 1
    assert [each.kinds for each in writer.pending_derivatives(both, 1)] == [{Kind.VIDEO}]
    assert writer.forget_derivatives(Kind.THUMBNAIL, "all") == 1
    assert [each.kinds for each in writer.pending_derivatives(both, 1)] == [set(both)]


def test_a_derivative_row_is_replaced(writer: Writer) -> None:
    (i,) = writer.record([archived(header())])
    assert i is not None
    writer.record_derivatives([derivative(i, Kind.VIDEO, Status.FAILED)])
    writer.record_derivatives([derivative(i, Kind.VIDEO)])
    assert ask(writer, "SELECT status, reason FROM derivatives") == [("made", None)]
    assert ask(writer, "SELECT fps FROM images") == [12.5]


def test_what_raises_in_a_transaction_is_rolled_back(writer: Writer) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO events (at, kind) VALUES ('x', 'y')")
        raise KeyError

    with pytest.raises(KeyError):
        writer.run_in_transaction(change)
    assert ask(writer, "SELECT count(*) FROM events") == [0]


def test_a_commit_that_fails_is_answered_by_asking_again(writer: Writer) -> None:
    record = archived(header())

    def fail(effect: str, _path: str) -> None:
        if effect == "commit":
            raise OSError(28, "No space left on device")

    with durable.observe(fail), pytest.raises(OSError, match="No space"):
        writer.record([record])
    assert writer.finished([record.arrival_id]) == set()
    writer.record([record])
    assert ask(writer, "SELECT count(*) FROM studies") == [1]


def test_another_writer_makes_it_a_retry(writer: Writer, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer._connect().execute("PRAGMA busy_timeout = 0")
    with pytest.raises(Retry):
        writer.record([archived(header())])
    other.execute("ROLLBACK")
    other.close()
    assert writer.record([archived(header())]) == [1]


def test_retry_and_resolution_leave_their_marks(writer: Writer) -> None:
    writer.record([set_aside(f"a-{n}") for n in range(4)])
    writer.mark_retried("a-0", "a-9", at(5))
    decided = writer.resolve(["a-1", "a-0"], decision="discard", at=at(6), note="blank", by="rao")
    assert decided.settled == ["a-1"]
    assert decided.failed == [("a-0", "it was sent back as a-9: decide on that one")]
    assert writer.resolve(["a-2"], decision="accept", at=at(6)).settled == ["a-2"]
    assert ask(writer, "SELECT arrival_id FROM problems") == ["a-3"]
    assert ask(writer, "SELECT outcome, retried_as FROM arrivals ORDER BY arrival_id")[:2] == [
        ("quarantined", "a-9"),
        ("discarded", None),
    ]
    rows = ask(writer, "SELECT decision, arrival_id, note, decided_by, at FROM resolutions")
    assert rows == [("discard", "a-1", "blank", "rao", at(6)), ("accept", "a-2", None, None, at(6))]


def test_a_person_may_make_a_conflict_current(writer: Writer) -> None:
    one = archived(header())
    two = archived(header(), outcome=Outcome.CONFLICT, salt="x")
    writer.record([one, two])
    unchanged = writer.resolve([one.arrival_id], decision="make-current", at=at(6))
    assert (unchanged.settled, unchanged.settled_before) == ([], [one.arrival_id])
    settled = writer.resolve([two.arrival_id], decision="make-current", at=at(6)).settled
    assert settled == [two.arrival_id]
    assert ask(writer, "SELECT version FROM instances ORDER BY instance_id") == [
        "conflict",
        "current",
    ]
    assert ask(writer, "SELECT count(*) FROM problems") == [0]
    assert writer.resolve([two.arrival_id], decision="discard", at=at(6)).settled == []


def test_a_study_is_resolved_as_a_whole(writer: Writer) -> None:
    writer.record(
        [
            archived(header()),
            archived(header(), outcome=Outcome.CONFLICT, salt="x"),
            archived(header(instance=2, study_description="Thorax", modality="MR")),
        ]
    )
    assert len(ask(writer, "SELECT kind FROM problems")) == 3
    writer.resolve([], decision="accept", at=at(6), study_instance_uid=uid(1, 1))
    assert ask(writer, "SELECT kind FROM problems") == []


def test_checkpoint_and_snapshot(writer: Writer, path: Path, tmp_path: Path) -> None:
    writer.record([archived(header(instance=n)) for n in range(1, 9)])
    writer.checkpoint(idle=False)
    writer.checkpoint(idle=True)
    assert path.with_name("index.db-wal").stat().st_size == 0
    copy = tmp_path / "index-snapshot.db"
    for _ in range(2):
        writer.snapshot(copy)
    assert stat.S_IMODE(copy.stat().st_mode) & 0o007 == 0
    with sqlite3.connect(f"file:{copy}?immutable=1", uri=True) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert connection.execute("PRAGMA application_id").fetchone()[0] == 0x494E4753
        assert connection.execute("SELECT count(*) FROM images").fetchone()[0] == 8
    connection.close()
    assert sorted(os.listdir(tmp_path)) == [
        "index-snapshot.db", "index.db", "index.db-shm", "index.db-wal",
    ]  # fmt: skip


def test_events_are_added(writer: Writer) -> None:
    writer.add_events([Event(at(0), "disk.low", None, {"path": "archive"})])
    assert ask(writer, "SELECT kind, detail FROM events") == [("disk.low", '{"path": "archive"}')]


def test_somebody_elses_database_is_refused_unchanged(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Fatal, match="not an index of ingester"):
        Writer.open(path)
    assert path.read_bytes() == before


def test_a_newer_index_is_refused(path: Path) -> None:
    Writer.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Fatal, match="newer"):
        Writer.open(path)


@pytest.mark.parametrize("damage", [b"This is not a database, " * 400, None])
def test_damage_is_told_apart(path: Path, damage: bytes | None) -> None:
    writer = Writer.open(path)
    writer.record([archived(header(instance=n)) for n in range(1, 200)])
    writer.close()
    data = bytearray(path.read_bytes())
    path.write_bytes(damage if damage else bytes(data[:4096]) + b"\xa5" * (len(data) - 4096))
    with pytest.raises(Corrupt):  # noqa: PT012 - at the opening or at the first question
        damaged = Writer.open(path)
        try:
            damaged.versions([uid(1, 1, 1, 1)])
        finally:
            damaged.close()


def test_missing_means_absent_or_empty(path: Path) -> None:
    assert is_missing(path)
    path.touch()
    assert is_missing(path)
    path.write_bytes(b"x")
    assert not is_missing(path)
