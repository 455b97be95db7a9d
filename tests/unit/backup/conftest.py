"""A site with something of everything, and its backup."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from ingester.archive import Archive
from ingester.backup import BackedUp, Options, Origin, backup
from ingester.check import verify
from ingester.model import SystemClock
from ingester.site import SITE_NAME
from ingester.spool import Spool
from tests.factory import drop, encoded, instance, uid
from tests.site import Site
from tests.unit.check.scenarios import derive
from tests.unit.test_unpack_dicomdir import dicomdir, record


def no_progress(_done: int, _total: int | None, _note: str) -> None:
    """Tell nobody."""


class Backup:
    """A site and the folder that it is backed up to."""

    def __init__(self, site: Site, dest: Path) -> None:
        self.site = site
        self.dest = dest
        self.texts = {"ingest.toml": b'[spool]\npath = ".spool"\n'}

    @property
    def origin(self) -> Origin:
        return Origin(self.site.archive.root, self.site.index, self.site.spool.root, self.texts)

    def run(
        self,
        *,
        is_stopped: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int | None, str], None] = no_progress,
        **options: Any,
    ) -> BackedUp:
        """Back up."""
        return backup(
            self.origin,
            self.dest,
            Options(**options),
            clock=SystemClock(),
            progress=progress,
            is_stopped=is_stopped,
        )

    def findings(self, *, checksum: bool = True) -> list[tuple[str, str]]:
        """Return what `verify` says of the backup where it lies."""
        found = verify(
            self.dest, self.dest / "index.db", spool=self.dest / ".spool", checksum=checksum
        )
        return sorted((each.kind.value, each.path) for each in found.found)

    def as_site(self) -> Site:
        """Return the backup as a site, to be asked for rows and objects."""
        found = copy(self.site)
        found.archive, found.index = Archive(self.dest), self.dest / "index.db"
        found.spool = Spool(self.dest / ".spool")
        return found

    def check(self) -> None:
        """Assert that the backup is whole and says what the site says."""
        assert self.findings() == []
        there = self.as_site()
        assert there.objects() == self.site.objects()
        for query in TABLES:
            assert there.rows(query) == self.site.rows(query)
        assert list((self.dest / ".staging").iterdir()) == []


#: Everything that the index of a backup must say as the site's own.
TABLES = tuple(
    f"SELECT * FROM {table} ORDER BY 1, 2"
    for table in (
        "patients", "studies", "series", "instances", "headers", "arrivals", "derivatives",
        "events", "contradictions", "resolutions",
    )
)  # fmt: skip


def fill(site: Site) -> None:
    """Two studies, a conflict, a duplicate, something foreign, something broken."""
    root = site.spool.root
    for number in range(1, 4):
        drop(root / "CT1" / "CD_1" / f"IM{number}", instance(instance=number))
    site.ingest_all()
    drop(root / "again.dcm", instance(instance=1))
    drop(root / "other.dcm", instance(instance=1, PatientName="Somebody^Else"))
    drop(root / "second.dcm", instance(patient=2, study=2))
    drop(root / "readme.txt", b"see you at noon, bring the films\n" * 20)
    drop(root / "cut.dcm", encoded(instance(patient=3))[:-40])
    site.ingest_all()
    dicomdir(site.spool.root / "DICOMDIR", record("IM1", uid(1, 1, 1, 1)))
    site.ingest_all()
    derive(site)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = Site(tmp_path_factory.mktemp("built"))
    site.spool.make_folders()
    fill(site)
    tie(site)
    return site.root


def tie(site: Site) -> None:
    """Give spool and archive their common id."""
    for folder in (site.spool.root, site.archive.root):
        (folder / SITE_NAME).write_text("0123456789abcdef\n")


@pytest.fixture
def backed(built: Path, tmp_path: Path) -> Backup:
    """Return a site that has never been backed up."""
    root = tmp_path / "site"
    shutil.copytree(built, root, symlinks=True)
    return Backup(Site(root), tmp_path / "backup")
