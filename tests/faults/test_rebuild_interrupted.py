"""A rebuild that is killed, or finds the disk full, leaves the old index whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from ingester import durable
from ingester.check import Rebuilt, rebuild
from ingester.index.writer import Writer
from ingester.model import SystemClock
from tests.factory import drop, encoded, instance
from tests.faults.killed import KILLED, dying_at, in_another_process
from tests.indexes import whole
from tests.site import Site

FEWEST_EFFECTS = 25


def rebuilt(site: Site) -> Rebuilt:
    return rebuild(site.archive.root, site.index, clock=SystemClock(), spool=site.spool.root)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a site whose service was killed: part of its index is in the log only."""
    made = Site(tmp_path_factory.mktemp("made") / "site")
    drop(made.spool.root / "a.dcm", instance())
    drop(made.spool.root / "b.dcm", instance(PatientName="Somebody^Else"))
    drop(made.spool.root / "c.dcm", encoded(instance(patient=3))[:-40])
    made.ingest_all()
    killed = made.root.with_name("killed")
    writer = Writer.open(made.index)
    (conflict,) = made.rows("SELECT arrival_id FROM arrivals WHERE outcome = 'conflict'")
    writer.resolve([conflict], decision="make-current", at="2026-01-01T00:00:00.000Z")
    shutil.copytree(made.root, killed)  # which keeps the files' times
    writer.close()
    assert (killed / "archive" / "index.db-wal").stat().st_size > 0
    return killed


@pytest.fixture(scope="module")
def before(built: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    copy = tmp_path_factory.mktemp("before") / "site"
    shutil.copytree(built, copy)
    found = whole(copy / "archive" / "index.db")
    assert len(found["resolutions"]) == 2
    return found


def leftovers(site: Site) -> list[str]:
    return sorted(path.name for path in site.archive.root.glob("index.db.rebuild*"))


@pytest.mark.timeout(600)
def test_a_kill_before_any_effect_loses_no_row(built: Path, before: object, tmp_path: Path) -> None:
    n = 0
    while True:
        n += 1
        root = tmp_path / "site"
        shutil.copytree(built, root)
        site = Site(root)
        died = in_another_process(partial(rebuilt, site), dying_at(n)) == KILLED
        done = rebuilt(site)
        assert whole(site.index) == before, f"killed before effect {n}"
        assert done.kept_aside is not None
        assert whole(done.kept_aside) == before
        assert leftovers(site) == []
        site.check()
        shutil.rmtree(root)
        if not died:
            break
    assert n > FEWEST_EFFECTS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_step_leaves_the_old_index_in_its_place(
    built: Path, before: object, tmp_path: Path, code: int
) -> None:
    n = 0
    while True:
        n += 1
        root = tmp_path / "site"
        shutil.copytree(built, root)
        site = Site(root)
        met: list[str] = []
        with suppress(OSError), durable.observe(failing_at(n, code, met)):
            rebuilt(site)
        assert whole(site.index) == before, f"failed at effect {n}: {met}"
        is_tidying = met and met[0].startswith("unlink") and ".rebuild" in met[0]
        assert leftovers(site) == [] or is_tidying, f"failed at effect {n}: {met}"
        shutil.rmtree(root)
        if not met:
            break
    assert n > FEWEST_EFFECTS


def test_a_file_system_without_links_keeps_the_old_index_too(
    built: Path, before: object, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "site")
    site = Site(tmp_path / "site")

    def no_links(name: str, path: str) -> None:
        if name == "link":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with durable.observe(no_links):
        done = rebuilt(site)
    assert whole(site.index) == before
    assert done.kept_aside is not None
    assert whole(done.kept_aside) == before


def failing_at(n: int, code: int, met: list[str]) -> Callable[[str, str], None]:
    """Return an observer that lets one effect fail, and notes which."""
    seen = [0]

    def observer(name: str, path: str) -> None:
        seen[0] += 1
        if seen[0] == n:
            met.append(f"{name} {path}")
            raise OSError(code, os.strerror(code))

    return observer
