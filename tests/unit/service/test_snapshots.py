"""The copy of the index for shares: fresh, whole, readable by the group, never waited for."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingester import durable
from ingester.index import Reader, Writer
from ingester.model import SystemClock
from ingester.service.snapshots import Snapshots
from tests.unit.index.records import archived, header
from tests.waiting import until

#: Whose ids no account of the machine has.
STRANGER, GROUP = 54321, 54322


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an archive's folder that its group may enter, and only that."""
    folder = Path(tempfile.mkdtemp(prefix="archive-"))
    if os.getuid() == 0:
        os.chown(folder, -1, GROUP)
    folder.chmod(0o750)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def index(folder: Path) -> Path:
    with closing(Writer.open(folder / "index.db")) as writer:
        writer.record([archived(header())])
        writer.checkpoint(idle=True)
    an_hour_ago = time.time() - 3600
    os.utime(folder / "index.db", (an_hour_ago, an_hour_ago))
    return folder / "index.db"


def of(index: Path, interval: float | None = 3600.0) -> Snapshots:
    target = index.with_name("index-snapshot.db")
    return Snapshots(index, target, interval=interval, clock=SystemClock())


def taken(index: Path) -> Path:
    snapshots = of(index)
    snapshots.take()
    snapshots.finish(None)
    return index.with_name("index-snapshot.db")


def which(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one of its name."""
    status = path.stat()
    return status.st_ino, status.st_ctime_ns


def studies(path: Path, how: str = "mode=ro") -> int:
    with closing(sqlite3.connect(f"file:{path}?{how}", uri=True)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM study_list").fetchone()
    return int(count)


def grow(index: Path, mebibytes: int) -> None:
    """Make the index large, by a table that somebody added."""
    with closing(sqlite3.connect(index, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE my_bulk (bulk BLOB)")
        connection.execute(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO my_bulk SELECT randomblob(1000) FROM n", (mebibytes * 1100,),
        )  # fmt: skip
        connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")


def test_it_is_an_ordinary_database_in_one_file(index: Path) -> None:
    snapshot = taken(index)
    # Bytes 18 and 19 of the header: 1 where no write-ahead log is used.
    assert snapshot.read_bytes()[18:20] == b"\1\1"
    assert studies(snapshot) == studies(snapshot, "mode=ro&immutable=1") == 1
    beside = [path.name for path in snapshot.parent.iterdir()]
    assert sorted(beside) == ["index-snapshot.db", "index.db"]


def test_it_belongs_to_the_archives_group_which_may_read_it(index: Path) -> None:
    snapshot = taken(index)
    status = snapshot.stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_gid == index.parent.stat().st_gid


_AS_A_MEMBER = """
import os, sqlite3, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
connection = sqlite3.connect(f"file:{sys.argv[3]}?mode=ro", uri=True)
print(connection.execute("SELECT count(*) FROM study_list").fetchone()[0])
"""


def test_a_member_of_the_group_reads_it_and_a_stranger_does_not(index: Path) -> None:
    """The member may write nothing in that folder: as on a share mounted read-only."""
    snapshot = taken(index)

    def read(uid: int, gid: int) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", _AS_A_MEMBER, str(uid), str(gid), str(snapshot)]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)

    if os.getuid() != 0:  # nobody else may be played: what counts is who we are
        assert read(os.getuid(), os.getgid()).returncode != 0
        assert studies(snapshot) == 1
        return
    assert read(STRANGER, GROUP).stdout == "1\n"
    assert "unable to open" in read(STRANGER, STRANGER).stderr


def test_it_is_made_again_only_when_something_has_changed(index: Path) -> None:
    snapshot = taken(index)
    first = which(snapshot)
    taken(index)
    assert which(snapshot) == first
    with closing(Writer.open(index)) as writer:
        writer.record([archived(header(2))])
        taken(index)  # what is in the log alone is a change too
        assert studies(snapshot) == 2
        second = which(snapshot)
        assert second != first
        writer.checkpoint(idle=True)
    taken(index)
    taken(index)
    assert studies(snapshot) == 2


def test_what_is_written_while_it_is_made_makes_it_stale(index: Path) -> None:
    with closing(Writer.open(index)) as writer:
        writer.record([archived(header(2))])

        def write(effect: str, path: str) -> None:
            if effect == "fsync-file" and path.endswith(".part"):
                writer.record([archived(header(3))])
                os.utime(path)  # as if the copy had been written to afterwards

        with durable.observe(write):
            snapshot = taken(index)
        assert studies(snapshot) == 2
        taken(index)
        assert studies(snapshot) == 3


def test_never_is_never(index: Path) -> None:
    snapshots = of(index, interval=None)
    snapshots.take()
    snapshots.take_first()
    snapshots.take_if_quick()
    snapshots.take_if_old()
    snapshots.finish(None)
    assert not index.with_name("index-snapshot.db").exists()


def test_a_large_index_is_copied_at_the_end_only_where_its_copy_is_old(index: Path) -> None:
    snapshot = taken(index)
    first = which(snapshot)
    grow(index, 130)
    snapshots = of(index)
    snapshots.take_if_quick()
    snapshots.take_if_old()
    snapshots.finish(None)
    assert which(snapshot) == first
    os.utime(snapshot, (1, 1))
    snapshots.take_if_old()
    snapshots.finish(None)
    assert which(snapshot) != first
    assert snapshot.stat().st_size > 130 << 20


def test_a_long_copy_is_given_up_and_the_one_before_it_stays(index: Path) -> None:
    snapshot = taken(index)
    first = snapshot.read_bytes()
    grow(index, 100)
    part = snapshot.with_name("index-snapshot.db.part")
    snapshots = of(index)
    snapshots.take()
    until(lambda: part.exists() and part.stat().st_size > 1 << 20, what="it is being copied")
    snapshots.finish(0.0)
    assert snapshot.read_bytes() == first
    assert not part.exists()
    taken(index)
    assert snapshot.stat().st_size > 100 << 20


def test_a_disk_that_does_not_answer_is_not_waited_for(index: Path) -> None:
    snapshot = taken(index)
    with closing(Writer.open(index)) as writer:
        writer.record([archived(header(2))])
    asked, answers = threading.Event(), threading.Event()

    def hang(effect: str, path: str) -> None:
        if effect == "fsync-file" and path.endswith(".part"):
            asked.set()
            answers.wait()

    snapshots = of(index)
    with durable.observe(hang):
        snapshots.take()
        assert asked.wait(30)
        snapshots.finish(0.0)
        answers.set()
        snapshots.finish(None)
    assert studies(snapshot) == 1
    of(index).tidy()
    assert not snapshot.with_name("index-snapshot.db.part").exists()


@pytest.mark.parametrize("effect", ["create", "fsync-file", "replace"])
def test_a_copy_that_fails_is_told_and_tried_again(
    index: Path, effect: str, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = taken(index)
    with closing(Writer.open(index)) as writer:
        writer.record([archived(header(2))])

    def fail(name: str, path: str) -> None:
        if name == effect and "index-snapshot" in path:
            raise OSError(28, "No space left on device")

    with durable.observe(fail):
        taken(index)
    assert "the snapshot of the index could not be made" in caplog.text
    assert studies(snapshot) == 1
    assert not snapshot.with_name("index-snapshot.db.part").exists()
    assert studies(taken(index)) == 2


_READS_THE_INDEX = """
import os, sys
from pathlib import Path
from ingester.index import Reader
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
with Reader.open(Path(sys.argv[3])) as reader:
    print(reader.rows("SELECT count(*) AS n FROM study_list")[0]["n"])
"""


@pytest.mark.parametrize("left", [(), ("-wal",), ("-wal", "-shm")])
def test_a_member_of_the_group_reads_the_index_itself_of_a_still_service(
    index: Path, left: tuple[str, ...]
) -> None:
    """Readers leave an empty log behind, whose shared memory another may have removed."""
    for suffix in left:
        path = index.with_name(index.name + suffix)
        path.write_bytes(b"")
        path.chmod(0o640)
    if os.getuid() == 0:
        for path in index.parent.iterdir():
            os.chown(path, -1, GROUP)
        arguments = [str(STRANGER), str(GROUP), str(index)]
        done = subprocess.run(
            [sys.executable, "-c", _READS_THE_INDEX, *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout == "1\n", done.stderr
    with Reader.open(index) as reader:
        assert reader.rows("SELECT count(*) AS n FROM study_list") == [{"n": 1}]
