"""What a rebuild brings back: all of it beside the old index, and what files can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingester.check import Rebuilt, rebuild, verify
from ingester.ingest import IngestSettings
from ingester.model import SystemClock
from tests.indexes import told_by_files, whole
from tests.inline import InlineExecutor
from tests.site import Site
from tests.unit.check.scenarios import (
    PROMOTED,
    SCENARIOS,
    SOURCES,
    defaults,
    derive,
    lose_index,
)

MADE_CURRENT = (
    "another_made_current_and_back",
    "a_study_corrected_and_made_current",
    "one_id_two_patients_until_corrected",
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", settings=IngestSettings(is_impatient=True, sources=SOURCES))


def rebuilt(site: Site, **options: Any) -> Rebuilt:
    return rebuild(
        site.archive.root,
        site.index,
        clock=SystemClock(),
        spool=site.spool.root,
        executor=InlineExecutor,
        defaults=defaults,
        **options,
    )


def clean(site: Site) -> None:
    found = verify(site.archive.root, site.index, spool=site.spool.root, checksum=True)
    assert found.found == ()
    site.check()


@pytest.mark.parametrize("name", SCENARIOS)
def test_beside_the_old_index_every_row_and_key_is_the_same(site: Site, name: str) -> None:
    SCENARIOS[name](site)
    before = whole(site.index)
    done = rebuilt(site)
    assert whole(site.index) == before
    assert done.findings == ()
    assert done.damaged == ()
    assert done.differences is not None
    assert {table for table, each in done.differences.items() if not each.is_equal} == set()
    clean(site)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_it_everything_is_the_same_that_a_file_can_tell(site: Site, name: str) -> None:
    SCENARIOS[name](site)
    before = told_by_files(site.index)
    lose_index(site)
    done = rebuilt(site, columns=PROMOTED if name == "promoted_columns" else ())
    after = told_by_files(site.index)
    if name in MADE_CURRENT:
        after, before = undecided(after), undecided(before)
    if name == "a_lost_object_put_back_by_another_writer":
        # What arrived first is gone; the file that is there tells of itself.
        del after["arrivals"], before["arrivals"]
    assert after == before
    assert done.findings == ()
    assert done.former is None
    assert done.differences is None
    derive(site)
    clean(site)
    again = whole(site.index)
    rebuilt(site)
    assert whole(site.index) == again


def undecided(told: dict[str, Any]) -> dict[str, Any]:
    """Take away which version is current, where a person had decided it, and what follows."""
    columns, *rows = told["instances"]
    version = columns.index("version")
    kept = {name: told[name] for name in ("headers", "arrivals", "quarantine")}
    return kept | {"instances": [row[:version] + row[version + 1 :] for row in rows]}
