"""A backup is made while files arrive; then the bad day comes, step by step of the docs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.factory import drop, encoded, instance
from tests.stories.conftest import Command
from tests.waiting import until

ROOT = Path(__file__).parents[2]
#: What must be the same in a backup, or after a restoration, as it was in the site.
TABLES = ("patients", "studies", "series", "instances", "headers", "arrivals", "derivatives")


class Copied(Command):
    """A backup, asked where it lies by its own configuration."""

    def __post_init__(self) -> None:
        """Leave everything as it is."""

    @property
    def archive(self) -> Path:
        return self.root

    @property
    def spool(self) -> Path:
        return self.root / ".spool"


def contents(command: Command) -> dict[str, list[Any]]:
    return {name: command.rows(f"SELECT * FROM {name} ORDER BY 1, 2") for name in TABLES}


def fill(command: Command) -> None:
    drop(command.spool / "CD_1" / "a", instance(1))
    drop(command.spool / "CD_1" / "b", instance(1, 1, 1, 2))
    drop(command.spool / "c", instance(2, frames=3, Modality="US"))
    drop(command.spool / "again", instance(1))
    drop(command.spool / "cut", encoded(instance(3))[:-20])
    drop(command.spool / "readme.txt", b"not an image\n" * 20)
    command.once(exit_code=1)


def test_a_backup_beside_the_service_is_whole_at_any_moment(
    command: Command, tmp_path: Path
) -> None:
    backup = Copied(tmp_path / "backup")
    is_over = threading.Event()

    def send() -> None:
        for number in range(1, 121):
            patient = number % 7 + 1
            folder = command.spool / f"CD_{patient}"
            drop(folder / f"{number}.part", instance(patient, 1, 1, number))
            os.rename(folder / f"{number}.part", folder / f"{number}")
        is_over.set()

    with command.service() as service:
        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: command.outcomes().get("archived", 0) > 0, what="something is archived")
        grown: list[int] = []
        while not is_over.is_set() or len(grown) < 3:
            grown.append(command.json("backup", backup.root)["objects"])
            backup.verify()
            assert len(backup.rows("SELECT 1 FROM instances")) == grown[-1]
        sender.join()
        service.await_outcomes({"archived": 120})
        until(lambda: command.json("status", exit_code=None)["pending_derivatives"] == 0)
    command.json("backup", backup.root)
    assert command.json("backup", backup.root)["copied"] == 0
    assert grown == sorted(grown)
    backup.verify()
    assert contents(backup) == contents(command)
    backup.run("rebuild")
    assert contents(backup) == contents(command)
    backup.verify()
    command.verify()


def test_a_backup_that_was_interrupted_goes_on(command: Command, tmp_path: Path) -> None:
    fill(command)
    for number in range(1, 41):
        drop(command.spool / f"{number}", instance(9, 1, 1, number, rows=512, columns=512))
    command.once(exit_code=None)
    backup = Copied(tmp_path / "backup")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            command.arguments("backup", backup.root),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        until(partial(_has_begun, backup, process), what="it has begun")
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        # A quick machine may be done before the signal.
        assert process.returncode in (0, 130, -signal.SIGKILL), said
        if process.returncode == 130:
            assert b"the next backup goes on" in said
    command.run("backup", backup.root)
    backup.verify()
    assert contents(backup) == contents(command)
    command.verify()


def _has_begun(backup: Copied, process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None or (backup.root / ".staging" / "index.db").exists()


def test_a_backup_is_no_archive_to_work_in(command: Command, tmp_path: Path) -> None:
    fill(command)
    backup = Copied(tmp_path / "backup")
    command.run("backup", backup.root)
    for arguments in (["run"], ["run", "--once"], ["derive"], ["import", str(tmp_path / "x")]):
        (tmp_path / "x").touch()
        done = subprocess.run(
            backup.arguments(*arguments), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "is a backup" in done.stderr
    assert "P0001" in backup.run("find", "P0001")
    backup.verify()
    command.verify()


@pytest.fixture
def machine(command: Command, tmp_path: Path) -> tuple[Command, Copied]:
    """A site that was backed up."""
    fill(command)
    backup = Copied(tmp_path / "backup")
    command.run("backup", backup.root)
    return command, backup


def steps(heading: str) -> list[str]:
    """Return the commands below a heading of the page for the bad day."""
    page = (ROOT / "docs" / "recovery.md").read_text(encoding="utf-8")
    text = page[page.index(f"\n### {heading}\n") :]
    text = re.split(r"\n##+ ", text)[1]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def follow(heading: str, site: Command, backup: Copied, **instead: str) -> int:
    """Do what the page says, on this site; returns how many commands that were."""
    ingester = f"{shlex.quote(sys.executable)} -m ingester"
    done = 0
    for step in steps(heading):
        if step.startswith("systemctl") or step.endswith("service --install"):
            continue
        for old, new in instead.items():
            step = step.replace(old, new)
        line = re.sub(r"^ingester ", f"{ingester} ", step)
        line = line.replace("/srv/dicom", str(site.root)).replace("/mnt/backup", str(backup.root))
        found = subprocess.run(
            ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=100, check=False
        )
        assert found.returncode == 0, f"{step}\n{found.stdout}{found.stderr}"
        done += 1
    return done


def test_one_object_comes_back(machine: tuple[Command, Copied]) -> None:
    site, backup = machine
    before = contents(site)["instances"]
    (path, *_) = site.rows("SELECT path FROM instances ORDER BY path")
    (site.archive / path).unlink()
    site.run("verify", exit_code=1)
    shown = {"CT1/2026/01/31/1.2.3/1.2.3.4.dcm": path}
    assert follow("One object is damaged or gone", site, backup, **shown) == 2
    assert contents(site)["instances"] == before
    site.verify()


def test_the_archives_disk_comes_back(machine: tuple[Command, Copied]) -> None:
    site, backup = machine
    before = contents(site)
    drop(site.spool / "later", instance(5))  # waits in the spool meanwhile
    shutil.rmtree(site.archive)
    site.archive.mkdir()
    site.run("run", "--once", exit_code=2)
    assert follow("The archive's disk is lost", site, backup) == 7
    assert contents(site) == before
    assert site.once()["archived"] == 1
    site.verify()
    assert site.json("backup", backup.root)["copied"] == 2  # the later one and its picture
    backup.verify()


def test_the_whole_machine_comes_back(machine: tuple[Command, Copied]) -> None:
    site, backup = machine
    before = contents(site)
    shutil.rmtree(site.root)
    assert follow("The whole machine is lost", site, backup) == 7
    assert contents(site) == before
    assert site.once(exit_code=None) == {}
    site.verify()
    assert site.json("backup", backup.root)["copied"] == 0
    backup.verify()


def test_the_backup_is_asked_where_it_lies(machine: tuple[Command, Copied]) -> None:
    site, backup = machine
    for command in ("find Family1", "sql 'SELECT 1 FROM images'", "show 1", "status"):
        assert "Traceback" not in backup.run(*shlex.split(command), exit_code=None)
    page = (ROOT / "docs" / "recovery.md").read_text(encoding="utf-8")
    assert "ingester --config /mnt/backup/ingest.toml find" in page
    site.verify()
