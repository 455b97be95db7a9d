"""Kept DICOMDIRs: mended, and rows again after the index is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ingester.check import rebuild, repair, verify
from ingester.index.writer import Writer
from ingester.model import SystemClock
from tests.media import burn, images
from tests.site import Site

ROW = (
    "SELECT arrival_id, source, batch, original_name, arrived_at, finished_at, size_bytes,"
    " sha256, outcome FROM arrivals WHERE outcome = 'unpacked'"
)


@pytest.fixture
def with_cd(site: Site, tmp_path: Path) -> Site:
    """A site with a CD of which one image is missing."""
    cd = burn(tmp_path / "CD_7")
    images(cd)[0].unlink()
    shutil.copytree(cd, site.spool.root / "CT1/CD_7")
    site.ingest_all()
    return site


def found(site: Site, *, checksum: bool = False) -> list[tuple[str, str]]:
    findings = verify(site.archive.root, site.index, spool=site.spool.root, checksum=checksum)
    return [(each.kind.value, each.path) for each in findings.found]


def lose_row(site: Site) -> None:
    writer = Writer.open(site.index)
    writer.run_in_transaction(
        lambda c: c.execute("DELETE FROM arrivals WHERE outcome = 'unpacked'")
    )
    writer.close()


def lose_index(site: Site) -> None:
    for path in site.archive.root.glob("index.db*"):
        path.unlink()


def kept(site: Site) -> Path:
    (path,) = site.archive.media.glob("*/DICOMDIR")
    return path


def test_a_directory_without_a_row_gets_it_again(with_cd: Site) -> None:
    before = with_cd.rows(ROW)
    lose_row(with_cd)
    live = verify(with_cd.archive.root, with_cd.index, is_live=True).found
    assert "dicomdir-without-row" not in {each.kind.value for each in live}  # it is on its way
    findings = verify(with_cd.archive.root, with_cd.index).found
    assert [each.kind.value for each in findings if "count" not in each.kind] == [
        "dicomdir-without-row"
    ]
    writer = Writer.open(with_cd.index)
    repair(findings, with_cd.archive.root, writer, spool=with_cd.spool.root)
    writer.close()
    assert with_cd.rows(ROW) == before
    assert found(with_cd) == []


def test_a_rebuild_without_the_old_index_knows_the_directory_as_it_came(with_cd: Site) -> None:
    before = with_cd.rows(ROW)
    assert [row[1:4] for row in before] == [("CT1", "CD_7", "CD_7/DICOMDIR")]
    lose_index(with_cd)
    told = rebuild(
        with_cd.archive.root, with_cd.index, clock=SystemClock(), spool=with_cd.spool.root
    )
    assert told.findings == ()
    assert with_cd.rows(ROW) == before
    assert found(with_cd, checksum=True) == []


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_where_nothing_tells_whence_it_came_it_is_named_and_stays(
    with_cd: Site, damage: str
) -> None:
    beside = kept(with_cd).with_name("arrival.json")
    if damage == "gone":
        os.unlink(beside)
    else:
        beside.write_text('{"source": 7')
    lose_index(with_cd)
    told = rebuild(with_cd.archive.root, with_cd.index, clock=SystemClock())
    assert [each.kind.value for each in told.findings] == ["dicomdir-without-row"]
    assert kept(with_cd).is_file()


def test_one_that_was_refused_after_it_was_kept_has_a_row_already(with_cd: Site) -> None:
    writer = Writer.open(with_cd.index)
    writer.run_in_transaction(
        lambda c: c.execute("UPDATE arrivals SET detail = NULL WHERE outcome = 'unpacked'")
    )
    writer.close()
    assert found(with_cd) == []
