"""One hostile input, one site: how it is tried, and what must hold for every one of them.

A `Case` is a row of the table: its number in the list of inputs, a name, and the story.
A `Trial` is where it happens: a site, a harmless neighbour that has to come through
(the service lives), and files outside the roots that nothing may touch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingester.check import verify
from ingester.claims import REASON
from ingester.ingest import Ingest, IngestSettings
from tests.clocks import HandClock
from tests.factory import drop, instance
from tests.site import Site

NEIGHBOUR = 4711
INPUT = "input"


@dataclass(frozen=True)
class Case:
    """One row: `run` makes the input below a folder of its own and asserts the outcome."""

    number: int
    name: str
    run: Callable[[Path], None]

    @property
    def title(self) -> str:
        return f"{self.number:02d}-{self.name}"


@dataclass(frozen=True)
class Expected:
    """What has to become of a file: outcome, reason, and oddities noted in its row."""

    outcome: str
    reason: str | None = None
    notes: frozenset[str] = frozenset()


ARCHIVED = Expected("archived")


def noted(*notes: str) -> Expected:
    return Expected("archived", None, frozenset(notes))


def aside(reason: str) -> Expected:
    return Expected("quarantined", reason)


def foreign(reason: str) -> Expected:
    return Expected("foreign", reason)


@dataclass
class Trial:
    """A site below *folder*; `patient` ones wait for what is not whole, as the service does."""

    folder: Path
    clock: HandClock | None = None
    site: Site = field(init=False)
    _outside: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        drop(self.folder / "outside/precious.dcm", instance(88))
        drop(self.folder / "outside/secret", b"kept secret")
        settings = IngestSettings(is_impatient=self.clock is None)
        self.site = Site(self.folder / "site", settings=settings, clock=self.clock)
        self.site.spool.make_folders()
        self._outside = self._around()

    @property
    def outside(self) -> Path:
        """Return a folder of files that are none of the site's."""
        return self.folder / "outside"

    def drop(self, content: bytes, name: str = INPUT) -> Path:
        return drop(self.site.spool.root / name, content)

    def ingest(self, **settings: Any) -> None:
        """Ingest everything, and a harmless neighbour after it."""
        drop(self.site.spool.root / "neighbour", instance(NEIGHBOUR))
        self.site.ingest_all(**settings)
        assert self.rows_of("neighbour") == [("archived", None)]
        assert self.site.left_in_spool() == []

    def rows_of(self, name: str) -> list[Any]:
        return self.site.rows(
            "SELECT outcome, reason FROM arrivals WHERE original_name = ? ORDER BY arrival_id", name
        )

    def notes(self, name: str = INPUT) -> set[str]:
        found = self.site.rows(
            "SELECT note.value FROM arrivals, json_each(detail, '$.notes') AS note"
            " WHERE original_name = ?",
            name,
        )
        return set(found)

    def kept(self) -> set[str]:
        """Return the digests of all bytes that the site keeps."""
        files = [*self.site.archive.root.rglob("*"), *self.aside()]
        plain = [each for each in files if each.is_file() and not each.is_symlink()]
        return {hashlib.sha256(each.read_bytes()).hexdigest() for each in plain}

    def aside(self) -> list[Path]:
        """Return what lies in quarantine, links as they are."""
        found = (self.site.spool.root / "quarantine").glob("*/*")
        return sorted(each for each in found if each.name != REASON)

    def check(self) -> None:
        """Assert what holds for every input, whatever became of it."""
        self.site.check()
        findings = verify(
            self.site.archive.root, self.site.index, spool=self.site.spool.root, checksum=True
        )
        assert findings.is_clean, findings
        assert self._around() == self._outside

    def _around(self) -> dict[str, object]:
        # Everything below the folder that is not below one of the roots.
        found: dict[str, object] = {}
        for here, folders, names in os.walk(self.folder):
            if Path(here) == self.site.root:
                folders[:] = [each for each in folders if each not in ("spool", "archive")]
            for name in names:
                path = Path(here, name)
                status = path.lstat()
                found[str(path)] = (status.st_mode, path.read_bytes())
            found |= {str(Path(here, each)): None for each in folders}
        return found


def dropped(
    number: int,
    name: str,
    content: Callable[[], bytes],
    expected: Expected,
    **settings: Any,
) -> Case:
    """Return the row of a file that comes by the drop folder; its bytes stay as they are."""

    def run(folder: Path) -> None:
        trial = Trial(folder)
        data = content()
        trial.drop(data)
        trial.ingest(**settings)
        assert trial.rows_of(INPUT) == [(expected.outcome, expected.reason)]
        assert expected.notes <= trial.notes(), trial.notes()
        assert hashlib.sha256(data).hexdigest() in trial.kept()
        trial.check()

    return Case(number, name, run)


def settle(ingest: Ingest) -> None:
    """Take turns until there is nothing to do at this moment."""
    while ingest.turn(look=False).is_busy:
        pass
