"""Archive files of 10,000 objects: constant memory, one arrival each, however often killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archives import Kind, make_archive
from tests.stories.conftest import Command
from tests.waiting import until

COUNT, FEW = 10_000, 1_000
EDGE = 76  # pixels: objects of about 12 KB
#: What the index may keep in memory of itself, and what differs from run to run (KiB).
INDEX_CACHE, NOISE = 64 << 10, 40 << 10


def family(process: int) -> set[int]:
    """Return a process and all that come of it."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(name)] = int(fields[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory(process: int) -> int:
    """Return the proportional set size of a process and all its children (KiB)."""
    total = 0
    for each in family(process):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def recorded(command: Command) -> int:
    return sum(command.outcomes().values())


def start(command: Command) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command.arguments("run", "--once"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def peak_of(command: Command, count: int, kind: Kind) -> int:
    """Ingest an archive file with its pictures; returns the most memory that it took (KiB)."""
    make_archive(command.spool / f"box.{kind}", count, EDGE, kind)
    process = start(command)
    peaks = [0]

    def is_done() -> bool:
        peaks.append(memory(process.pid))
        return process.poll() is not None

    until(is_done, within=900)
    assert process.returncode == 0
    assert command.outcomes() == {"archived": count, "unpacked": 1}
    return max(peaks)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_ten_times_the_members_take_no_more_memory(tmp_path: Path, kind: Kind) -> None:
    few = peak_of(Command(tmp_path / "few"), FEW, kind)
    many = peak_of(Command(tmp_path / "many"), COUNT, kind)
    told = f"{kind}: {few >> 10} MiB for {FEW:,} members, {many >> 10} MiB for {COUNT:,}"
    sys.stderr.write(f"{told}\n")
    assert many < few + INDEX_CACHE + NOISE, told


@pytest.mark.timeout(1800)
def test_each_member_arrives_once_however_often_the_power_fails(tmp_path: Path) -> None:
    command = Command(tmp_path / "site")
    make_archive(command.spool / "box.zip", COUNT, EDGE)
    dice = random.Random(1)
    for moment in sorted(dice.sample(range(COUNT), 5)):
        process = start(command)
        until(
            lambda moment=moment, process=process: (  # type: ignore[misc]  # bound by default values
                recorded(command) >= moment or process.poll() is not None
            ),
            within=600,
        )
        process.kill()
        assert process.wait() == -signal.SIGKILL
    process = start(command)
    until(lambda: recorded(command) == COUNT + 1, within=600)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    names = command.rows("SELECT original_name FROM arrivals")
    assert len(names) == len(set(names)) == COUNT + 1
    assert command.outcomes() == {"archived": COUNT, "unpacked": 1}
    assert command.left_in_spool() == []
    command.verify()
