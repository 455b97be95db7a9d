"""A backup: what it holds, what a second one costs, what damage does to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from ingester import durable
from ingester.check import rebuild
from ingester.index.writer import Writer
from ingester.model import SystemClock
from tests.factory import drop, instance
from tests.site import digest
from tests.unit.backup.conftest import TABLES, Backup


def flip(path: Path) -> None:
    """Damage a file so that neither its size nor its time tell."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o640)
    path.write_bytes(bytes(data))
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def first_object(backed: Backup) -> str:
    return min(backed.site.objects())


def change(backed: Backup, sql: str, *values: object) -> None:
    writer = Writer.open(backed.site.index)
    writer.run_in_transaction(lambda c: c.execute(sql, values))
    writer.close()


def kinds(findings: list[tuple[str, str]]) -> set[str]:
    return {kind for kind, _ in findings}


# -- what it holds


def test_a_backup_holds_everything_byte_for_byte(backed: Backup) -> None:
    made = backed.run()
    assert (made.findings, made.mended) == ([], [])
    assert made.objects == 5
    backed.check()
    for path in backed.site.objects():
        there, here = (backed.dest / path).stat(), (backed.site.archive.root / path).stat()
        assert (there.st_mode & 0o777, there.st_nlink) == (0o440, 1)
        assert there.st_mtime_ns == here.st_mtime_ns
        assert there.st_ino != here.st_ino
    (medium,) = (backed.dest / ".media").glob("*/DICOMDIR")
    assert medium.read_bytes()[128:132] == b"DICM"
    assert len(list((backed.dest / ".spool/quarantine").glob("*/reason.json"))) == 2
    assert (backed.dest / "ingest.toml").read_bytes() == backed.texts["ingest.toml"]


def test_its_index_is_an_ordinary_database(backed: Backup) -> None:
    backed.run()
    connection = sqlite3.connect(f"file:{backed.dest / 'index.db'}?mode=ro", uri=True)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()
    assert sorted(path.name for path in backed.dest.glob("index*")) == ["index.db"]


def test_a_second_backup_copies_what_is_new(backed: Backup) -> None:
    first = backed.run()
    second = backed.run()
    assert (second.copied, second.present) == (0, first.objects)
    drop(backed.site.spool.root / "new.dcm", instance(7))
    backed.site.ingest_all()
    third = backed.run()
    assert (third.copied, third.present, third.objects) == (1, first.objects, first.objects + 1)
    backed.check()


def test_a_rebuild_of_the_backup_gives_the_same_rows(backed: Backup) -> None:
    backed.run()
    there = backed.as_site()
    before = [there.rows(query) for query in TABLES]
    done = rebuild(
        backed.dest, backed.dest / "index.db", clock=SystemClock(), spool=backed.dest / ".spool"
    )
    assert done.findings == ()
    assert [there.rows(query) for query in TABLES] == before
    assert backed.findings() == []
    backed.run()
    backed.check()


def test_what_is_rebuilt_from_its_files_alone_is_the_same_archive(backed: Backup) -> None:
    backed.run()
    (backed.dest / "index.db").unlink()
    rebuild(backed.dest, backed.dest / "index.db", clock=SystemClock())
    columns = "sop_instance_uid, path, sha256, archived_at, version"
    query = f"SELECT {columns} FROM instances ORDER BY instance_id"
    assert backed.as_site().rows(query) == backed.site.rows(query)


def test_the_index_alone(backed: Backup) -> None:
    backed.run()
    drop(backed.site.spool.root / "new.dcm", instance(7))
    backed.site.ingest_all()
    made = backed.run(index_only=True)
    assert (made.objects, made.copied) == (6, 0)
    assert kinds(backed.findings()) == {"missing-object"}
    backed.run()
    backed.check()


def test_a_picture_that_was_made_again_is_replaced(backed: Backup) -> None:
    backed.run()
    picture = first_object(backed).replace(".dcm", ".jpg")
    (backed.site.archive.root / picture).write_bytes(b"a better picture")
    assert backed.run().copied == 1
    assert (backed.dest / picture).read_bytes() == b"a better picture"


def test_a_link_in_quarantine_is_kept_as_a_link(backed: Backup) -> None:
    (folder, *_) = sorted((backed.site.spool.root / "quarantine").iterdir())
    (file,) = [path for path in folder.iterdir() if path.name != "reason.json"]
    file.unlink()
    os.symlink("/etc/passwd", file)
    backed.run()
    there = backed.dest / ".spool/quarantine" / folder.name / file.name
    assert os.readlink(there) == "/etc/passwd"
    assert backed.run().copied == 0


def test_a_pipe_in_quarantine_has_nothing_to_keep(backed: Backup) -> None:
    (folder, *_) = sorted((backed.site.spool.root / "quarantine").iterdir())
    os.mkfifo(folder / "pipe")
    assert backed.run().findings == []
    backed.check()


def test_nothing_leaves_a_backup(backed: Backup) -> None:
    backed.run()
    there = {path for path in backed.dest.rglob("*") if path.is_file()}
    (folder, *_) = sorted((backed.site.spool.root / "quarantine").iterdir())
    writer = Writer.open(backed.site.index)
    writer.resolve([folder.name], decision="discard", at="2026-01-01T00:00:00.000Z")
    writer.close()
    shutil.rmtree(folder)
    backed.run()
    assert there == {path for path in backed.dest.rglob("*") if path.is_file()}
    assert backed.findings() == []


# -- damage


def test_what_is_damaged_in_the_archive_is_named_and_not_copied(backed: Backup) -> None:
    first, second, third, *_ = sorted(backed.site.objects())
    root = backed.site.archive.root
    flip(root / first)
    (root / second).unlink()
    (root / third).chmod(0o640)
    (root / third).write_bytes(b"short")
    made = backed.run()
    assert [(each.kind, each.path) for each in made.findings] == [
        ("wrong-checksum", first),
        ("wrong-size", third),
        ("missing-object", second),
    ]
    assert not any((backed.dest / path).exists() for path in (first, second, third))
    assert backed.findings() == [("missing-object", path) for path in (first, second, third)]


@pytest.mark.parametrize("checksum", [False, True])
def test_a_good_copy_outlives_the_damage_of_its_original(backed: Backup, checksum: bool) -> None:
    backed.run()
    first, second, *_ = sorted(backed.site.objects())
    flip(backed.site.archive.root / first)
    (backed.site.archive.root / second).unlink()
    backed.run(checksum=checksum)
    assert backed.findings() == []


def test_a_copy_that_lost_bytes_is_made_again(backed: Backup) -> None:
    backed.run()
    path = backed.dest / first_object(backed)
    path.chmod(0o640)
    path.write_bytes(b"short")
    made = backed.run()
    assert [(each.kind, each.path) for each in made.mended] == [
        ("wrong-checksum", first_object(backed))
    ]
    assert made.findings == []
    backed.check()
    (aside,) = path.parent.glob(".damaged-*")
    assert aside.read_bytes() == b"short"


def test_only_a_checksum_finds_a_flipped_bit_in_a_copy(backed: Backup) -> None:
    backed.run()
    flip(backed.dest / first_object(backed))
    assert backed.run().mended == []
    assert kinds(backed.findings()) == {"wrong-checksum"}
    made = backed.run(checksum=True)
    assert (len(made.mended), made.copied, made.present) == (1, 1, 4)
    backed.check()


def test_damage_on_both_sides_is_said_and_nothing_is_replaced(backed: Backup) -> None:
    backed.run()
    path = first_object(backed)
    flip(backed.dest / path)
    damaged = (backed.dest / path).read_bytes()
    flip(backed.site.archive.root / path)
    made = backed.run(checksum=True)
    assert "is not whole either" in made.findings[0].message
    assert (backed.dest / path).read_bytes() == damaged


def test_a_copy_with_a_wrong_time_is_read_and_set_right(backed: Backup) -> None:
    backed.run()
    path = backed.dest / first_object(backed)
    right = path.stat().st_mtime_ns
    os.utime(path, ns=(0, 0))
    made = backed.run()
    assert (made.copied, made.present) == (0, 5)
    assert path.stat().st_mtime_ns == right


def test_another_object_under_the_same_name_is_kept_aside(backed: Backup) -> None:
    backed.run()
    path = backed.dest / first_object(backed)
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(0, 0))  # so that it is looked at
    assert len(backed.run().mended) == 1
    backed.check()
    assert [each.stat().st_size for each in path.parent.glob(".damaged-*")] == [size]


def test_an_object_that_came_again_in_another_encoding_is_copied_again(backed: Backup) -> None:
    backed.run()
    path = first_object(backed)
    flip(backed.site.archive.root / path)  # of the same size, at the same time
    sha256 = digest(backed.site.archive.root / path)
    change(backed, "UPDATE instances SET sha256 = ? WHERE path = ?", sha256, path)
    made = backed.run()
    assert (made.copied, len(made.mended)) == (1, 1)
    backed.check()


def test_a_disk_that_keeps_no_times_is_not_read_every_night(
    backed: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(backed, "UPDATE instances SET archived_at = '2020-02-02T02:02:02.000000Z'")
    monkeypatch.setattr("os.utime", lambda *_args, **_times: None)
    made = backed.run()
    assert any("coarsely" in note for note in made.notes)
    read: list[str] = []
    with durable.observe(lambda _effect, path: read.append(path)):
        made = backed.run()
    assert (made.copied, made.present, made.mended) == (0, 5, [])
    assert not any(path.endswith(".dcm") for path in read)
    assert backed.findings() == []


def test_an_index_that_lost_objects_does_not_take_the_former_ones_place(backed: Backup) -> None:
    backed.run()
    before = (backed.dest / "index.db").read_bytes()
    (instance_id, path) = backed.site.rows("SELECT instance_id, path FROM instances")[0]
    writer = Writer.open(backed.site.index)

    def lose(connection: sqlite3.Connection) -> None:
        for table in ("derivatives", "headers", "contradictions", "arrivals", "instances"):
            connection.execute(f"DELETE FROM {table} WHERE instance_id = ?", (instance_id,))

    writer.run_in_transaction(lose)
    writer.close()
    made = backed.run()
    assert [each.kind for each in made.findings] == ["fewer-objects"]
    assert made.kept_aside is not None
    assert made.kept_aside.read_bytes() == before
    assert (backed.dest / path).exists()


# -- beside a running service


def test_what_is_sent_back_meanwhile_is_no_finding(backed: Backup) -> None:
    waiting = backed.site.rows("SELECT arrival_id FROM arrivals WHERE outcome = 'quarantined'")

    def send_back(name: str, path: str) -> None:
        if name == "read" and waiting and waiting[0] in path:
            arrival_id = waiting.pop()
            writer = Writer.open(backed.site.index)
            writer.mark_retried(arrival_id, "new", "2026-01-01T00:00:00.000Z")
            writer.close()
            shutil.rmtree(backed.site.spool.root / "quarantine" / arrival_id)

    with durable.observe(send_back):
        made = backed.run()
    assert waiting == []
    assert made.findings == []
    backed.check()


def test_what_is_archived_meanwhile_is_in_the_next_backup(backed: Backup) -> None:
    writer = Writer.open(backed.site.index)  # the service's, with a log of its own
    new = drop(backed.site.root / "new", instance(7))

    def arrive(_done: int, _total: int | None, note: str) -> None:
        if note == "comparing" and new.exists():
            new.rename(backed.site.spool.root / "new")
            backed.site.ingest_all()

    made = backed.run(progress=arrive)
    writer.close()
    assert not new.exists()
    assert (made.objects, made.findings) == (5, [])
    assert backed.findings() == []
    assert len(backed.as_site().objects()) == 5
    backed.run()
    backed.check()
