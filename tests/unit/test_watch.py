from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

from ingester.polling import PolledTree
from ingester.wake import Wake
from ingester.watch import Choice, Folder, Mount, Watcher, mount_of, read_mounts, watches_left

MOUNTINFO = b"""\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv/dicom/spool/CT\\0401 rw - cifs //pc/images rw
31 22 0:41 / /srv/dicom/spool rw shared:3 master:2 - ext4 /dev/vdb rw
32 22 0:42 / /mnt/ntfs rw - fuseblk /dev/sdb1 rw
33 22 0:43 / /mnt/cloud rw - fuse.rclone cloud: rw
34 22 0:44 / /mnt/cloud rw - nfs4 host:/x rw
"""


def test_the_mount_of_a_path_is_the_innermost_and_the_last(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO)
    mounts = read_mounts(file)
    found = {
        path: mount_of(Path(path), mounts).file_system
        for path in ("/srv", "/srv/dicom/spool", "/srv/dicom/spool/CT 1/a", "/mnt/cloud/x")
    }
    assert found == {
        "/srv": "ext4",
        "/srv/dicom/spool": "ext4",
        "/srv/dicom/spool/CT 1/a": "cifs",
        "/mnt/cloud/x": "nfs4",
    }


@pytest.mark.parametrize("file_system", ["nfs4", "cifs", "fuse.sshfs", "fuse", "virtiofs"])
def test_what_another_machine_may_change_is_polled(file_system: str) -> None:
    assert Mount(Path("/"), file_system).is_remote


@pytest.mark.parametrize("file_system", ["ext4", "xfs", "overlay", "tmpfs", "fuseblk"])
def test_what_only_this_machine_changes_is_watched(file_system: str) -> None:
    assert not Mount(Path("/"), file_system).is_remote


@contextmanager
def watching(path: Path, wake: Wake, choice: Choice = "native") -> Iterator[Watcher]:
    watcher = Watcher([Folder(path, 0.0)], choice=choice, on_event=wake.set)
    watcher.refresh()
    try:
        yield watcher
    finally:
        watcher.close()


def silence(wake: Wake) -> None:
    """Wait until watchdog has said all it has to say."""
    while wake.wait(0.5):
        pass


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for name in ("CT1/CD_1", ".claimed", ".receiving", ".received/CT1", "quarantine"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    return tmp_path / "spool"


@pytest.mark.parametrize("where", ["", "CT1", "CT1/CD_1", ".received/CT1"])
def test_a_file_that_is_written_or_moved_in_rings(spool: Path, where: str) -> None:
    outside = spool.parent / "b.dcm"
    outside.write_bytes(b"x")
    with Wake() as wake, watching(spool, wake):
        (spool / where / "a.dcm").write_bytes(b"x")
        assert wake.wait(30)
        silence(wake)
        outside.rename(spool / where / "b.dcm")
        assert wake.wait(30)


def test_our_own_work_rings_for_nobody(spool: Path) -> None:
    (spool / "CT1/CD_1/a.dcm").write_bytes(b"x")
    with Wake() as wake, watching(spool, wake):
        (spool / ".receiving/x").write_bytes(b"x")
        (spool / ".lock").write_bytes(b"x")
        (spool / ".claimed/1/in/CT1/CD_1").mkdir(parents=True)
        (spool / "CT1/CD_1/a.dcm").read_bytes()
        (spool / "CT1/CD_1/a.dcm").rename(spool / ".claimed/1/in/CT1/CD_1/a.dcm")
        (spool / ".claimed/1").rename(spool / "quarantine/1")
        (spool / "CT1/CD_1").rmdir()
        assert not wake.wait(1.0)


def test_what_follows_a_claim_is_not_held_back(spool: Path) -> None:
    (spool / "CT1/a.dcm").write_bytes(b"x")
    with Wake() as wake, watching(spool, wake):
        # Else watchdog lets whatever follows the first half of a move wait half a second.
        assert InotifyMoveEventGrouper.delay == 0.0
        (spool / "CT1/a.dcm").rename(spool / ".claimed/a.dcm")
        (spool / "CT1/b.dcm").write_bytes(b"x")
        assert wake.wait(30)


def test_a_new_folder_at_the_top_is_watched_after_a_refresh(spool: Path) -> None:
    with Wake() as wake, watching(spool, wake) as watcher:
        assert not watcher.needs_refresh
        (spool / "CD_2/DICOM").mkdir(parents=True)
        assert wake.wait(30)
        assert watcher.needs_refresh
        watcher.refresh()
        silence(wake)
        (spool / "CD_2/DICOM/a.dcm").write_bytes(b"x")
        assert wake.wait(30)


def test_a_folder_that_was_replaced_is_watched_again(spool: Path) -> None:
    with Wake() as wake, watching(spool, wake) as watcher:
        (spool / "CT1").rename(spool.parent / "old")
        (spool / "CT1").mkdir()
        watcher.refresh()
        silence(wake)
        (spool / "CT1/a.dcm").write_bytes(b"x")
        assert wake.wait(30)


def test_a_folder_that_is_renamed_within_the_tree_is_still_watched(spool: Path) -> None:
    with Wake() as wake, watching(spool, wake):
        for number in range(1, 20):
            (spool / f"CT1/CD_{number}").rename(spool / f"CT1/CD_{number + 1}")
        silence(wake)
        (spool / "CT1/CD_20/a.dcm").write_bytes(b"x")
        assert wake.wait(30)


def test_lost_events_ring_now_and_at_the_next_poll(spool: Path) -> None:
    with Wake() as wake, watching(spool, wake) as watcher:
        logging.getLogger("watchdog.observers.inotify_c").warning(
            "Inotify queue overflowed; filesystem events were lost"
        )
        assert wake.wait(0)
        assert watcher.needs_refresh
        assert watcher.poll(0.0)
        assert not watcher.poll(0.0)


def test_more_folders_than_threads_are_polled(spool: Path) -> None:
    for number in range(80):
        (spool / f"X{number:03}").mkdir()
    with Wake() as wake, watching(spool, wake) as watcher:
        assert watcher.poll(0.0)
        watcher.poll(0.0)
        assert not watcher.poll(0.0)
        (spool / "X079/a.dcm").write_bytes(b"x")
        assert watcher.poll(0.0)


def test_polling_says_how_and_notices(spool: Path) -> None:
    with Wake() as wake, watching(spool, wake, "poll") as watcher:
        assert [(each.path, each.how) for each in watcher.watched] == [(spool, "poll")]
        assert watcher.next_poll() == 0.0
        watcher.poll(0.0)
        watcher.poll(0.0)
        (spool / "CT1/CD_1/deep").mkdir()
        assert watcher.poll(0.0)
        (spool / "CT1/CD_1/deep/a.dcm").write_bytes(b"x")
        assert watcher.poll(0.0)
        (spool / ".claimed/1").mkdir()
        (spool / "quarantine/1").mkdir()
        assert watcher.poll(0.0)  # the echo of the change before
        assert not watcher.poll(0.0)


def test_a_share_that_is_away_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "share/a").mkdir(parents=True)
    tree = PolledTree(tmp_path / "share", 5.0)
    assert tree.look(0.0)
    assert not tree.look(4.9)
    assert tree.look(5.0)  # the echo
    os.rename(tmp_path / "share", tmp_path / "away")
    assert not tree.look(10.0)
    os.rename(tmp_path / "away", tmp_path / "share")
    (tmp_path / "share/b.dcm").write_bytes(b"x")
    assert tree.look(20.0)


def test_watches_are_left_here(tmp_path: Path) -> None:
    assert watches_left(tmp_path)
