"""The power goes at any moment, and takes with it whatever was not flushed.

A run is recorded call by call (`disk.Recorder`); from each moment of it come states
that a power cut could leave (`disk.Disk`), and a fresh start on each of them must end
where the uninterrupted run ended, with nothing lost that was promised or committed.
That each flush is needed is shown by leaving it out: then some state must end badly.
"""

from __future__ import annotations

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


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return where a site can be made again and again."""
    return tmp_path / "site"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", power.SCENARIOS, ids=lambda each: each.name)
def test_a_power_cut_at_any_step_loses_nothing(
    scenario: Scenario, runs: dict[str, Run], site: Path
) -> None:
    run = runs[scenario.name]
    tried = 0
    for disk, left in run.states(1, 3):
        assert run.violation(disk, left, site) == "", (disk.at, left)
        tried += 1
    assert tried > _FEWEST_STATES


@pytest.mark.timeout(600)
def test_files_that_their_writer_never_flushed_are_safe_once_they_have_a_row(
    runs: dict[str, Run], site: Path
) -> None:
    run = runs[power.INGEST.name]
    tried = 0
    for disk, left in run.states(1, 2, is_fresh=True):
        assert run.violation(disk, left, site, is_fresh=True) == "", (disk.at, left)
        tried += 1
    assert tried > _FEWEST_STATES


@pytest.mark.parametrize("where", power.FLUSHES)
def test_each_flush_is_needed(where: str, runs: dict[str, Run], site: Path) -> None:
    run = runs[power.FLUSHES[where].name]
    violations = (
        run.violation(disk, left, site, is_fresh=is_fresh)
        for is_fresh in (False, True)
        for disk, left in run.states(1, 4, forgotten=where, is_fresh=is_fresh)
    )
    assert any(violations)


def test_no_flush_is_left_out(runs: dict[str, Run]) -> None:
    assert {where for run in runs.values() for where in run.trace.flushes()} == set(power.FLUSHES)
