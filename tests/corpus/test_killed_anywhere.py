"""kill -9 at random moments of a run over the corpus ends where no kill would have.

`INGESTER_KILLS` says at how many moments (each on a fresh site), `INGESTER_SEED` which.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.site import digest
from tests.stories.conftest import Command

KILLS = int(os.environ.get("INGESTER_KILLS", "3"))
SEED = int(os.environ.get("INGESTER_SEED", "1"))


def state(command: Command) -> dict[str, Any]:
    """Everything that must not depend on how often the power failed."""
    archive = command.archive
    derivatives = (
        "SELECT i.path, d.kind, d.status, d.reason, d.path FROM derivatives d"
        " JOIN instances i USING (instance_id) ORDER BY 1, 2"
    )
    quarantine = command.spool / "quarantine"
    return {
        "objects": {
            str(path.relative_to(archive)): digest(path)
            for path in archive.rglob("*.dcm")
            if not str(path.relative_to(archive)).startswith(".")
        },
        "pictures": sorted(
            str(path.relative_to(archive))
            for path in archive.rglob("*")
            if path.suffix in (".jpg", ".mp4")
        ),
        "arrivals": Counter(
            command.rows(
                "SELECT source, batch, original_name, size_bytes, sha256, outcome, reason"
                " FROM arrivals"
            )
        ),
        "instances": sorted(command.rows("SELECT path, sha256, version FROM instances")),
        "derivatives": command.rows(derivatives),
        "studies": sorted(command.rows("SELECT study_instance_uid FROM studies")),
        "series": sorted(command.rows("SELECT series_instance_uid FROM series")),
        "problems": Counter(command.rows("SELECT kind, reason FROM problems")),
        "aside": Counter(
            (path.name, path.is_symlink() or digest(path))
            for path in quarantine.rglob("*")
            if path.name != "reason.json" and not path.is_dir()
        ),
        "spool": command.left_in_spool(),
        "staging": sorted(os.listdir(archive / ".staging")),
    }


def kill_after(command: Command, seconds: float) -> bool:
    """Run it, and kill it without a farewell; True if it still ran."""
    process = subprocess.Popen(
        command.arguments("run", "--once"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@pytest.mark.timeout(3600)
def test_killed_at_random_moments(corpus: Path, tmp_path: Path) -> None:
    whole = Command(tmp_path / "whole")
    shutil.copytree(corpus, whole.spool / "corpus")
    seconds = whole.json("run", "--once", exit_code=1)["seconds"]
    expected = state(whole)
    whole.verify()

    dice = random.Random(SEED)
    killed = 0
    for number in range(KILLS):
        command = Command(tmp_path / f"killed{number}")
        shutil.copytree(corpus, command.spool / "corpus")
        # Half of the moments fall into the intake, which is short beside the pictures.
        most = seconds if number % 2 else min(seconds, 4.0)
        after = dice.uniform(0.3, most)
        killed += kill_after(command, after)
        command.run("run", "--once", exit_code=1 if command.left_in_spool() else None)
        found = state(command)
        for part, value in expected.items():
            assert found[part] == value, f"{part} differs; killed after {after} s"
        command.verify()
        shutil.rmtree(command.root)
    assert killed >= KILLS // 2
