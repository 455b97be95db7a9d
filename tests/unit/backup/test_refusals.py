"""Where no backup is made, and why: nothing may be written then."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ingester import durable
from ingester import site as ties
from ingester.backup import Options, Origin, backup
from ingester.errors import Fatal
from ingester.index.connection import Corrupt
from ingester.model import SystemClock
from tests.factory import drop, instance
from tests.unit.backup.conftest import Backup, no_progress


def refused(backed: Backup, words: str) -> None:
    """Assert that no backup is made and the folder is as it was."""
    before = contents(backed.dest)
    with pytest.raises(Fatal, match=words):
        backed.run()
    assert contents(backed.dest) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


@pytest.mark.parametrize("place", ["archive/b", "spool/b", "spool/CT1/b", ".", "archive", "spool"])
def test_a_place_inside_or_around_the_site(backed: Backup, place: str) -> None:
    backed.dest = backed.site.root / place
    refused(backed, "lie in one another")


def test_a_place_inside_by_way_of_a_link(backed: Backup, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(backed.site.archive.root)
    backed.dest = tmp_path / "link" / "b"
    refused(backed, "lie in one another")


def test_a_place_inside_a_share(backed: Backup, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    archive, spool = backed.site.archive.root, backed.site.spool.root
    origin = Origin(archive, backed.site.index, spool, {}, others=(share,))
    with pytest.raises(Fatal, match="the share"):
        backup(origin, share / "b", Options(), clock=SystemClock(), progress=no_progress)
    assert list(share.iterdir()) == []


def test_a_place_inside_another_backup_or_site(backed: Backup, tmp_path: Path) -> None:
    backed.run()
    backed.dest = backed.dest / "b"
    refused(backed, "a site or a backup")


def test_a_folder_that_is_missing_with_all_above_it(backed: Backup, tmp_path: Path) -> None:
    backed.dest = tmp_path / "mnt" / "disk" / "b"
    refused(backed, "is a disk not mounted")


def test_a_folder_of_somebody_else(backed: Backup) -> None:
    backed.dest.mkdir()
    (backed.dest / "photo.jpg").write_bytes(b"holiday")
    refused(backed, "photo.jpg")


def test_a_file(backed: Backup) -> None:
    backed.dest.write_bytes(b"")
    refused(backed, "is not a folder")


def test_a_new_disk_that_is_empty_but_for_its_own(backed: Backup) -> None:
    (backed.dest / "lost+found").mkdir(parents=True)
    backed.run()
    backed.check()


def test_the_backup_of_another_site(backed: Backup) -> None:
    backed.run()
    for folder in (backed.site.archive.root, backed.site.spool.root):
        (folder / ties.SITE_NAME).write_text("ffffffffffffffff\n")
    refused(backed, "another site")


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff\xfe"])
def test_a_mark_that_says_nothing(backed: Backup, text: bytes) -> None:
    backed.run()
    (backed.dest / ties.BACKUP_NAME).write_bytes(text)
    refused(backed, "cannot be read")


def test_the_backup_of_a_newer_program(backed: Backup) -> None:
    backed.run()
    marker = json.loads((backed.dest / ties.BACKUP_NAME).read_text())
    (backed.dest / ties.BACKUP_NAME).write_text(json.dumps({**marker, "format": 99}))
    refused(backed, "newer ingester")


def test_a_second_backup_at_the_same_time(backed: Backup) -> None:
    backed.run()
    with ties.held(backed.dest, command="backup"):
        refused(backed, "in use by process")


def test_a_disk_that_is_not_mounted_is_not_filled(backed: Backup, tmp_path: Path) -> None:
    backed.run()
    os.rename(backed.dest, tmp_path / "unplugged")
    refused(backed, "not mounted")
    backed.dest.mkdir()  # the mount point
    refused(backed, "not mounted")
    os.rmdir(backed.dest)
    os.rename(tmp_path / "unplugged", backed.dest)
    assert backed.run().copied == 0


def test_a_new_disk_in_its_place_is_filled_where_a_person_says_so(
    backed: Backup, tmp_path: Path
) -> None:
    backed.run()
    os.rename(backed.dest, tmp_path / "unplugged")
    backed.run(is_new=True)
    backed.check()


def test_an_archive_whose_disk_is_not_mounted(backed: Backup) -> None:
    os.rename(backed.site.archive.root, backed.site.root / "unplugged")
    backed.site.archive.root.mkdir()
    refused(backed, "not mounted")


def test_a_backup_is_not_backed_up_as_an_archive(backed: Backup, tmp_path: Path) -> None:
    backed.run()
    origin = Origin(backed.dest, backed.dest / "index.db", backed.dest / ".spool", {})
    with pytest.raises(Fatal, match="is a backup"):
        backup(origin, tmp_path / "second", Options(), clock=SystemClock(), progress=no_progress)
    assert not (tmp_path / "second").exists()


def test_a_site_without_an_index(backed: Backup) -> None:
    for file in backed.site.index.parent.glob("index.db*"):
        file.unlink()
    with pytest.raises(Fatal, match="no index"):
        backed.run()
    assert list(backed.dest.rglob("*.dcm")) == []


def test_a_damaged_index_never_takes_a_good_ones_place(backed: Backup) -> None:
    backed.run()
    before = (backed.dest / "index.db").read_bytes()
    data = bytearray(backed.site.index.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    backed.site.index.write_bytes(bytes(data))
    with pytest.raises(Corrupt):
        backed.run()
    assert (backed.dest / "index.db").read_bytes() == before
    assert backed.findings() == []


def test_a_copy_of_the_index_that_is_not_whole_gets_no_name(backed: Backup) -> None:
    backed.run()
    before = (backed.dest / "index.db").read_bytes()

    def damage(name: str, path: str) -> None:
        if name == "fsync-file" and path.endswith("/.staging/index.db"):
            with open(path, "r+b") as file:
                file.seek(8192)
                file.write(b"\xa5" * 4096)

    with durable.observe(damage), pytest.raises(Corrupt, match="is not whole"):
        backed.run()
    assert (backed.dest / "index.db").read_bytes() == before


@pytest.mark.parametrize(("mebibytes", "size"), [(1, 16), (17, 1024)])
def test_a_disk_without_room_is_refused_before_anything_is_copied(
    backed: Backup, monkeypatch: pytest.MonkeyPatch, mebibytes: int, size: int
) -> None:
    drop(backed.site.spool.root / "large", instance(9, rows=size, columns=size))
    backed.site.ingest_all()
    honest = os.statvfs

    def small(path: Path) -> os.statvfs_result:
        found = list(honest(path))
        found[1] = 4096  # the size of a block
        found[4] = mebibytes * 256  # blocks that are free for us
        return os.statvfs_result(found)

    monkeypatch.setattr("os.statvfs", small)
    with pytest.raises(Fatal, match="no room"):
        backed.run()
    assert list(backed.dest.rglob("*.dcm")) == []
    monkeypatch.undo()
    backed.run()
    backed.check()
