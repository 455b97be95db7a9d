"""Killed before any durable effect, the next start ends where no kill would have.

The process is forked, dies without a farewell before its n-th effect (n = 1, 2, …
until it lives), and a fresh run on what it left must reach the uninterrupted result:
the same names and bytes, the same rows and outcomes, nothing left behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.everything import fill, state
from tests.faults.killed import run_and_die
from tests.site import Site

FEWEST_EFFECTS = 100


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    site = Site(tmp_path_factory.mktemp("whole"))
    site.spool.make_folders()
    fill(site)
    site.ingest_all()
    site.check()
    found = state(site)
    assert set(site.outcomes()) == {
        "archived", "duplicate", "conflict", "quarantined", "foreign", "unpacked",
    }  # fmt: skip
    return found


@pytest.mark.timeout(600)
def test_a_kill_before_any_effect_changes_nothing_in_the_end(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    template = Site(tmp_path / "template")
    template.spool.make_folders()
    fill(template)
    n = 0
    while True:
        n += 1
        root = tmp_path / "site"
        shutil.copytree(template.root, root)
        died = run_and_die(root, n)
        site = Site(root)
        site.ingest_all()
        assert state(site) == uninterrupted, f"killed before effect {n}"
        site.check()
        shutil.rmtree(root)
        if not died:
            break
    assert n > FEWEST_EFFECTS


@pytest.mark.timeout(300)
def test_a_second_kill_during_recovery_changes_nothing_either(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    template = Site(tmp_path / "template")
    template.spool.make_folders()
    fill(template)
    deaths = 0
    for first, second in [(40, 5), (60, 20), (80, 9), (90, 33), (120, 50), (140, 3), (160, 70)]:
        root = tmp_path / "site"
        shutil.copytree(template.root, root)
        deaths += run_and_die(root, first)
        deaths += run_and_die(root, second)
        site = Site(root)
        site.ingest_all()
        assert state(site) == uninterrupted, f"killed before effects {first} and {second}"
        site.check()
        shutil.rmtree(root)
    assert deaths >= 10
