"""The trial drop: each step that can fail, what is said of it, and that nothing is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingester import durable
from ingester.doctor import State, drops
from ingester.doctor.apart import Person
from ingester.doctor.drops import Roads, Tried
from ingester.doctor.people import me
from ingester.model import WriterState
from tests.factory import drop
from tests.site import Site

DICOM = Person("dicom", 12345, 12345)


@pytest.fixture
def roads(site: Site) -> Roads:
    site.spool.make_folders()
    site.archive.make_folders()
    return Roads(site.spool.root / "CT1", site.spool.root, site.archive.root)


def everything(roads: Roads) -> set[Path]:
    return {*roads.root.rglob("*"), *roads.archive.rglob("*")}


def test_a_drop_that_goes_well_leaves_nothing(roads: Roads) -> None:
    before = everything(roads)
    tried = drops.try_drop(roads, me())
    assert tried == Tried(None, 0, WriterState.FREE, 0)
    assert everything(roads) == before
    assert drops.trial(roads, me(), tried).state is State.OK
    assert drops.intake(roads.root, roads.archive, tried, "auto").state is State.OK


def test_a_drop_into_a_site_that_never_ran(tmp_path: Path) -> None:
    for name in ("spool", "archive"):
        (tmp_path / name).mkdir()
    roads = Roads(tmp_path / "spool", tmp_path / "spool", tmp_path / "archive")
    assert drops.try_drop(roads, me()).failed is None
    assert everything(roads) == set()


def failing(effect: str, code: int) -> Callable[[str, str], None]:
    def observer(name: str, path: str) -> None:
        if name == effect and ".ingester-doctor-" in path:
            raise OSError(code, os.strerror(code), path)

    return observer


@pytest.mark.parametrize(
    ("effect", "step", "words"),
    [
        ("create", "drop", "may not make files"),
        ("rename", "claim", "cannot be renamed"),
        ("link", "link", "cannot be brought to"),
        ("unlink", "remove", "cannot be removed"),
    ],
)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_each_step_that_fails_is_said(
    roads: Roads, effect: str, step: str, words: str, code: int
) -> None:
    before = everything(roads)
    with durable.observe(failing(effect, code)):
        tried = drops.try_drop(roads, me())
    assert (tried.failed, tried.code) == (step, code)
    check = drops.trial(roads, me(), tried)
    assert check.state is State.PROBLEM
    assert words in check.message
    assert os.strerror(code) in check.message
    assert check.fix
    assert everything(roads) == before


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_a_spool_and_an_archive_that_cannot_share_a_file(roads: Roads, code: int) -> None:
    with durable.observe(failing("link", code)):
        tried = drops.try_drop(roads, me())
    assert (tried.failed, tried.link) == (None, code)
    check = drops.intake(roads.root, roads.archive, tried, "auto")
    assert (check.state, "is copied" in check.message) == (State.NOTE, True)
    check = drops.intake(roads.root, roads.archive, tried, "link")
    assert (check.state, "intake" in check.fix) == (State.PROBLEM, True)


def test_a_file_system_without_leases(roads: Roads) -> None:
    tried = replace(drops.try_drop(roads, me()), lease=WriterState.UNKNOWN)
    check = drops.intake(roads.root, roads.archive, tried, "auto")
    assert (check.state, "no leases" in check.message) == (State.NOTE, True)


def test_what_a_stranger_drops(roads: Roads) -> None:
    def check(failed: str | None) -> tuple[State, str]:
        tried = Tried(failed, errno.EACCES, WriterState.UNKNOWN, 0)
        found = drops.strangers_trial(roads, DICOM, tried)
        assert found is not None
        return found.state, found.fix

    assert drops.strangers_trial(roads, DICOM, None) is None
    assert check(None) == (State.OK, "")
    assert check("read") == (State.NOTE, f"setfacl -d -m u:dicom:rwX {roads.drop}")
    assert check("claim") == (State.PROBLEM, f"chmod -t {roads.drop}")
    assert check("remove")[0] is State.PROBLEM


# -- folders


def test_folders_that_are_wrong(tmp_path: Path) -> None:
    def check(path: Path, person: Person = DICOM, mode: int = 0o2770) -> tuple[State, str]:
        found = drops.folder("spool", path, mode, person)
        return found.state, found.message

    good = tmp_path / "good"
    good.mkdir()
    good.chmod(0o2770)
    assert check(good)[0] is State.OK
    state, message = check(tmp_path / "gone")
    assert (state, "is not there" in message) == (State.PROBLEM, True)
    state, message = check(drop(tmp_path / "file", b""))
    assert (state, "is no folder" in message) == (State.PROBLEM, True)
    good.chmod(0o2772)
    state, message = check(good)
    assert (state, "everybody may write" in message) == (State.PROBLEM, True)
    good.chmod(0o3770)
    state, message = check(good, replace(DICOM, uid=os.stat(good).st_uid + 1))
    assert (state, "sticky" in message) == (State.PROBLEM, True)
    assert check(good, replace(DICOM, uid=os.stat(good).st_uid))[0] is State.OK
    good.chmod(0o770)
    state, message = check(good)
    assert (state, "setgid" in message) == (State.NOTE, True)


def test_folders_that_the_service_may_not_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    paths = [mine, theirs, tmp_path / "gone"]
    assert drops.writable(paths, me()).state is State.OK
    # The kernel's answer; for root it would always be yes.
    monkeypatch.setattr("os.access", lambda path, _mode: path != theirs)
    found = drops.writable(paths, me())
    assert found.state is State.PROBLEM
    assert str(theirs) in found.message
    assert str(mine) not in found.message
    assert found.fix.startswith("chown")


def test_a_group_that_is_not_there() -> None:
    def check(known: list[str], its: list[str]) -> tuple[State, str]:
        found = drops.group("radiology", known, its, DICOM)
        return found.state, found.fix

    assert check(["radiology"], ["radiology"]) == (State.OK, "")
    assert check([], []) == (State.PROBLEM, "groupadd radiology")
    assert check(["radiology"], []) == (State.PROBLEM, "usermod -aG radiology dicom")
