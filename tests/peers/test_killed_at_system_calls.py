"""Killed on entry to a system call, the next start ends where no kill would have.

A sample of what `python -m tests.proof.system_calls` tries in full.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.conftest import program
from tests.proof.system_calls import Inline, sampled

POINTS = 20
FEWEST_BOUNDARIES = 400


@pytest.mark.timeout(300)
def test_a_kill_at_a_system_call_changes_nothing_in_the_end(tmp_path: Path) -> None:
    program("strace")
    way = Inline(tmp_path)
    possible = way.points()
    assert len(possible) > FEWEST_BOUNDARIES
    assert {"linkat", "renameat2", "fdatasync", "fsync", "pwrite64"} <= {
        each.call for each in possible
    }
    found = {point: way.killed_at(point) for point in sampled(possible, POINTS)}
    assert not [told for told in found.values() if told]
    killed = [point for point, told in found.items() if told is not None]
    assert len(killed) >= POINTS - 2, "threads share calls; nearly every point is reached"
