"""`ingester import`: everything that is brought is accounted for, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.archives import make_archive, objects
from tests.factory import drop, encoded, instance
from tests.media import burn, images
from tests.stories.conftest import SUMMARY, Command
from tests.waiting import until


def imported(command: Command, *arguments: str | Path, exit_code: int = 0) -> tuple[Any, str]:
    """Import as JSON; returns the summary and what was said on standard error."""
    done = subprocess.run(
        command.arguments("import", *arguments, "--json"),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert list(told) == SUMMARY
    return told, done.stderr


def fill(folder: Path, count: int) -> Path:
    """Write so many objects below a folder."""
    for name, data in objects(count):
        drop(folder / name, data)
    return folder


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A folder with all that people have in folders."""
    box = tmp_path / "BOX_7"
    fill(box / "IMAGES", 3)
    drop(box / "again", encoded(instance(1)))
    drop(box / "changed", encoded(instance(1, PatientID="OTHER")))
    drop(box / "cut", encoded(instance(2))[:-40])
    drop(box / "viewer.exe", b"MZ" + bytes(998))
    drop(box / "report.pdf", b"%PDF-1.7\n" + bytes(991))
    make_archive(box / "inside.zip", 5)
    (box / "link").symlink_to("/etc/passwd")
    (box / "folders").symlink_to(box / "IMAGES")
    return box


def test_what_became_of_each_agrees_with_the_batch_and_the_receipt(
    command: Command, box: Path
) -> None:
    told, said = imported(command, box, "--source", "CT9", exit_code=1)
    counts = {key: value for key, value in told.items() if value and key != "seconds"}
    assert counts == {
        "arrived": 14, "archived": 6, "duplicate": 3, "conflict": 1, "quarantined": 1,
        "foreign": 2, "unpacked": 1, "thumbnails": 7, "bytes": told["bytes"],
    }  # fmt: skip
    (row,) = command.rows(
        "SELECT arrived, archived, duplicate, conflict, quarantined, unpacked, size_bytes"
        " FROM batches WHERE source = 'CT9' AND batch = 'BOX_7'"
    )
    assert row == (12, 6, 3, 1, 1, 1, told["bytes"] - 2000)
    lines = said.splitlines()
    assert any(line.startswith("BOX_7/cut: quarantined. ") for line in lines)
    assert any(line.startswith("BOX_7/changed: conflict. ") for line in lines)
    assert any("link: it is a link or a device" in line for line in lines)
    assert any("folders: it is a link to a folder" in line for line in lines)
    assert "2 files without DICOM left where they are" in lines
    (hint,) = [line for line in lines if "receipt" in line]
    assert hint.endswith("receipt BOX_7 --source CT9")
    assert (box / "viewer.exe").exists()
    assert command.left_in_spool() == []
    command.verify()


def test_a_copy_that_is_interrupted_goes_on_with_the_next_import(
    command: Command, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "MANY", 900)
    process = subprocess.Popen(
        command.arguments("import", folder, "--move"), stderr=subprocess.PIPE, text=True
    )

    def has_begun() -> bool:
        assert process.poll() is None, "it was over before it could be interrupted"
        return any((command.spool / ".received").rglob("IM*"))

    until(has_begun)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "copied so far" in said
    assert "becomes a duplicate" in said
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 900
    told, _ = imported(command, folder, "--move")
    assert told["arrived"] == 900
    assert told["archived"] + told["duplicate"] == 900
    assert command.rows("SELECT count(*) FROM instances") == [900]
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert command.left_in_spool() == []
    command.verify()


def test_without_room_nothing_is_copied_and_nothing_is_lost(
    command: Command, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "CD", 3)
    command.configure(spool={"min_free": "100000 TiB"})
    done = subprocess.run(
        command.arguments("import", folder, "--move"),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 2
    assert "[spool] min_free" in done.stderr
    assert command.left_in_spool() == []
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 3


def test_what_is_foreign_needs_no_room(command: Command, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    spare = disk.f_bavail * disk.f_frsize // 2
    command.configure(spool={"min_free": f"{spare >> 20} MiB"})
    with drop(tmp_path / "CD/film.exe", b"MZ").open("r+b") as film:
        film.truncate(spare + (1 << 30))  # a hole: it takes no room itself
    drop(tmp_path / "CD/IM1", instance(1))
    told, _ = imported(command, tmp_path / "CD")
    assert (told["archived"], told["foreign"]) == (1, 1)


def test_links_that_are_named_are_followed_and_nothing_is_brought_twice(
    command: Command, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "REAL", 2)
    (tmp_path / "CD_9").symlink_to(folder)
    told, said = imported(command, tmp_path / "CD_9", folder, tmp_path / "CD_9", exit_code=1)
    assert (told["arrived"], told["archived"]) == (2, 2)
    assert said.count("it was named twice") == 2
    assert command.rows("SELECT DISTINCT batch FROM arrivals") == ["CD_9"]


def test_an_import_without_any_dicom_says_so(command: Command, tmp_path: Path) -> None:
    drop(tmp_path / "CD/readme.txt", b"nothing here " * 20)
    told, said = imported(command, tmp_path / "CD")
    assert (told["arrived"], told["foreign"], told["archived"]) == (1, 1, 0)
    assert "1 file without DICOM left where it is" in said


def test_a_cd_with_missing_files_says_how_many_and_where_to_look(
    command: Command, tmp_path: Path
) -> None:
    cd = burn(tmp_path / "CD_4711")
    for path in images(cd)[:3]:
        path.unlink()
    told, said = imported(command, cd)
    assert (told["archived"], told["unpacked"], told["foreign"]) == (7, 1, 3)
    assert "it names 10 files; 3 of them are not in the archive" in said
    assert "receipt CD_4711" in said
    command.run("receipt", "CD_4711", exit_code=1)
    command.verify()


def test_beside_a_running_service_each_member_is_counted(command: Command, tmp_path: Path) -> None:
    make_archive(tmp_path / "study.zip", 600)
    cd = burn(tmp_path / "CD_4711")
    with command.service() as service:
        told, said = imported(command, tmp_path / "study.zip", cd)
        assert service.process.poll() is None
        assert (told["arrived"], told["archived"], told["unpacked"]) == (615, 610, 2)
        assert "receipt study.zip" in said
        batches = command.rows("SELECT batch, arrived, archived FROM batches ORDER BY 1")
        assert batches == [("CD_4711", 11, 10), ("study.zip", 601, 600)]
    command.verify()
