"""Free space: below a mark the intake waits, and somebody is told once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ingester.config import FreeSpace, Settings
from ingester.model import type_json
from ingester.site import Space

#: Room must come back to so much of the mark before things go on, or they would flutter.
_AGAIN = 1.25


class Disks:
    """Watches the spool's, the archive's and the index's disk."""

    def __init__(self, settings: Settings) -> None:
        self._marks: dict[str, tuple[Path, FreeSpace]] = {
            "spool": (settings.spool.path, settings.spool.min_free),
            "archive": (settings.archive.path, settings.archive.min_free),
        }
        folder = settings.index.path.parent
        if _device(folder) != _device(settings.archive.path):
            self._marks["index"] = (folder, settings.archive.min_free)
        self._low: set[str] = set()

    @property
    def sentence(self) -> str | None:
        """Return why the intake waits, None where it need not.

        A full spool does not hold the intake up: archiving makes room there.
        """
        low = sorted(self._low & {"archive", "index"})
        if not low:
            return None
        paths = " and ".join(str(self._marks[name][0]) for name in low)
        return f"files wait in the spool: less than [archive] min_free is left on {paths}"

    @property
    def low(self) -> list[str]:
        """Return the names of the disks that are low."""
        return sorted(self._low)

    def look(self) -> Iterator[tuple[str, dict[str, type_json]]]:
        """Ask the disks; yields those that have become low since the last look."""
        for name, (path, mark) in self._marks.items():
            try:
                space = Space.of(path)
            except OSError:
                continue  # not there: the ingest says so with better words
            least = mark.of(space.total_bytes)
            if name in self._low:
                if space.free_bytes >= least * _AGAIN:
                    self._low.discard(name)
            elif space.free_bytes < least:
                self._low.add(name)
                yield (
                    name,
                    {"path": str(path), "free_bytes": space.free_bytes, "min_free_bytes": least},
                )


def _device(path: Path) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
