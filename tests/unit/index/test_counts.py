"""The counts behind lists of studies, batches and days say what the rows say."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import hospital
from ingester.index import Writer, migrations
from ingester.index.connection import connect_writer
from ingester.index.counts import miscounted, recount
from ingester.model import ArrivalRecord, Derivative, Kind, Outcome, Reason, Status
from tests.indexes import whole
from tests.unit.index.records import archived, at, header, set_aside

_BATCHES = (None, "CD_1", "CD_2")
_SOURCES = ("CT1", "MANUAL")
# Within one quarter of an hour, and in others.
_MOMENTS = tuple(f"2026-03-02T{each}.000Z" for each in ("08:14:59", "08:15:00", "08:29:59",
                                                        "22:59:00", "23:01:00"))  # fmt: skip
_HAPPENS = (
    "new", "conflict", "duplicate", "broken", "foreign", "retry", "discard", "made", "again",
)  # fmt: skip

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "new",
                "conflict",
                "duplicate",
                "broken",
                "foreign",
                "retry",
                "discard",
                "made",
                "again",
            )
        ),
        st.sampled_from(_SOURCES),
        st.sampled_from(_BATCHES),
        st.sampled_from(_MOMENTS),
        st.integers(1, 3),
    ),
    max_size=30,
)


@given(steps=_STEPS)
@settings(max_examples=40, deadline=None)
def test_whatever_arrives_and_is_decided_the_counts_are_right(
    steps: list[tuple[str, str, str | None, str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("counts") / "index.db"
    with closing(Writer.open(path)) as writer:
        for number, (what, source, batch, moment, place) in enumerate(steps):
            _do(writer, number, what, source, batch, moment, place)
        assert writer.run_in_transaction(miscounted) == []
        assert _list(writer, "study_list") == _studies_by_hand(writer)
        assert _list(writer, "batches") == _batches_by_hand(writer)
        writer.run_in_transaction(recount)
        assert writer.run_in_transaction(miscounted) == []


def _do(
    writer: Writer,
    number: int,
    what: str,
    source: str,
    batch: str | None,
    moment: str,
    place: int,
) -> None:
    waiting = writer.run_in_transaction(
        lambda c: c.execute(
            "SELECT arrival_id FROM arrivals WHERE outcome IN ('quarantined', 'foreign')"
            " AND resolved_at IS NULL AND retried_as IS NULL ORDER BY 1"
        ).fetchall()
    )
    arrival_id = f"{number:024x}"
    if what == "made":
        _derive(writer, place)
        return
    if what == "again":
        writer.forget_derivatives(Kind.VIDEO if place == 1 else None, "failed")
        return
    if what in ("retry", "discard"):
        for (waits,) in waiting[:place]:
            if what == "retry":
                writer.mark_retried(waits, arrival_id, moment)
            else:
                writer.run_in_transaction(
                    lambda c, waits=waits: c.execute(  # type: ignore[misc]
                        "UPDATE arrivals SET outcome = 'discarded', resolved_at = ?"
                        " WHERE arrival_id = ?", (moment, waits),
                    )
                )  # fmt: skip
        return
    record = _record(number, what, source, place)
    writer.record(
        [replace(record, arrival_id=arrival_id, batch=batch, arrived_at=moment, finished_at=moment)]
    )


def _derive(writer: Writer, place: int) -> None:
    """Make a derivative, or make it again, of the first three instances."""
    ids = writer.run_in_transaction(
        lambda c: c.execute("SELECT instance_id FROM instances LIMIT 3").fetchall()
    )
    writer.record_derivatives(
        [
            Derivative(each, kind, list(Status)[(each + place) % 3], None, None, place, at(0))
            for (each,) in ids
            for kind in Kind
        ]
    )


def _record(number: int, what: str, source: str, place: int) -> ArrivalRecord:
    if what in ("broken", "foreign"):
        reason = Reason.INCOMPLETE if what == "broken" else Reason.NOT_DICOM
        return replace(set_aside("a", reason), source=source, size_bytes=number)
    instance = header(place, 1, number % 2, number, study_date=f"2024-01-0{place}")
    outcome = Outcome.CONFLICT if what == "conflict" else Outcome.ARCHIVED
    record = archived(instance, source=source, outcome=outcome, salt=str(number))
    if what == "duplicate":
        return replace(record, outcome=Outcome.DUPLICATE, instance=None, stored=None)
    return record


def _list(writer: Writer, view: str) -> list[tuple[Any, ...]]:
    columns = {
        "study_list": "study_instance_uid, series_count, instance_count, size_bytes, modalities,"
        " sources, folders",
        "batches": "*",
    }[view]
    return writer.run_in_transaction(
        lambda c: c.execute(f"SELECT {columns} FROM {view} ORDER BY 1, 2").fetchall()
    )


def _studies_by_hand(writer: Writer) -> list[tuple[Any, ...]]:
    instances = writer.run_in_transaction(
        lambda c: c.execute(
            "SELECT study_instance_uid, series_instance_uid, size_bytes, source, path"
            " FROM instances"
        ).fetchall()
    )
    found = []
    for uid in sorted({row[0] for row in instances}):
        mine = [row for row in instances if row[0] == uid]
        folders = sorted({row[4].rsplit("/", 1)[0] for row in mine})
        found.append(
            (uid, len({row[1] for row in mine}), len(mine), sum(row[2] for row in mine), "CT",
             ",".join(sorted({row[3] for row in mine})), ",".join(folders))
        )  # fmt: skip
    return found


def _batches_by_hand(writer: Writer) -> list[tuple[Any, ...]]:
    arrivals = writer.run_in_transaction(
        lambda c: c.execute(
            "SELECT source, batch, arrived_at, finished_at, outcome, size_bytes, retried_as"
            " FROM arrivals WHERE batch IS NOT NULL"
        ).fetchall()
    )
    found = []
    for source, batch in sorted({row[:2] for row in arrivals}):
        mine = [row for row in arrivals if row[:2] == (source, batch)]
        counted = [row for row in mine if row[6] is None]
        if counted:
            outcomes = [row[4] for row in counted]
            found.append(
                (source, batch, min(row[2] for row in mine), max(row[3] for row in mine),
                 len(counted), *(outcomes.count(each.value) for each in Outcome),
                 sum(row[5] for row in counted))
            )  # fmt: skip
    return found


def test_days_are_those_of_the_clock_on_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Writer.open(tmp_path / "index.db")) as writer:
        for number, moment in enumerate(_MOMENTS):
            record = archived(header(instance=number + 1), arrival_id=str(number))
            writer.record([replace(record, arrived_at=moment)])
    sql = "SELECT day, arrived FROM arrivals_by_day ORDER BY day"
    try:
        for zone, days in {
            "UTC0": [("2026-03-02", 5)],
            "CET-1": [("2026-03-02", 4), ("2026-03-03", 1)],
            "NPT-5:45": [("2026-03-02", 3), ("2026-03-03", 2)],
            "NST3:30": [("2026-03-02", 5)],
            "XST8:15": [("2026-03-01", 1), ("2026-03-02", 4)],
        }.items():
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
                assert connection.execute(sql).fetchall() == days, zone
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index with everything that a hospital has, made by this version."""
    path = tmp_path_factory.mktemp("fresh") / "index.db"
    with closing(Writer.open(path)) as writer:
        hospital.fill(writer, 30, 10)
        writer.mark_retried(_one_that_waits(writer), "f" * 24, at(0))
    return path


def _one_that_waits(writer: Writer) -> str:
    (row,) = writer.run_in_transaction(
        lambda c: c.execute(
            "SELECT arrival_id FROM arrivals WHERE outcome = 'quarantined' LIMIT 1"
        ).fetchall()
    )
    return str(row[0])


#: The first version with counts.
_COUNTED_SINCE = 4


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS)))
def test_an_index_of_an_earlier_version_becomes_what_a_new_one_is(
    fresh: Path, tmp_path: Path, version: int
) -> None:
    path = tmp_path / "index.db"
    with closing(connect_writer(path)) as connection:
        for step in migrations.MIGRATIONS[:version]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("PRAGMA application_id = 0x494E4753")
        connection.execute("ATTACH ? AS fresh", (str(fresh),))
        connection.execute("PRAGMA foreign_keys = OFF")
        for table in _tables(connection):
            if version >= _COUNTED_SINCE and table in ("series_folders", "arrival_counts"):
                continue  # the triggers fill them
            names = ", ".join(
                f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({table})")
            )
            connection.execute(f"DELETE FROM {table}")  # triggers have counted already
            connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM fresh.{table}")
    Writer.open(path).close()
    assert whole(path) == whole(fresh)
    with closing(sqlite3.connect(f"{path}.v{version}")) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (version,)
        assert kept.execute("SELECT count(*) FROM instances").fetchone()[0] > 300


def _tables(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    for (name,) in rows.fetchall():
        if connection.execute(f"SELECT 1 FROM fresh.{name} LIMIT 1").fetchone():
            yield name
