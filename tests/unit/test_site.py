from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingester.errors import Fatal
from ingester.site import SITE_NAME, Space, held, make_roots, tie


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    spool, archive = tmp_path / "spool", tmp_path / "archive"
    make_roots(spool, archive, spool_mode=0o2770, archive_mode=0o2750)
    return spool, archive


def an_object_in(archive: Path) -> None:
    home = archive / "CT1/2024/01/01/1.2"
    home.mkdir(parents=True)
    (home / "1.2.3.dcm").write_bytes(b"x")


def test_two_new_folders_are_tied_for_good(folders: tuple[Path, Path]) -> None:
    spool, archive = folders
    tie(spool, archive)
    site_id = (spool / SITE_NAME).read_text()
    assert len(site_id.strip()) == 16
    assert (archive / SITE_NAME).read_text() == site_id
    an_object_in(archive)
    tie(spool, archive)
    assert (spool / SITE_NAME).read_text() == site_id


def test_an_archive_disk_that_is_not_mounted_is_refused(folders: tuple[Path, Path]) -> None:
    spool, archive = folders
    tie(spool, archive)
    (archive / SITE_NAME).unlink()
    with pytest.raises(Fatal, match="not mounted"):
        tie(spool, archive)
    assert not (archive / SITE_NAME).exists()


def test_another_archive_is_refused(folders: tuple[Path, Path]) -> None:
    spool, archive = folders
    tie(spool, archive)
    (archive / SITE_NAME).write_text("0123456789abcdef\n")
    with pytest.raises(Fatal, match="another spool"):
        tie(spool, archive)


@pytest.mark.parametrize("has_id", [False, True])
def test_an_archive_with_objects_is_not_adopted(folders: tuple[Path, Path], has_id: bool) -> None:
    spool, archive = folders
    an_object_in(archive)
    if has_id:
        (archive / SITE_NAME).write_text("0123456789abcdef\n")
    with pytest.raises(Fatal, match="holds objects"):
        tie(spool, archive)
    assert not (spool / SITE_NAME).exists()


def test_a_crash_between_the_two_ids_is_mended(folders: tuple[Path, Path]) -> None:
    spool, archive = folders
    (archive / SITE_NAME).write_text("0123456789abcdef\n")
    tie(spool, archive)
    assert (spool / SITE_NAME).read_text() == "0123456789abcdef\n"


def test_one_missing_folder_is_never_made(folders: tuple[Path, Path]) -> None:
    spool, archive = folders
    archive.rmdir()
    with pytest.raises(Fatal, match="not mounted"):
        make_roots(spool, archive, spool_mode=0o2770, archive_mode=0o2750)
    assert not archive.exists()


@pytest.mark.parametrize(("spool", "archive"), [("a", "a/archive"), ("a/spool", "a"), ("a", "a")])
def test_one_within_the_other_is_refused(tmp_path: Path, spool: str, archive: str) -> None:
    with pytest.raises(Fatal, match="must not lie in one another"):
        make_roots(tmp_path / spool, tmp_path / archive, spool_mode=0o2770, archive_mode=0o2750)


def test_a_second_holder_is_told_who_the_first_is(folders: tuple[Path, Path]) -> None:
    spool, archive = folders
    holder = rf"process {os.getpid()} \(ingester run\)"
    with (
        held(archive, spool, command="run"),
        pytest.raises(Fatal, match=holder),
        held(spool, command="derive"),
    ):
        pass
    with held(spool, archive, command="derive"):
        pass


def test_a_child_holds_nothing(folders: tuple[Path, Path]) -> None:
    spool, _ = folders
    with held(spool, command="run"):
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
    try:
        with held(spool, command="run"):
            pass
    finally:
        child.communicate(b"\n")


def test_space_is_what_the_file_system_says(tmp_path: Path) -> None:
    space = Space.of(tmp_path)
    assert 0 < space.free_bytes <= space.total_bytes
