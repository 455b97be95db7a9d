"""What a site must have become in the end, however often it was killed on the way.

template = Template.make(folder, fill, ingest)
template.copy(root); ...kill what ingests there...; template.violation(root)
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.everything import state
from tests.site import Site
from tests.stories.conftest import Command

_MOST_TOLD = 500


def _difference(found: Collection[Any], expected: Collection[Any]) -> str:
    """Say what is there and should not be, and the other way round."""
    extra = [each for each in found if each not in expected]
    missing = [each for each in expected if each not in found]
    return f"{extra} instead of {missing}"[:_MOST_TOLD]


def ingest_inline(root: Path) -> None:
    """Ingest all that lies in a site, in this process."""
    Site(root).ingest_all()


@dataclass(frozen=True)
class Template:
    """A filled site that nothing was done to, and what becomes of it without a kill."""

    root: Path
    expected: dict[str, Any]

    @classmethod
    def make(
        cls, folder: Path, fill: Callable[[Site], None], ingest: Callable[[Path], object]
    ) -> Template:
        """Fill a site below *folder*, and *ingest* a copy of it."""
        site = Site(folder / "template")
        site.spool.make_folders()
        fill(site)
        whole = folder / "whole"
        shutil.copytree(site.root, whole)
        ingest(whole)
        ingested = Site(whole)
        ingested.check()
        expected = state(ingested)
        shutil.rmtree(whole)
        return cls(site.root, expected)

    def copy(self, root: Path) -> None:
        """Make the site again below *root*, which must not exist."""
        shutil.copytree(self.root, root)

    def recovered(self, root: Path) -> str:
        """Start again in this process, drain; returns what is wrong then, or ""."""
        try:
            ingest_inline(root)
        except (AssertionError, OSError, sqlite3.Error) as error:
            return f"{type(error).__name__}: {error}"
        return self.violation(root)

    def violation(self, root: Path) -> str:
        """Return what differs from the end without a kill, or ""."""
        site = Site(root)
        try:
            site.check()
            found = state(site)
        except (AssertionError, OSError, sqlite3.Error) as error:
            return f"{type(error).__name__}: {error}"
        wrong = [
            f"{part}: {_difference(found[part], value)}"
            for part, value in self.expected.items()
            if found[part] != value
        ]
        if site.spool.root.joinpath(".receiving").is_dir():
            wrong += [f"left: {each.name}" for each in (site.spool.root / ".receiving").iterdir()]
        return "; ".join(wrong)


def unverified(command: Command) -> str:
    """Return what `verify --checksum` complains of, or ""."""
    try:
        command.verify()
    except AssertionError as error:
        return f"verify: {error}"
    return ""
