"""kill -9 in the middle of a large archive file: the next start goes on where it was.

No member is lost, none comes twice, and what has its outcome is not unpacked again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingester import durable
from tests.archives import Kind, make_archive
from tests.faults.killed import run_and_die
from tests.site import Site, digest
from tests.stories.conftest import Command
from tests.waiting import until

COUNT = 1200  # three pages
PAGE = 512
KILLS = 3


def state(command: Command) -> dict[str, Any]:
    """Everything that must not depend on how often the power failed."""
    columns = "source, batch, original_name, size_bytes, sha256, outcome, reason"
    return {
        "arrivals": Counter(command.rows(f"SELECT {columns} FROM arrivals")),
        "instances": sorted(command.rows("SELECT path, sha256, version FROM instances")),
        "objects": {
            str(path.relative_to(command.archive)): digest(path)
            for path in command.archive.rglob("*.dcm")
        },
        "spool": command.left_in_spool(),
        "claimed": os.listdir(command.spool / ".claimed"),
    }


def fill(command: Command) -> None:
    make_archive(command.spool / "box.zip", COUNT)


def recorded(command: Command) -> int:
    return sum(command.outcomes().values())


@pytest.mark.timeout(300)
def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = Command(tmp_path / "whole")
    fill(whole)
    whole.run("run", "--once")
    expected = state(whole)
    assert len(expected["objects"]) == COUNT
    assert max(expected["arrivals"].values()) == 1

    dice = random.Random(20)
    for number in range(KILLS):
        command = Command(tmp_path / f"killed{number}")
        fill(command)
        deaths = 0
        for moment in sorted(dice.sample(range(COUNT), 2)):
            process = subprocess.Popen(
                command.arguments("run", "--once"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            until(
                lambda moment=moment, process=process, command=command: (  # type: ignore[misc]  # bound by default values
                    recorded(command) >= moment or process.poll() is not None
                ),
                within=60,
            )
            process.send_signal(signal.SIGKILL)
            deaths += process.wait() == -signal.SIGKILL
        assert deaths == 2
        command.run("run", "--once")
        assert state(command) == expected
        command.verify()
        shutil.rmtree(command.root)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.timeout(300)
def test_what_has_its_outcome_is_not_unpacked_again(
    tmp_path: Path, kind: Kind, share: float
) -> None:
    site = Site(tmp_path / "site")
    site.spool.make_folders()
    make_archive(site.spool.root / f"box.{kind}", COUNT, kind=kind)
    effects = [0]

    def count(name: str, path: str) -> None:
        effects[0] += 1

    copy = tmp_path / "copy"
    shutil.copytree(site.root, copy)
    with durable.observe(count):
        Site(copy).ingest_all()
    assert run_and_die(site.root, int(effects[0] * share))
    finished = sum(site.outcomes().values())
    assert 0 < finished < COUNT
    unpacked: list[str] = []

    def note(name: str, path: str) -> None:
        if name == "create" and "/members/" in path:
            unpacked.append(path)

    with durable.observe(note):
        site.ingest_all()
    assert len(unpacked) == COUNT - finished
    assert site.outcomes() == {"archived": COUNT, "unpacked": 1}
    assert site.objects() == Site(copy).objects()
    site.check()
