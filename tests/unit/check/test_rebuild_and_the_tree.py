"""A tree that people and disks have been at: what does not belong is named, the rest comes back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingester.check import Rebuilt, rebuild, repair, verify
from ingester.check.differences import columns_of, listed, own_tables
from ingester.errors import Fatal, Retry
from ingester.index.connection import APPLICATION_ID
from ingester.index.migrations import MIGRATIONS
from ingester.index.writer import Writer
from ingester.model import SystemClock
from tests.factory import drop, encoded, instance, uid
from tests.indexes import told_by_files, whole
from tests.inline import InlineExecutor
from tests.site import Site
from tests.unit.check.scenarios import (
    conflicts,
    derive,
    duplicates,
    lose_index,
    plain_studies,
    put,
    settled_by_a_person,
)


def rebuilt(site: Site, **options: Any) -> Rebuilt:
    return rebuild(
        site.archive.root, site.index, clock=SystemClock(), spool=site.spool.root, **options
    )


def named(done: Rebuilt) -> list[tuple[str, str]]:
    return sorted((each.kind.value, each.path) for each in done.findings)


def paths(site: Site) -> list[str]:
    found: list[str] = site.rows("SELECT path FROM instances ORDER BY instance_id")
    return found


def ids(site: Site) -> dict[str, int]:
    return dict(site.rows("SELECT sop_instance_uid, instance_id FROM instances"))


def both(test: Any) -> Any:
    return pytest.mark.parametrize("is_index_lost", [False, True], ids=["beside it", "alone"])(test)


@both
def test_what_does_not_belong_is_named_and_stays(site: Site, is_index_lost: bool) -> None:
    plain_studies(site)
    before = told_by_files(site.index)
    root, folder = site.archive.root, Path(paths(site)[0]).parent
    drop(root / folder / "1.2.3.dcm", b"not an object")
    drop(root / folder / f"{uid(1, 1, 1, 99)}.dcm", encoded(instance(instance=99))[:-40])
    drop(root / folder / "notes.txt", b"mine")
    drop(root / "CT1" / "Thumbs.db", b"theirs")
    os.symlink(root / paths(site)[0], root / folder / "1.2.4.dcm")
    os.symlink(root / folder, root / "CT1" / "2024")
    everything = {path for path in root.rglob("*") if "index.db" not in path.name}
    if is_index_lost:
        lose_index(site)
    done = rebuilt(site)
    assert named(done) == [
        ("not-an-object", f"{folder}/1.2.3.dcm"),
        ("not-an-object", f"{folder}/{uid(1, 1, 1, 99)}.dcm"),
        ("stray-file", "CT1/2024"),
        ("stray-file", "CT1/Thumbs.db"),
        ("stray-file", f"{folder}/1.2.4.dcm"),
        ("stray-file", f"{folder}/notes.txt"),
    ]
    assert told_by_files(site.index) == before
    assert {path for path in root.rglob("*") if "index.db" not in path.name} == everything


def test_a_file_that_cannot_be_read_is_named(site: Site) -> None:
    plain_studies(site)
    one = site.archive.root / paths(site)[0]

    class Shut(InlineExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            requests, answers = args[0], future.result()
            for number, request in enumerate(requests):
                if request.path == str(one):
                    answers[number] = PermissionError(13, "Permission denied")
            return future

    done = rebuilt(site, executor=Shut)
    assert named(done) == [("unreadable", paths_of(one, site))]
    assert "Permission denied" in done.findings[0].message
    assert done.objects == len(paths(site)) == len(site.objects()) - 1


def paths_of(path: Path, site: Site) -> str:
    return str(path.relative_to(site.archive.root))


def test_an_archive_that_goes_away_meanwhile_leaves_the_old_index(site: Site) -> None:
    plain_studies(site)
    before = whole(site.index)

    class Unmounted(InlineExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            away = site.archive.root / "MANUAL"
            if away.exists():
                away.rename(site.root / "away")
            return super().submit(fn, *args, **kwargs)

    with pytest.raises(Retry, match="cannot be read now"):
        rebuilt(site, executor=Unmounted)
    assert whole(site.index) == before
    assert list(site.archive.root.glob("index.db.rebuild*")) == []
    (site.root / "away").rename(site.archive.root / "MANUAL")
    rebuilt(site)
    site.check()


@both
def test_a_file_that_takes_its_reader_down_is_named_and_the_rest_is_read(
    site: Site, is_index_lost: bool
) -> None:
    plain_studies(site)
    before = whole(site.index)
    poison = paths(site)[2]
    made: list[int] = []

    class Mortal(InlineExecutor):
        def __init__(self) -> None:
            made.append(1)
            self.is_dead = False

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.is_dead:
                raise BrokenProcessPool("a reader died")
            requests = args[0] if isinstance(args[0], list) else []
            if any(each.path.endswith(poison) for each in requests):
                self.is_dead = True
                future: Future[Any] = Future()
                future.set_exception(BrokenProcessPool("a reader died"))
                return future
            return super().submit(fn, *args, **kwargs)

    if is_index_lost:
        lose_index(site)
    done = rebuilt(site, executor=Mortal)
    assert named(done) == [("unreadable", poison)]
    assert len(paths(site)) == len(before["instances"]) - 2
    assert len(made) == 4
    rebuilt(site)
    assert len(paths(site)) == len(before["instances"]) - 1
    site.check()


# -- objects that are elsewhere, gone or changed -----------------------------------------


@both
def test_an_object_in_the_wrong_place_is_taken_in_and_told_where_it_belongs(
    site: Site, is_index_lost: bool
) -> None:
    plain_studies(site)
    before, home = ids(site), paths(site)[1]
    wrong = f"CT1/1999/12/31/1.2.3/{Path(home).name}"
    (site.archive.root / wrong).parent.mkdir(parents=True)
    os.rename(site.archive.root / home, site.archive.root / wrong)
    if is_index_lost:
        lose_index(site)
    done = rebuilt(site)
    assert wrong in paths(site)
    assert named(done) == [("misplaced", wrong)]
    assert home.replace("MANUAL", "CT1") in done.findings[0].message
    assert is_index_lost or ids(site) == before
    site.check()


def test_an_object_that_was_moved_with_its_source_keeps_its_key(site: Site) -> None:
    plain_studies(site)
    derive(site)
    before = ids(site)
    os.rename(site.archive.root / "MANUAL", site.archive.root / "WARD")
    done = rebuilt(site)
    assert done.findings == ()
    assert ids(site) == before
    assert site.rows("SELECT DISTINCT source FROM instances") == ["WARD"]
    assert site.rows("SELECT DISTINCT original_name FROM arrivals WHERE original_name LIKE '1-%'")
    site.check()


@both
def test_a_copy_beside_the_original_is_no_version_of_it(site: Site, is_index_lost: bool) -> None:
    plain_studies(site)
    before, home = told_by_files(site.index), paths(site)[0]
    status = (site.archive.root / home).stat()
    for folder in ("CT1/2024", "AAA", "MANUAL/2024/01/01/1.2"):
        copy = site.archive.root / folder / Path(home).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(site.archive.root / home, copy)  # with its time: it might be the first
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns - 1_000_000_000))
    if is_index_lost:
        lose_index(site)
    done = rebuilt(site)
    assert [kind for kind, _ in named(done)] == ["second-copy"] * 3
    assert all(home in each.message for each in done.findings)
    assert told_by_files(site.index) == before


def test_what_the_old_index_has_and_nobody_finds_is_named(site: Site) -> None:
    plain_studies(site)
    derive(site)
    before, lost = ids(site), paths(site)[:2]
    for path in lost:
        (site.archive.root / path).unlink()
    done = rebuilt(site)
    assert named(done) == sorted(("missing-object", path) for path in lost)
    assert ids(site) == {name: i for name, i in before.items() if f"/{name}.dcm" not in str(lost)}
    assert done.differences is not None
    assert done.differences["instances"].gone == 2
    assert done.differences["patients"].is_equal
    # The arrivals are still told, and the same objects come in anew under other keys.
    assert site.outcomes()["archived"] == len(before)
    put(site, "again", instance(1, instance=1))
    assert ids(site)[uid(1, 1, 1, 1)] > max(before.values())


@both
def test_bytes_that_are_not_those_that_were_archived_stay_told(
    site: Site, is_index_lost: bool
) -> None:
    plain_studies(site)
    path = paths(site)[0]
    recorded = site.rows("SELECT sha256 FROM instances WHERE path = ?", path)
    file = site.archive.root / path
    file.chmod(0o640)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    status = file.stat()
    file.write_bytes(bytes(data))
    file.chmod(0o440)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    if is_index_lost:
        lose_index(site)
        assert rebuilt(site).findings == ()  # nobody knows what they were
        site.check()
        return
    done = rebuilt(site)
    assert named(done) == [("wrong-checksum", path)]
    assert site.rows("SELECT sha256 FROM instances WHERE path = ?", path) == recorded
    found = verify(site.archive.root, site.index, checksum=True).found
    assert [each.kind.value for each in found] == ["wrong-checksum"]
    file.unlink()
    put(site, "again", instance(1, instance=1))
    assert site.outcomes()["duplicate"] == 1
    site.check()


def test_objects_that_the_old_index_does_not_know_come_after_those_it_knows(site: Site) -> None:
    """A backup of the index is older than the archive: its keys stay what they were."""
    plain_studies(site)
    shutil.copy(site.index, site.root / "backup.db")
    before = ids(site)
    put(site, "new", instance(1, instance=9, StudyDescription="Later"))
    put(site, "other", instance(8))
    os.replace(site.root / "backup.db", site.index)
    done = rebuilt(site)
    assert done.findings == ()
    after = ids(site)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after.values()) - set(before.values())) == [8, 9]
    assert site.rows("SELECT study_description FROM studies LIMIT 1") == ["Abdomen"]
    site.check()


def test_another_object_that_claims_to_be_a_known_one_does_not_take_its_place(site: Site) -> None:
    put(site, "a", instance())
    intruder = instance(StudyDescription="Intruder")
    path = f"AAA/2024/01/01/{uid(1, 1)}/{uid(1, 1, 1, 1)}.dcm"
    drop(site.archive.root / path, intruder).chmod(0o440)
    os.utime(site.archive.root / path, ns=(1, 1))  # older than all others
    done = rebuilt(site)
    assert named(done) == [("second-current", path)]
    assert site.rows("SELECT source, version FROM instances ORDER BY instance_id") == [
        ("MANUAL", "current"),
        ("AAA", "conflict"),
    ]
    assert site.rows(
        "SELECT json_extract(detail, '$.differs') FROM arrivals WHERE outcome = 'conflict'"
    ) == ['["StudyDescription"]']
    site.check()


# -- times -------------------------------------------------------------------------------


def test_equal_times_are_taken_in_the_order_of_paths(site: Site) -> None:
    plain_studies(site)
    before = whole(site.index)
    for path in paths(site):
        os.utime(site.archive.root / path, ns=(10**18, 10**18))
    rebuilt(site)
    assert whole(site.index) == before  # the old index knows better
    lose_index(site)
    rebuilt(site)
    assert paths(site) == sorted(paths(site))
    again = whole(site.index)
    lose_index(site)
    rebuilt(site)
    assert whole(site.index) == again
    site.check()


def test_an_archive_restored_without_its_times_loses_the_moments_of_archiving_alone(
    site: Site,
) -> None:
    conflicts(site)
    duplicates(site)
    before, all_before = told_by_files(site.index), whole(site.index)
    for number, path in enumerate(sorted(paths(site), reverse=True)):
        os.utime(site.archive.root / path, ns=(10**18, 10**18 + number * 10**6))
    rebuilt(site)
    assert whole(site.index) == all_before
    lose_index(site)
    rebuilt(site)
    untimed = {
        table: [drop_columns(row, rows[0], "archived_at", "_archived_at", "at") for row in rows]
        for table, rows in told_by_files(site.index).items()
        if table in ("instances", "headers", "patients", "series", "arrivals")
    }
    for table, rows in untimed.items():
        known = before[table]
        expected = [
            drop_columns(row, known[0], "archived_at", "_archived_at", "at") for row in known
        ]
        assert sorted(rows, key=repr) == sorted(expected, key=repr), table
    site.check()


def drop_columns(row: Any, columns: Any, *endings: str) -> tuple[Any, ...]:
    return tuple(v for v, name in zip(row, columns, strict=True) if not name.endswith(endings))


# -- the old index's schema, and whose it is ---------------------------------------------


def as_first_made(index: Path) -> None:
    """Put an index of the very first schema in its place, with the same rows."""
    old = index.with_name("first.db")
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        MIGRATIONS[0](connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("ATTACH ? AS today", (str(index),))
        for table in own_tables(connection):
            there = "SELECT name FROM pragma_table_info(?, 'today')"
            have = {row[0] for row in connection.execute(there, (table,))}
            columns = listed(each for each in columns_of(connection, table) if each in have)
            connection.execute(
                f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM today.{table}"
            )
    for each in index.parent.glob("index.db*"):
        each.unlink()
    old.rename(index)


def test_an_index_of_the_first_schema_gives_all_that_it_has(site: Site) -> None:
    settled_by_a_person(site)
    derive(site)
    before, told = whole(site.index), told_by_files(site.index)
    as_first_made(site.index)
    original = site.index.read_bytes()
    done = rebuilt(site)
    assert done.kept_aside is not None
    assert done.kept_aside.read_bytes() == original
    assert done.differences is not None
    assert all(each.is_equal for each in done.differences.values())
    after = whole(site.index)
    assert after["(schema)"] == before["(schema)"]
    assert {table: len(rows) for table, rows in after.items()} == {
        table: len(rows) for table, rows in before.items()
    }
    assert told_by_files(site.index) == told
    assert list(site.archive.root.glob("index.db.rebuild*")) == []
    site.check()


@pytest.mark.parametrize("application_id", [0, 0x47504B47])
def test_a_database_of_somebody_else_is_left_alone(site: Site, application_id: int) -> None:
    plain_studies(site)
    lose_index(site)
    with closing(sqlite3.connect(site.index)) as theirs:
        theirs.execute("CREATE TABLE appointments (at TEXT)")
        theirs.execute(f"PRAGMA application_id = {application_id}")
    before = site.index.read_bytes()
    assert application_id != APPLICATION_ID
    with pytest.raises(Fatal, match="not an index of ingester"):
        rebuilt(site)
    assert site.index.read_bytes() == before
    assert sorted(each.name for each in site.archive.root.glob("index.db*")) == ["index.db"]


def test_an_index_that_another_program_holds_is_not_taken_for_damaged(site: Site) -> None:
    duplicates(site)
    before = whole(site.index)
    with closing(sqlite3.connect(site.index, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Retry):
            rebuilt(site)
        other.execute("ROLLBACK")
    assert whole(site.index) == before
    site.check()


def test_repair_names_a_copy_and_leaves_it(site: Site) -> None:
    conflicts(site)
    home = paths(site)[0]
    copy = site.archive.root / "CT1" / "2024" / "01" / "01" / "9.9" / Path(home).name
    copy.parent.mkdir(parents=True)
    shutil.copy2(site.archive.root / home, copy)
    found = verify(site.archive.root, site.index).found
    writer = Writer.open(site.index)
    done = repair(found, site.archive.root, writer)
    writer.close()
    assert done.mended == ()
    assert [each.kind.value for each in done.left] == ["second-copy"]
    assert copy.exists()
