"""One step fails, once or for ever, and what follows must still come out right.

Each test lets one system call, one reading process or one statement fail at the worst
moment.  Nothing may be lost, stuck, filed otherwise or believed durable that is not.
"""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from ingester import durable
from ingester import quarantine as aside
from ingester.compare import compare
from ingester.errors import Retry
from ingester.index.writer import Writer
from ingester.ingest import Ingest, IngestSettings
from ingester.pool import prepare_many
from ingester.quarantine import Quarantined
from ingester.spool import Share, Spool
from ingester.unpack import extract, read_dicomdir
from tests.clocks import HandClock
from tests.factory import drop, encoded, instance, uid
from tests.inline import InlineExecutor
from tests.site import Site

TEXT = b"not an image\n" * 20


class Sick(InlineExecutor):
    """Asks *instead* what to answer in place of each question; None asks honestly."""

    def __init__(self, instead: Callable[[Any, Any], Any]) -> None:
        self._instead = instead

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        answer = self._instead(fn, args)
        if answer is None:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


class Once:
    """Says True the *nth* time that it is asked."""

    def __init__(self, nth: int = 1) -> None:
        self._left = nth
        self._lock = threading.Lock()

    def __call__(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0


def failing(effect: str, part: str, code: int, nth: int = 1) -> Callable[[str, str], None]:
    """Return an observer that lets one effect fail, once."""
    is_due = Once(nth)

    def observer(name: str, path: str) -> None:
        if name == effect and part in path and is_due():
            raise OSError(code, os.strerror(code))

    return observer


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def site(tmp_path: Path, clock: HandClock) -> Site:
    return Site(tmp_path / "site", clock=clock, settings=IngestSettings(is_impatient=True))


@pytest.fixture
def run(site: Site, clock: HandClock) -> Callable[..., None]:
    """Ingest until nothing is left; a second passes whenever there is nothing to do."""

    def run(
        instead: Callable[[Any, Any], Any] = lambda _fn, _args: None,
        observer: Callable[[str, str], None] = lambda _effect, _path: None,
    ) -> None:
        with site.ingesting(Sick(instead)) as ingest, durable.observe(observer):
            until_idle(ingest, clock)
        assert site.left_in_spool() == []
        site.check()

    return run


def until_idle(ingest: Ingest, clock: HandClock) -> None:
    ingest.turn(look=True)
    for _ in range(400):
        if ingest.is_idle:
            return
        if not ingest.turn(look=False).is_busy:
            clock.seconds += 1
    pytest.fail(f"never idle: {ingest.trouble}, {ingest.claimed} claimed")


def put_zip(path: Path, count: int = 3, **more: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1, count + 1):
            data = encoded(instance(5, 1, 1, number))
            archive.writestr(zipfile.ZipInfo(f"IM/{number}"), data)
        for name, data in more.items():
            archive.writestr(zipfile.ZipInfo(name), data)


@pytest.fixture
def directory(tmp_path: Path) -> bytes:
    """Make a DICOMDIR that names nothing."""
    ds = Dataset()
    ds.FileSetID = "CD"
    ds.DirectoryRecordSequence = []
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = UID(uid(1))
    ds.save_as(tmp_path / "made", enforce_file_format=True)
    return (tmp_path / "made").read_bytes()


# -- archive files and DICOMDIRs


def test_a_member_that_must_wait_keeps_its_archive_file(site: Site, run: Any) -> None:
    put_zip(site.spool.root / "a.zip")
    is_due = Once()

    def instead(fn: Any, args: Any) -> Any:
        if fn is prepare_many and "/members/" in args[0][0].path and is_due():
            return [Retry("a copy cannot be written")] * len(args[0])
        return None

    run(instead)
    assert site.outcomes() == {"archived": 3, "unpacked": 1}


def test_a_dicomdir_in_a_zip_is_kept_before_the_zip_is_let_go(
    site: Site, run: Any, directory: bytes
) -> None:
    put_zip(site.spool.root / "a.zip", DICOMDIR=directory)
    run()
    assert site.outcomes() == {"archived": 3, "unpacked": 2}
    assert len(list(site.archive.media.glob("*/DICOMDIR"))) == 1


def test_members_are_not_forgotten_where_the_index_fails(
    site: Site, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_zip(site.spool.root / "a.zip")
    honest, is_due = Writer.finished_members, Once()

    def finished(self: Writer, arrival_id: str) -> dict[int, int]:
        if is_due():
            raise Retry("the index is busy")
        return honest(self, arrival_id)

    monkeypatch.setattr(Writer, "finished_members", finished)
    run()
    assert site.outcomes() == {"archived": 3, "unpacked": 1}


def test_unpacking_goes_on_once_the_disk_has_room_again(site: Site, run: Any) -> None:
    put_zip(site.spool.root / "a.zip")
    run(observer=failing("write", "/members/", errno.ENOSPC))
    assert site.outcomes() == {"archived": 3, "unpacked": 1}


@pytest.mark.parametrize("killed", [extract, read_dicomdir])
def test_what_kills_its_unpacking_is_poison_and_the_rest_goes_on(
    site: Site, run: Any, directory: bytes, killed: Any
) -> None:
    put_zip(site.spool.root / "a.zip")
    drop(site.spool.root / "b", instance(1))
    drop(site.spool.root / "DICOMDIR", directory)
    run(lambda fn, _: BrokenProcessPool() if fn is killed else None)
    assert site.rows("SELECT reason FROM arrivals WHERE outcome = 'quarantined'") == ["poison"]
    assert site.rows("SELECT outcome FROM arrivals WHERE original_name = 'b'") == ["archived"]


@pytest.mark.parametrize("name", ["a.zip", "DICOMDIR"])
def test_a_container_that_vanishes_has_a_row_and_holds_up_nobody(
    site: Site, run: Any, directory: bytes, name: str
) -> None:
    put_zip(site.spool.root / "a.zip")
    drop(site.spool.root / "DICOMDIR", directory)
    drop(site.spool.root / "z", instance(1))

    def instead(fn: Any, _: Any) -> None:
        if fn in (extract, read_dicomdir):
            for path in (site.spool.root / ".claimed").rglob(f"*{name}"):
                path.unlink()

    run(instead)
    assert site.rows("SELECT reason FROM arrivals WHERE original_name = ?", name) == ["unreadable"]
    assert site.rows("SELECT outcome FROM arrivals WHERE original_name = 'z'") == ["archived"]


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_commit_that_fails_keeps_containers_in_the_line(
    site: Site, run: Any, directory: bytes, nth: int
) -> None:
    put_zip(site.spool.root / "a.zip", count=0, **{"a.txt": TEXT})
    drop(site.spool.root / "DICOMDIR", directory)
    site.ingest_all()
    put_zip(site.spool.root / "b.zip", count=0, **{"a.txt": TEXT})
    drop(site.spool.root / "DICOMDIR", directory)
    run(observer=failing("commit", "", errno.EIO, nth))
    assert site.outcomes() == {"foreign": 2, "unpacked": 4}


def test_a_dicomdir_does_not_spin_while_nothing_new_may_be_claimed(
    site: Site, clock: HandClock, directory: bytes
) -> None:
    drop(site.spool.root / "DICOMDIR", directory)
    for number in range(1, 60):
        drop(site.spool.root / f"x{number:02d}", instance(1, 1, 1, number))
    with site.ingesting(window=16) as ingest:
        ingest.turn(look=True)
        ingest.paused = "full"
        turns = 0
        while ingest.turn(look=False).is_busy:
            turns += 1
            assert turns < 100
        ingest.paused = None
        until_idle(ingest, clock)
    assert site.outcomes() == {"archived": 59, "unpacked": 1}


# -- quarantine


@pytest.mark.parametrize("name", ["in", "members", "many"])
def test_a_file_named_like_our_own_folders_is_kept(site: Site, run: Any, name: str) -> None:
    for folder in ("x", "y"):
        drop(site.spool.root / folder / name, TEXT)
    run()
    drop(site.spool.root / name, TEXT)
    run()
    kept = [path for path in site.spool.quarantine_folder.glob("*/*") if path.is_file()]
    assert sum(path.read_bytes() == TEXT for path in kept) == 3


@pytest.mark.parametrize(
    "effect",
    ["fsync-file", "create", "rename", "rmdir", "replace", "mkdir", "unlink", "fsync-folder"],
)
def test_any_effect_may_fail_once_between_claim_and_release(
    tmp_path: Path, clock: HandClock, effect: str
) -> None:
    for nth in range(1, 12):
        site = Site(tmp_path / str(nth), clock=clock)
        for number in range(3):
            drop(site.spool.root / f"f{number}", TEXT)
        for number in (1, 2):
            drop(site.spool.root / f"g{number}", instance(number))
        with (
            site.ingesting() as ingest,
            durable.observe(failing(effect, "", errno.EIO, nth)),
        ):
            until_idle(ingest, clock)
        assert site.outcomes() == {"foreign": 3, "archived": 2}
        assert site.rows("SELECT size_bytes FROM arrivals WHERE outcome = 'foreign'") == (
            [len(TEXT)] * 3
        )
        assert site.left_in_spool() == []
        site.check()


# -- objects


def test_what_must_be_read_again_survives_a_full_disk(site: Site, run: Any) -> None:
    for number in (1, 2):
        drop(site.spool.root / str(number), instance(1, 1, 1, number))
    codes = [errno.EXDEV, errno.ENOSPC]

    def observer(name: str, _: str) -> None:
        if name == "link" and codes:
            code = codes.pop(0)
            raise OSError(code, os.strerror(code))

    run(observer=observer)
    assert site.outcomes() == {"archived": 2}


def other_file_system(name: str, _: str) -> None:
    """Let links from claimed files fail, as between two file systems."""
    if name == "link":
        (caller,) = (each.frame for each in inspect.stack(0) if each.function == "link")
        if ".staging" not in str(caller.f_locals["old"]):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_neighbours_on_another_file_system_are_copied_together(site: Site, run: Any) -> None:
    for number in range(1, 31):
        drop(site.spool.root / f"{number:02d}", instance(1, 1, 1, number))
    flushed: list[str] = []

    def observer(name: str, path: str) -> None:
        other_file_system(name, path)
        if name == "fsync-file":
            flushed.append(path)

    run(observer=observer)
    assert site.outcomes() == {"archived": 30}
    assert len(flushed) <= 3 * 30


def broken_object(site: Site) -> Path:
    """Archive an object and damage it."""
    drop(site.spool.root / "1", instance(1))
    site.ingest_all()
    path = site.archive.root / next(iter(site.objects()))
    path.chmod(0o640)
    path.write_bytes(b"")
    return path


def test_a_repair_that_fails_takes_nobody_with_it(site: Site, run: Any) -> None:
    broken_object(site)
    drop(site.spool.root / "2", instance(2))
    drop(site.spool.root / "3", instance(1))
    run(observer=failing("rename", ".damaged-", errno.EIO))
    assert site.outcomes() == {"archived": 2, "duplicate": 1}


def test_a_repair_across_file_systems_is_a_copy_with_the_old_time(site: Site, run: Any) -> None:
    path = broken_object(site)
    drop(site.spool.root / "2", instance(1))

    run(observer=other_file_system)
    assert site.outcomes() == {"archived": 1, "duplicate": 1}
    (at,) = site.rows("SELECT archived_at FROM instances")
    assert datetime.fromtimestamp(path.stat().st_mtime, UTC) == datetime.fromisoformat(at)


def test_a_reading_process_that_dies_makes_no_conflict(site: Site, run: Any) -> None:
    drop(site.spool.root / "1", instance(1))
    site.ingest_all()
    drop(site.spool.root / "2", encoded(instance(1), ImplicitVRLittleEndian))
    is_due = Once()
    run(lambda fn, _: BrokenProcessPool() if fn is compare and is_due() else None)
    assert site.outcomes() == {"archived": 1, "duplicate": 1}


def test_two_files_that_no_comparison_survives_are_both_kept(site: Site, run: Any) -> None:
    drop(site.spool.root / "1", instance(1))
    site.ingest_all()
    drop(site.spool.root / "2", encoded(instance(1), ImplicitVRLittleEndian))
    run(lambda fn, _: BrokenProcessPool() if fn is compare else None)
    assert site.outcomes() == {"archived": 1, "conflict": 1}


def test_an_object_that_vanishes_after_it_was_read_has_a_row(site: Site, run: Any) -> None:
    for number in (1, 2):
        drop(site.spool.root / f"x{number}", instance(number))

    def instead(fn: Any, args: Any) -> Any:
        if fn is not prepare_many:
            return None
        answers = fn(*args)
        for request in args[0]:
            if request.path.endswith("x1"):
                Path(request.path).unlink(missing_ok=True)
        return answers

    run(instead)
    rows = site.rows("SELECT original_name, outcome, reason FROM arrivals ORDER BY 1")
    assert rows == [("x1", "quarantined", "unreadable"), ("x2", "archived", None)]


def test_bytes_that_could_not_be_flushed_are_never_asked_again(site: Site, run: Any) -> None:
    for number in (1, 2):
        drop(site.spool.root / str(number), instance(number))
    failed: set[str] = set()

    def observer(name: str, path: str) -> None:
        if name == "fsync-file" and ".claimed" in path:
            assert path not in failed
            failed.add(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    run(observer=observer)
    assert site.outcomes() == {"archived": 2}
    assert len(failed) == 2


def test_folders_that_an_earlier_run_made_are_flushed_before_the_row(site: Site, run: Any) -> None:
    drop(site.spool.root / "x", instance(1))
    flushed: list[str] = []
    is_due = Once()

    def observer(name: str, path: str) -> None:
        if name == "fsync-folder" and path.startswith(str(site.archive.root)):
            if is_due():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            flushed.append(path)

    run(observer=observer)
    home = (site.archive.root / next(iter(site.objects()))).parent
    above = [str(each) for each in home.parents if each.is_relative_to(site.archive.root)]
    assert set(above) <= set(flushed)


# -- shares


@pytest.fixture
def share(site: Site, tmp_path: Path) -> Path:
    site.spool = Spool(site.spool.root, shares=[Share(tmp_path / "share", "WARD")])
    return tmp_path / "share"


def test_what_was_claimed_on_a_share_that_comes_late_is_taken_up(
    site: Site, clock: HandClock, share: Path
) -> None:
    for name in ("a", "b"):
        drop(share / name, instance(1, PatientID=name))
    site.spool.make_folders()
    assert len(list(site.spool.claim(list(site.spool.look()), clock.now()))) == 2
    away = share.rename(share.with_name("away"))
    drop(site.spool.root / "c", instance(2))
    with site.ingesting() as ingest:
        until_idle(ingest, clock)
        assert site.outcomes() == {"archived": 1}
        away.rename(share)
        drop(share / "0", instance(1, PatientID="0"))
        until_idle(ingest, clock)
        drop(share / "d", instance(3))
        until_idle(ingest, clock)
    rows = site.rows("SELECT original_name, outcome FROM arrivals WHERE source = 'WARD'")
    assert sorted(rows) == [
        ("0", "conflict"),
        ("a", "archived"),
        ("b", "conflict"),
        ("d", "archived"),
    ]
    assert [path.name for path in share.rglob("*")] == [".claimed"]
    site.check()


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.ESTALE, errno.EIO])
def test_a_share_that_cannot_be_written_holds_up_only_itself(
    site: Site, clock: HandClock, share: Path, code: int
) -> None:
    drop(share / "a", instance(1))
    drop(site.spool.root / "b", instance(2))

    def observer(name: str, path: str) -> None:
        if name in ("mkdir", "rename") and path.startswith(f"{share}/"):
            raise OSError(code, os.strerror(code))

    with site.ingesting() as ingest:
        with durable.observe(observer):
            until_idle(ingest, clock)
        assert site.outcomes() == {"archived": 1}
        assert list(site.spool.troubles) == ["a"]
        until_idle(ingest, clock)
    assert site.outcomes() == {"archived": 2}


def test_a_share_that_goes_away_under_a_claim_keeps_it(
    site: Site, clock: HandClock, share: Path
) -> None:
    drop(share / "a", instance(1))
    away = share.with_name("away")

    def instead(fn: Any, args: Any) -> Any:
        if fn is prepare_many and share.exists() and not away.exists():
            share.rename(away)
        return None

    with site.ingesting(Sick(instead)) as ingest:
        ingest.turn(look=True)
        for _ in range(20):
            ingest.turn(look=False)
            clock.seconds += 1
        drop(site.spool.root / "b", instance(2))
        ingest.turn(look=True)
        for _ in range(20):
            ingest.turn(look=False)
            clock.seconds += 1
        assert site.outcomes() == {"archived": 1}
        share.mkdir()
        away.joinpath(".claimed").rename(share / ".claimed")
        until_idle(ingest, clock)
    assert site.outcomes() == {"archived": 2}


# -- quarantine from a share, which is another file system


@pytest.fixture
def ward(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a share on another file system, or one that passes for it."""
    memory = Path("/dev/shm")
    is_other = os.access(memory, os.W_OK) and memory.stat().st_dev != tmp_path.stat().st_dev
    if not is_other:
        monkeypatch.setattr(aside, "_same_file_system", lambda _one, _other: False)
    with TemporaryDirectory(dir=memory if is_other else tmp_path) as folder:
        site.spool = Spool(site.spool.root, shares=[Share(Path(folder), "WARD")])
        yield Path(folder)


def quarantined_names(site: Site) -> list[str]:
    found = site.spool.quarantine_folder.glob("*/*")
    return sorted(path.name for path in found if path.name != "reason.json")


def told_of(site: Site) -> Quarantined:
    ((_, told),) = aside.quarantined(site.spool)
    return told


def left_on(share: Path) -> dict[str, bytes]:
    """Return what is kept on a share, without the reasons beside it."""
    found = (path for path in share.rglob("*") if path.is_file() and path.name != "reason.json")
    return {str(path.relative_to(share / ".claimed")): path.read_bytes() for path in found}


def test_a_link_is_carried_over_as_a_link(site: Site, run: Any, ward: Path) -> None:
    (ward / "link").symlink_to("nowhere/at all")
    seen: list[str] = []
    run(observer=lambda name, _: seen.append(name))
    ((folder, _),) = aside.quarantined(site.spool)
    assert os.readlink(folder / "link") == "nowhere/at all"
    assert "symlink" in seen
    assert list(ward.glob(".claimed/*")) == []


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_of_a_pipe_or_socket_the_reason_is_carried_over(
    site: Site, run: Any, ward: Path, kind: str
) -> None:
    os.mknod(ward / "thing", {"pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK}[kind] | 0o600)
    run()
    assert quarantined_names(site) == []
    assert told_of(site).message.endswith("only this note is left.")
    assert site.rows("SELECT detail ->> '$.message' FROM arrivals") == [told_of(site).message]
    assert list(ward.glob(".claimed/*")) == []


def unreadable(code: int) -> Callable[[str, str], None]:
    """Return an observer that lets nobody read the file `bad` for a copy."""

    def observer(name: str, path: str) -> None:
        if name == "read" and path.endswith("bad"):
            raise OSError(code, os.strerror(code))

    return observer


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO])
def test_what_cannot_be_read_stays_on_its_share_and_is_left_alone(
    site: Site, run: Any, ward: Path, code: int
) -> None:
    drop(ward / "bad", TEXT)
    drop(ward / "good", instance(1))
    run(observer=unreadable(code))
    assert site.outcomes() == {"archived": 1, "foreign": 1}
    told = told_of(site)
    assert left_on(ward) == {f"{told.arrival_id}/bad": TEXT}
    assert told.kept_at == str(ward / ".claimed" / told.arrival_id)
    assert told.kept_at in told.message
    assert site.rows("SELECT detail ->> '$.message' FROM arrivals WHERE outcome = 'foreign'") == [
        told.message
    ]
    touched: list[str] = []
    run(observer=lambda _, path: touched.append(path))
    assert [path for path in touched if told.arrival_id in path] == []
    aside.discard(site.spool, told.arrival_id)
    with site.ingesting():
        assert quarantined_names(site) == []
    (ward / ".claimed" / told.arrival_id / "bad").rename(ward / "again")
    with site.ingesting():
        assert list((ward / ".claimed").iterdir()) == []


def test_a_full_spool_is_no_fault_of_the_file(site: Site, run: Any, ward: Path) -> None:
    drop(ward / "bad", TEXT)
    run(observer=failing("write", "bad", errno.ENOSPC))
    assert quarantined_names(site) == ["bad"]
    assert left_on(ward) == {}


class Killed(BaseException):
    """The power fails."""


@pytest.mark.parametrize("is_readable", [True, False])
@pytest.mark.parametrize("is_killed", [True, False])
def test_from_a_share_nothing_is_lost_at_any_step(
    site: Site, clock: HandClock, ward: Path, is_readable: bool, is_killed: bool
) -> None:
    always = (lambda _name, _path: None) if is_readable else unreadable(errno.EIO)
    steps = 0
    while True:
        steps += 1
        shutil.rmtree(site.root)
        shutil.rmtree(ward / ".claimed", ignore_errors=True)
        for folder in (site.spool.root, site.archive.root):
            folder.mkdir(parents=True)
        site.spool = Spool(site.spool.root, shares=site.spool.shares)
        with zipfile.ZipFile(ward / "cd.zip", "w") as archive:
            archive.writestr("bad", TEXT)
        drop(ward / "x.bad", TEXT * 2)
        is_due = Once(steps)
        met: list[str] = []

        def observer(name: str, path: str, is_due: Once = is_due, met: list[str] = met) -> None:
            always(name, path)
            if is_due():
                met.append(name)
                raise Killed if is_killed else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for observe in (observer, always):
            with (
                suppress(Killed),
                durable.observe(always),
                site.ingesting() as ingest,
                durable.observe(observe),
            ):
                until_idle(ingest, clock)
        assert site.outcomes() == {"foreign": 2, "unpacked": 1}, f"step {steps}: {met}"
        site.check()
        found = (*site.spool.quarantine_folder.rglob("*bad"), *ward.rglob("*bad"))
        kept = sorted(path.read_bytes() for path in found)
        assert kept == [TEXT, TEXT * 2], f"step {steps}: {met}"
        assert bool(left_on(ward)) is not is_readable, f"step {steps}: {met}"
        if not met:
            break
    assert steps > 50


def test_an_archive_file_that_cannot_be_set_apart_now_waits_for_its_turn(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    drop(site.spool.root / "a", instance(1))
    with zipfile.ZipFile(site.spool.root / "b.zip", "w") as archive:
        archive.writestr("IMAGES/1", encoded(instance(2)))
    left = [2]

    def failing(name: str, path: str) -> None:
        if name == "rename" and path.endswith("/in/b.zip") and left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    clock = HandClock()
    site.clock = clock
    with site.ingesting() as ingest, durable.observe(failing):
        ingest.turn(look=True)
        for _ in range(20):
            clock.seconds += 61
            ingest.turn(look=False)
    assert left == [0]
    assert site.outcomes() == {"archived": 2, "unpacked": 1}
    site.check()
