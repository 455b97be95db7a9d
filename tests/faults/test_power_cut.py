"""The power goes at any moment, and takes with it whatever was not flushed.

A run is recorded call by call (`disk.Recorder`); from each moment of it come states
that a power cut could leave (`disk.Disk`), and a fresh start on each of them must end
where the uninterrupted run ended, with nothing lost that was promised or committed.
That each flush is needed is shown by leaving it out: then some state must end badly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import power
from tests.faults.power import Run, Scenario

_FEWEST_STATES = 50


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("recorded")
    return {
        scenario.name: power.record(scenario, folder / str(number))
        for number, scenario in enumerate(power.SCENARIOS)
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", power.SCENARIOS, ids=lambda each: each.name)
def test_a_power_cut_at_any_step_loses_nothing(
    scenario: Scenario, runs: dict[str, Run], tmp_path: Path
) -> None:
    run = runs[scenario.name]
    tried = 0
    for disk, left in run.states(1, 3):
        assert run.violation(disk, left, tmp_path / "site") == "", (disk.at, left)
        tried += 1
    assert tried > _FEWEST_STATES


@pytest.mark.timeout(600)
def test_files_that_their_writer_never_flushed_are_safe_once_they_have_a_row(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    run = runs[power.INGEST.name]
    tried = 0
    for disk, left in run.states(1, 2, is_fresh=True):
        assert run.violation(disk, left, tmp_path / "site", is_fresh=True) == "", (disk.at, left)
        tried += 1
    assert tried > _FEWEST_STATES


def violations(run: Run, where: str, root: Path) -> Iterator[str]:
    """Yield what goes wrong where the flushes of one place do nothing."""
    for is_fresh in (False, True):
        for disk, left in run.states(1, 8, forgotten=where, is_fresh=is_fresh):
            found = run.violation(disk, left, root, is_fresh=is_fresh)
            if found:
                yield found


@pytest.mark.timeout(900)
def test_each_flush_is_needed(runs: dict[str, Run], tmp_path: Path) -> None:
    places = {where: run for run in reversed(runs.values()) for where in run.trace.flushes()}
    assert len(places) >= 10
    idle = [
        where
        for where, run in sorted(places.items())
        if next(violations(run, where, tmp_path / "site"), None) is None
    ]
    assert idle == []
