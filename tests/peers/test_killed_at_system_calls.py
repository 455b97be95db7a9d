"""Killed on entry to a system call, the next start ends where no kill would have.

A sample of what `python -m tests.proof.system_calls` tries in full.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.conftest import program
from tests.proof.system_calls import Inline, sampled

POINTS = 24
TELLING = {"fdatasync", "fsync", "linkat", "pwrite64", "renameat2", "unlink"}
FEWEST_BOUNDARIES = 400


@pytest.mark.timeout(300)
def test_a_kill_at_a_system_call_changes_nothing_in_the_end(tmp_path: Path) -> None:
    program("strace")
    way = Inline(tmp_path)
    possible = way.points()
    assert len(possible) > FEWEST_BOUNDARIES
    telling = [each for each in possible if each.call in TELLING]
    assert {each.call for each in telling} == TELLING
    found = {point: way.killed_at(point) for point in sampled(telling, POINTS)}
    assert not [told for told in found.values() if told]
    killed = [point for point, told in found.items() if told is not None]
    assert len(killed) >= POINTS - 2, "threads share calls; nearly every point is reached"
