"""Verify, repair and rebuild, on a site that ingested real files."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from ingester import durable
from ingester.check import FindingKind, Rebuilt, rebuild, repair, verify
from ingester.errors import Fatal
from ingester.index.writer import Writer
from ingester.model import (
    Derivative,
    DerivativeReason,
    Kind,
    Status,
    SystemClock,
    moment,
)
from tests.factory import drop, encoded, instance
from tests.inline import InlineExecutor
from tests.site import Site
from tests.unit.index.test_additions import NAMES, add

IMPLICIT = "1.2.840.10008.1.2"
#: What must be the same again after a rebuild from the tree alone.
CONTENTS = (
    "SELECT patient_id, issuer_of_patient_id, patient_name, patient_name_folded,"
    " patient_birth_date, patient_sex FROM patients ORDER BY patient_key",
    "SELECT * FROM study_list ORDER BY study_instance_uid",
    "SELECT * FROM series ORDER BY series_instance_uid",
    "SELECT * FROM instances ORDER BY instance_id",
    "SELECT * FROM headers ORDER BY instance_id",
    "SELECT * FROM contradictions ORDER BY uid, attribute, value",
)
#: What only the old index can tell.
CARRIED = (
    "SELECT * FROM arrivals ORDER BY arrival_id",
    "SELECT * FROM derivatives ORDER BY instance_id, kind",
    "SELECT * FROM events ORDER BY event_id",
    "SELECT * FROM resolutions ORDER BY resolution_id",
    "SELECT * FROM claim_attempts",
)


@pytest.fixture
def full(built: Path, tmp_path: Path) -> Site:
    """A site with two studies, a conflict, a duplicate, foreign and broken files."""
    root = tmp_path / "site"
    shutil.copytree(built, root)  # which keeps the files' times
    return Site(root)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = Site(tmp_path_factory.mktemp("built"))
    root = site.spool.root
    for number in range(1, 4):
        drop(root / "CT1" / "CD_1" / f"IM{number}", instance(instance=number))
    site.ingest_all()
    drop(root / "again.dcm", encoded(instance(instance=1), IMPLICIT))
    drop(root / "other.dcm", instance(instance=1, PatientName="Somebody^Else"))
    drop(root / "second.dcm", instance(patient=2, study=2, StudyDescription=None))
    drop(root / "third.dcm", instance(patient=2, study=2, instance=2, Modality="MR"))
    drop(root / "readme.txt", b"see you at noon, bring the films\n" * 20)
    drop(root / "cut.dcm", encoded(instance(patient=3))[:-40])
    site.ingest_all()
    derive(site)
    return site.root


def derive(site: Site) -> None:
    """Put a picture beside each object, and rows for both kinds."""
    writer = Writer.open(site.index)
    pending = writer.pending_derivatives({Kind.THUMBNAIL: 1, Kind.VIDEO: 1}, 100)
    at = moment(SystemClock().now())
    for each in pending:
        path = each.path.removesuffix(".dcm") + ".jpg"
        (site.archive.root / path).write_bytes(b"picture")
        i = each.instance_id
        single = DerivativeReason.SINGLE_FRAME
        writer.record_derivatives(
            [
                Derivative(i, Kind.THUMBNAIL, Status.MADE, None, path, 1, at, {"frame": 0}),
                Derivative(i, Kind.VIDEO, Status.SKIPPED, single, None, 1, at),
            ]
        )
    writer.close()


def found(site: Site, **options: Any) -> list[tuple[str, str]]:
    findings = verify(site.archive.root, site.index, spool=site.spool.root, **options)
    return sorted((each.kind.value, each.path) for each in findings.found)


def contents(site: Site, queries: tuple[str, ...] = CONTENTS) -> list[Any]:
    return [site.rows(query) for query in queries]


def rebuilt(site: Site, **options: Any) -> Rebuilt:
    return rebuild(
        site.archive.root, site.index, clock=SystemClock(), spool=site.spool.root, **options
    )


def objects(site: Site) -> list[str]:
    return sorted(site.objects())


def writable(path: Path) -> Path:
    path.chmod(0o640)
    return path


# -- verify ------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [False, True])
def test_a_healthy_site_is_clean(full: Site, checksum: bool) -> None:
    steps: list[int] = []
    findings = verify(
        full.archive.root,
        full.index,
        spool=full.spool.root,
        checksum=checksum,
        progress=lambda done, total, note: steps.append(done),
    )
    assert findings.found == ()
    assert findings.is_clean
    assert (findings.objects, findings.derivatives) == (6, 6)
    assert (findings.bytes_read > 0) is checksum
    assert steps[-1] == 6


def test_without_an_index_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(Fatal):
        verify(tmp_path, tmp_path / "index.db")


def test_every_loss_is_named(full: Site) -> None:
    root, (first, second, third, *_) = full.archive.root, objects(full)
    (root / first).unlink()
    writable(root / second).write_bytes(b"short")
    picture = third.removesuffix(".dcm") + ".jpg"
    (root / picture).unlink()
    assert found(full) == [
        ("missing-derivative", picture),
        ("missing-object", first),
        ("wrong-size", second),
    ]


def test_only_a_checksum_sees_a_flipped_bit(full: Site) -> None:
    path = objects(full)[0]
    file = writable(full.archive.root / path)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert found(full) == []
    assert found(full, checksum=True) == [("wrong-checksum", path)]


def test_every_file_too_many_is_named(full: Site) -> None:
    root = full.archive.root
    folder = str(Path(objects(full)[0]).parent)
    for path in ("notes.txt", f"{folder}/1.2.3.dcm", f"{folder}/1.2.3.jpg", "a/b", ".staging/x"):
        drop(root / path, b"x")
    drop(root / folder / ".damaged-1-2.dcm", b"x")
    drop(root / os.fsdecode(b"\xff") / "x.dcm", b"x")
    os.symlink("/etc/passwd", root / folder / "9.9.dcm")
    assert found(full) == sorted(
        [
            ("stray-file", "notes.txt"),
            ("stray-file", "a/b"),
            ("stray-file", f"{folder}/9.9.dcm"),
            ("object-without-row", f"{folder}/1.2.3.dcm"),
            ("object-without-row", os.fsdecode(b"\xff/x.dcm")),
            ("derivative-without-row", f"{folder}/1.2.3.jpg"),
            ("leftover", ".staging/x"),
        ]
    )


def test_beside_a_running_service_the_young_are_left_alone(full: Site) -> None:
    first = objects(full)[0]
    drop(full.archive.root / Path(first).parent / "1.2.3.dcm", b"x")
    drop(full.archive.root / ".staging" / "x", b"x")
    assert found(full, is_live=True) == []
    (full.archive.root / first).unlink()
    assert [kind for kind, _ in found(full, is_live=True)] == ["missing-object"]


def test_quarantine_is_compared_with_its_rows(full: Site) -> None:
    folders = sorted((full.spool.root / "quarantine").iterdir())
    assert len(folders) == 2
    shutil.rmtree(folders[0])
    (full.spool.root / "quarantine" / "stranger").mkdir()
    assert found(full) == [
        ("missing-quarantined", f"quarantine/{folders[0].name}"),
        ("quarantined-without-row", "quarantine/stranger"),
    ]


def test_what_a_person_discarded_is_not_left_lying(full: Site) -> None:
    folders = sorted((full.spool.root / "quarantine").iterdir())
    writer = Writer.open(full.index)
    at = moment(SystemClock().now())
    writer.resolve([folders[0].name], decision="discard", at=at)
    writer.resolve([folders[1].name], decision="accept", at=at)
    writer.close()
    # A crash came between the row and the file.
    assert found(full) == [("discarded-left", f"quarantine/{folders[0].name}")]
    assert mend(full) == (["discarded-left"], [])
    assert found(full) == []
    assert [each.name for each in (full.spool.root / "quarantine").iterdir()] == [folders[1].name]


def test_a_damaged_index_is_a_finding(full: Site) -> None:
    data = bytearray(full.index.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    full.index.write_bytes(bytes(data))
    assert {kind for kind, _ in found(full)} == {"index-damaged"}


def test_every_kind_has_words(full: Site) -> None:
    from ingester.check.findings import Finding

    told = {Finding.of(kind, "x").message for kind in FindingKind}
    assert len(told) == len(FindingKind)


# -- repair ------------------------------------------------------------------------------


def mend(site: Site) -> tuple[list[str], list[str]]:
    findings = verify(site.archive.root, site.index, spool=site.spool.root)
    writer = Writer.open(site.index)
    try:
        done = repair(findings.found, site.archive.root, writer, spool=site.spool.root)
    finally:
        writer.close()
    return (
        [each.kind.value for each in done.mended],
        [each.kind.value for each in done.left],
    )


def test_repair_mends_what_costs_no_byte(full: Site) -> None:
    root, before = full.archive.root, full.objects()
    path = objects(full)[3]
    writer = Writer.open(full.index)
    (instance_id,) = full.rows("SELECT instance_id FROM instances WHERE path = ?", path)
    aside = full.rows("SELECT arrival_id FROM arrivals WHERE outcome = 'quarantined'")[0]

    def lose(connection: sqlite3.Connection) -> None:
        for table in ("derivatives", "headers", "contradictions", "arrivals", "instances"):
            connection.execute(f"DELETE FROM {table} WHERE instance_id = ?", (instance_id,))
        connection.execute("DELETE FROM arrivals WHERE arrival_id = ?", (aside,))

    writer.run_in_transaction(lose)
    writer.close()
    (root / objects(full)[0]).with_suffix(".jpg").unlink()
    drop(root / ".staging" / "x", b"x")
    mended, left = mend(full)
    assert sorted(mended) == [
        "index-miscounted", "leftover", "missing-derivative", "object-without-row",
        "quarantined-without-row",
    ]  # fmt: skip
    assert left == ["derivative-without-row"]
    derive(full)
    assert found(full) == []
    assert full.objects() == before


def test_repair_leaves_what_it_cannot_mend(full: Site) -> None:
    first = objects(full)[0]
    (full.archive.root / first).unlink()
    drop(full.archive.root / Path(first).parent / "1.2.3.dcm", b"not an object")
    assert mend(full) == ([], ["not-an-object", "missing-object"])


# -- rebuild -----------------------------------------------------------------------------


@pytest.mark.parametrize("executor", [None, InlineExecutor])
def test_a_rebuild_beside_the_old_index_changes_nothing(
    full: Site, executor: type[InlineExecutor] | None
) -> None:
    writer = Writer.open(full.index)
    conflict = full.rows("SELECT arrival_id FROM arrivals WHERE outcome = 'conflict'")[0]
    writer.resolve([conflict], decision="make-current", at=moment(SystemClock().now()), note="n")
    writer.close()
    before = contents(full), contents(full, CARRIED)
    done = rebuilt(full, executor=executor)
    assert done.findings == ()
    assert done.objects == 6
    assert (contents(full), contents(full, CARRIED)) == before
    assert found(full, checksum=True) == []
    assert done.kept_aside is not None
    assert done.kept_aside.exists()
    full.check()


def test_a_rebuild_from_the_tree_alone_gives_the_same_archive(full: Site) -> None:
    before, outcomes = contents(full), full.outcomes()
    for file in full.index.parent.glob("index.db*"):
        file.unlink()
    done = rebuilt(full)
    assert done.kept_aside is None
    assert done.carried == {}
    assert contents(full) == before
    # What brought nothing new into the tree is known to the old index only.
    del outcomes["duplicate"]
    assert full.outcomes() == outcomes
    assert full.rows("SELECT count(*) FROM derivatives") == [0]
    derive(full)
    assert found(full) == []
    again = contents(full), contents(full, CARRIED)
    rebuilt(full)
    assert (contents(full), contents(full, CARRIED)) == again


def test_a_rebuild_takes_what_a_damaged_index_still_tells(full: Site) -> None:
    before = contents(full)
    data = bytearray(full.index.read_bytes())
    data[len(data) // 2 :] = os.urandom(len(data) - len(data) // 2)
    full.index.write_bytes(bytes(data))
    done = rebuilt(full)
    assert contents(full) == before
    assert done.kept_aside is not None
    assert done.kept_aside.read_bytes() == bytes(data)


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 1000])
def test_a_rebuild_keeps_any_old_file_aside(full: Site, damage: bytes) -> None:
    before = contents(full)
    full.index.write_bytes(damage)
    wal = full.index.with_name("index.db-wal")
    wal.write_bytes(b"log")
    done = rebuilt(full)
    assert done.kept_aside is not None
    assert done.kept_aside.read_bytes() == damage
    assert contents(full) == before


def test_what_cannot_be_taken_in_is_named_and_stays(full: Site) -> None:
    other = next(path for path in objects(full) if "~" not in path)
    folder = full.archive.root / Path(other).parent
    drop(folder / "1.2.3.dcm", b"not an object")
    drop(folder / "1.2.4.dcm", instance(patient=9))
    copy = full.archive.root / "CT1" / "2000" / "01" / "01" / "1.2" / Path(other).name
    drop(copy, (full.archive.root / other).read_bytes())
    done = rebuilt(full)
    assert sorted(each.kind.value for each in done.findings) == [
        "not-an-object", "not-an-object", "second-copy",
    ]  # fmt: skip
    assert (folder / "1.2.3.dcm").exists()
    assert full.rows("SELECT version FROM instances WHERE path LIKE 'CT1/2000%'") == []


def test_objects_with_a_second_name_are_read_too(full: Site) -> None:
    before = contents(full)
    for number, path in enumerate(objects(full)):
        os.link(full.archive.root / path, full.root / str(number))
    shutil.rmtree(full.archive.root / ".staging")
    assert rebuilt(full).findings == ()
    assert contents(full) == before
    assert not (full.archive.root / ".staging").exists()


def test_a_missing_index_takes_what_the_one_kept_aside_last_tells(full: Site) -> None:
    before = contents(full), contents(full, CARRIED)
    rebuilt(full)
    for file in full.index.parent.glob("index.db"):
        file.unlink()
    rebuilt(full)
    assert (contents(full), contents(full, CARRIED)) == before


def test_a_rebuild_carries_over_what_people_added(full: Site) -> None:
    add(full.index)
    add(
        full.index,
        "ALTER TABLE studies ADD COLUMN remark TEXT;"
        "CREATE VIRTUAL TABLE people USING fts5 (patient_name_folded, content = 'patients');"
        "CREATE INDEX remarks ON studies (remark);",
    )
    before = contents(full), contents(full, CARRIED)
    done = rebuilt(full)
    assert done.lost == (
        "the column remark of studies is not carried over",
        "the index remarks cannot be made again",
    )
    assert done.carried["additions"] == len(NAMES) + 1
    assert full.rows("SELECT note FROM notes WHERE study_instance_uid = '1.2.3'") == ["look again"]
    assert full.rows("SELECT rowid FROM words WHERE words MATCH 'liver'") == [7]
    (patient,) = full.rows("SELECT patient_key FROM patients WHERE patient_name = 'Family1^Given1'")
    assert full.rows("SELECT rowid FROM people WHERE people MATCH 'family1'") == [patient]
    assert full.rows("SELECT count(*) FROM my_ct_today") == full.rows("SELECT count(*) FROM images")
    assert full.rows("SELECT line FROM log LIMIT 1") == ["look again"]
    assert set(full.rows("SELECT name FROM sqlite_master")) >= NAMES
    assert (contents(full), contents(full, CARRIED)) == before
    full.check()
    again = rebuilt(full)
    assert (again.lost, again.carried["additions"]) == ((), len(NAMES) + 1)


def test_a_rebuild_saves_the_rows_of_their_tables_before_the_damage(full: Site) -> None:
    with closing(sqlite3.connect(full.index, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE notes (note TEXT)")
        connection.execute("BEGIN")
        rows = ((f"{number:05d} " + "x" * 500,) for number in range(9000))
        connection.executemany("INSERT INTO notes VALUES (?)", rows)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")
    data = bytearray(full.index.read_bytes())
    page = data.rfind(b"08000 xxx") // 4096 * 4096
    data[page : page + 4096] = os.urandom(4096)
    full.index.write_bytes(bytes(data))
    done = rebuilt(full)
    assert done.lost == ("the table notes has lost rows that cannot be read in the old index",)
    saved = full.rows("SELECT substr(note, 1, 5) FROM notes ORDER BY rowid")
    assert saved == [f"{number:05d}" for number in range(len(saved))]
    assert len(saved) >= 7000
    full.check()


def test_a_rebuild_keeps_columns_that_were_promoted_before(full: Site) -> None:
    writer = Writer.open(full.index, columns=["StudyTime", "BitsStored", "PixelRepresentation"])
    writer.close()
    add(full.index, "CREATE VIEW signed AS SELECT * FROM images WHERE pixel_representation = 1;")
    before = contents(full)
    assert rebuilt(full, columns=["HighBit"]).lost == ()
    assert contents(full)[:3] == before[:3]
    assert full.rows("SELECT DISTINCT pixel_representation, high_bit FROM instances") == [(0, 11)]
    assert full.rows("SELECT count(*) FROM signed") == [0]
    full.check()


def test_a_source_may_leave_out_its_issuer(full: Site) -> None:
    rebuilt(full, defaults=lambda source: ("", "CLINIC" if source == "CT1" else ""))
    assert full.rows("SELECT DISTINCT issuer_of_patient_id FROM patients ORDER BY 1") == [
        None,
        "CLINIC",
    ]


def test_a_variant_is_told_from_a_conflict_by_its_bytes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = instance()
    drop(site.spool.root / "a.dcm", one)
    site.ingest_all()
    compressed = dcmread(BytesIO(encoded(instance())))
    compressed.compress(RLELossless, generate_instance_uid=False)
    drop(site.spool.root / "b.dcm", encoded(compressed, RLELossless))
    site.ingest_all()
    assert site.outcomes() == {"archived": 1, "variant": 1}
    before = contents(site)
    site.index.unlink()
    rebuilt(site)
    assert contents(site) == before
    assert site.outcomes() == {"archived": 1, "variant": 1}


def test_a_rebuild_killed_at_any_step_can_be_done_again(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    full, copy = Site(tmp_path / "full"), tmp_path / "copy"
    drop(full.spool.root / "a.dcm", instance())
    drop(full.spool.root / "b.dcm", instance(PatientName="Somebody^Else"))
    drop(full.spool.root / "c.dcm", encoded(instance(patient=3))[:-40])
    full.ingest_all()
    before = contents(full), contents(full, CARRIED)
    steps = 0
    while True:
        shutil.copytree(full.root, copy)  # which keeps the files' times
        other = Site(copy)
        remaining = steps

        def kill(_effect: str, _path: str) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining < 0:
                raise Killed

        try:
            with durable.observe(kill):
                rebuilt(other)
            finished = True
        except Killed:
            finished = False
            rebuilt(other)
        assert (contents(other), contents(other, CARRIED)) == before
        shutil.rmtree(copy)
        if finished:
            break
        steps += 1
    assert steps > 10
