"""A resend puts lost objects back; interrupted anywhere, it ends as if it had not been.

The process is killed before its n-th effect, or the n-th effect fails once (n = 1, 2, …
until nothing is left to interrupt).  Afterwards every row tells of the very bytes that
lie there, and what was damaged is kept, once.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from ingester import durable
from ingester.ingest import IngestSettings
from tests.factory import drop, encoded, instance, uid
from tests.faults.everything import state as state_of
from tests.faults.killed import KILLED, dying_at, in_another_process
from tests.site import Site, digest

FEWEST_EFFECTS = 40
INTAKES = ["auto", "copy"]
IMPLICIT = ImplicitVRLittleEndian


def lost(site: Site, number: int) -> Path:
    """Return where an object of the first batch lies."""
    (path,) = site.rows(
        "SELECT path FROM instances WHERE sop_instance_uid = ?", uid(1, 1, 1, number)
    )
    return site.archive.root / str(path)


def thing(number: int) -> Dataset:
    """Return an image, or for 4 and 6 an object without anything long."""
    ds = instance(1, 1, 1, number)
    if number in (4, 6):
        del ds.PixelData
    return ds


def prepare(root: Path, intake: Any, *, with_conflict: bool) -> Site:
    """Archive six objects, lose or damage five, and drop what may take their places."""
    site = Site(root, settings=IngestSettings(is_impatient=True, intake=intake))
    spool = site.spool.root
    for number in range(1, 7):
        drop(spool / f"a{number}", encoded(thing(number), sender="CT_1"))
    site.ingest_all()
    for number in (1, 2, 4, 5):
        lost(site, number).unlink()
    os.truncate(lost(site, 3), 400)
    drop(spool / "b1-same", encoded(thing(1), sender="CT_1"))
    # As long as the one that is lost, so that no size tells them apart.
    drop(spool / "b2-writer", encoded(thing(2), sender="CT_2"))
    drop(spool / "b3-damaged", encoded(thing(3), sender="CT_2"))
    drop(spool / "b4-encoding", encoded(thing(4), IMPLICIT))
    if with_conflict:  # which depends on the order of the two
        drop(spool / "b5-pixels", encoded(thing(5), IMPLICIT))
    drop(spool / "b5-then-same", encoded(thing(5), sender="CT_1"))
    drop(spool / "b6-whole", encoded(thing(6), IMPLICIT))
    return site


def state(site: Site) -> dict[str, Any]:
    """Everything that must not depend on how often it was interrupted."""
    site.check()
    headers = (
        "SELECT path, size_bytes, transfer_syntax_uid, archived_at >= '2020', attributes"
        " FROM instances JOIN headers USING (instance_id) ORDER BY path"
    )
    times = {
        path: (site.archive.root / path).stat().st_mtime_ns // 1000
        for path in site.objects()
        if "~" not in path
    }
    first = "SELECT path, archived_at FROM instances WHERE version = 'current'"
    for path, at in site.rows(first):
        moment = datetime.fromisoformat(at)
        told = int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond
        assert times[path] == told
    return {
        **state_of(site),
        "headers": site.rows(headers),
        "damaged": sorted(digest(path) for path in site.archive.root.rglob(".damaged-*")),
    }


def expected_of(root: Path, intake: str, *, with_conflict: bool) -> dict[str, Any]:
    """Return what must come of the resend."""
    site = prepare(root, intake, with_conflict=with_conflict)
    site.ingest_all()
    conflict = {"conflict": 1} if with_conflict else {}
    assert site.outcomes() == {"archived": 6, "duplicate": 6, **conflict}
    repaired = "SELECT count(*) FROM arrivals WHERE json_extract(detail, '$.repaired') IS NOT NULL"
    assert site.rows(repaired) == [5]
    found = state(site)
    assert len(found["damaged"]) == 1
    return found


def copies(template: Site, root: Path) -> Iterator[Site]:
    while True:
        shutil.copytree(template.root, root)
        yield Site(root, settings=template.settings)
        shutil.rmtree(root)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("intake", INTAKES)
def test_a_kill_before_any_effect_changes_nothing_in_the_end(tmp_path: Path, intake: str) -> None:
    expected = expected_of(tmp_path / "whole", intake, with_conflict=True)
    ready = prepare(tmp_path / "template", intake, with_conflict=True)
    deaths = 0
    for n, site in enumerate(copies(ready, tmp_path / "site"), start=1):
        died = in_another_process(site.ingest_all, dying_at(n)) == KILLED
        site.ingest_all()
        assert state(site) == expected, f"killed before effect {n}"
        if not died:
            break
        deaths = n
    assert deaths > FEWEST_EFFECTS


class HandClock:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def failing_at(n: int) -> tuple[Callable[[str, str], None], list[str]]:
    met: list[str] = []
    left = [n]

    def observer(name: str, path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            met.append(f"{name} {Path(path).name}")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return observer, met


@pytest.mark.timeout(600)
@pytest.mark.parametrize("intake", INTAKES)
def test_a_disk_that_fails_once_anywhere_changes_nothing_in_the_end(
    tmp_path: Path, intake: str
) -> None:
    expected = expected_of(tmp_path / "whole", intake, with_conflict=False)
    ready = prepare(tmp_path / "template", intake, with_conflict=False)
    failures = 0
    for n, site in enumerate(copies(ready, tmp_path / "site"), start=1):
        clock = HandClock()
        site.clock = clock
        observer, met = failing_at(n)
        with site.ingesting() as ingest, durable.observe(observer):
            ingest.turn(look=True)
            for _ in range(60):
                if ingest.is_idle:
                    break
                clock.seconds += 61
                ingest.turn(look=False)
        site.ingest_all()  # a start tidies what is empty
        assert state(site) == expected, f"failed at {n}: {met}"
        if not met:
            break
        failures = n
    assert failures > FEWEST_EFFECTS
