"""What became of an import: what needs a look, and what stayed where it was.

All of it goes to standard error; the counts are the answer.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from ingester.cli import outcomes, screen
from ingester.cli.outcomes import Ids, Tally
from ingester.cli.site import Site
from ingester.index.readers import Reader
from ingester.index.words import explained

#: So many files are named one by one.
_MOST_NAMED = 20
_MOST_BATCHES = 5


@dataclass(slots=True)
class Left:
    """What was not brought: foreign files are counted, others named with the reason."""

    foreign: Tally = field(default_factory=Tally)
    skipped: int = 0
    named: list[str] = field(default_factory=list)

    def note_foreign(self, size_bytes: int) -> None:
        """Note a file without DICOM."""
        self.foreign.files += 1
        self.foreign.bytes += size_bytes

    def skip(self, path: Path, why: str) -> None:
        """Note a file that stays where it is, and why."""
        self.skipped += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append(screen.printable(f"{path}: {why}"))

    def say(self) -> None:
        """Say what stayed where it was."""
        for line in self.named:
            screen.say(f"left where it is: {line}")
        if self.skipped > len(self.named):
            screen.say(f"left where it is: {self.skipped - len(self.named):,} more")
        if self.foreign.files:
            files = screen.plural(self.foreign.files, "file")
            where = "where it is" if self.foreign.files == 1 else "where they are"
            screen.say(f"{files} without DICOM left {where}")


def report(site: Site, index: Reader, ids: Ids) -> None:
    """Name what needs a look, and say how to see every file."""
    troubles, count = outcomes.troubles(index, ids, limit=_MOST_NAMED)
    for row in troubles:
        screen.say(screen.printable(f"{row['original_name']}: {row['outcome']}. {explained(row)}"))
    if count > len(troubles):
        screen.say(f"{count - len(troubles):,} more need a look; see: {site.command} quarantine")
    for row in outcomes.incomplete_media(index, ids, limit=_MOST_BATCHES):
        screen.say(screen.printable(f"{row['original_name']}: {explained(row)}"))
    for source, batch in outcomes.batches(index, ids, limit=_MOST_BATCHES):
        told = f"{shlex.quote(batch)} --source {shlex.quote(source)}"
        screen.say(screen.printable(f"what became of each file: {site.command} receipt {told}"))
