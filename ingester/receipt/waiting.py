"""Does anything of a batch still lie in the spool?  The folders are asked.

A batch is a folder, an archive file or a DICOMDIR in a drop folder, what one
association sent, or what `import` and `retry` handed over by name.  Nothing is changed
and nothing is remembered, so a command may look beside a running service.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from ingester.archive import escape_source
from ingester.ignore import Ignore
from ingester.spool import QUARANTINE, RECEIVED, Spool, shown

_ASSOCIATION_FILE = re.compile(r"([0-9a-f]{24})\.[0-9]+\.dcm", re.ASCII)


@dataclass(frozen=True, slots=True)
class Lying:
    """A file of a batch that has no outcome yet.

    `is_temporary`: its name is one that copy tools use while they write; it is taken
    when it is renamed.  `arrival_id` is known of what is claimed already.
    """

    name: str
    is_temporary: bool = False
    arrival_id: str | None = None


@dataclass(slots=True)
class BatchInSpool:
    """Looks for the files of one batch; `troubles` says which folders could not be read."""

    spool: Spool
    source: str
    batch: str
    troubles: list[str] = field(default_factory=list)

    def lying(self) -> Iterator[Lying]:
        """Yield what lies in drop folders and in `.received`."""
        is_ignored = Ignore(self.spool.ignore)
        for top, name in self._places():
            yield from self._below(top, name, is_ignored)

    def claimed(self) -> Iterator[Lying]:
        """Yield what is claimed; an archive file stands for its members."""
        for claim in self.spool.claims_seen(self.troubles):
            batch = claim.batch or claim.original_name.rpartition("/")[2]
            if (claim.source, batch) == (self.source, self.batch):
                yield Lying(claim.original_name, arrival_id=claim.arrival_id)

    # -------------------------------------------------------------------- where it lies

    def _places(self) -> Iterator[tuple[Path, str]]:
        """Yield the folders and files that are this batch, each with its name for people."""
        received = self.spool.root / RECEIVED
        for folder in self.names(received):
            if escape_source(folder) == self.source:
                yield from self._received(received / folder)
        for top in self.tops():
            for name in self.names(top):
                if shown(name) == self.batch and not self._is_ours(top, name):
                    yield top / name, shown(name)

    def _received(self, folder: Path) -> Iterator[tuple[Path, str]]:
        for name in self.names(folder):
            path = folder / name
            if match := _ASSOCIATION_FILE.fullmatch(name):
                if match[1] == self.batch:
                    yield path, name
            elif name == "@":
                for arrival_id in self.names(path):
                    inside = path / arrival_id / self.batch
                    if "/" not in self.batch and inside.is_file():
                        yield inside, self.batch
            elif name.startswith("@") and unquote(name[1:]) == self.batch:
                for arrival_id in self.names(path):
                    yield path / arrival_id, ""

    def tops(self) -> Iterator[Path]:
        """Yield the drop folders of the source."""
        if self.source in self.spool.sources:
            yield self.spool.root / self.source
        if self.source == self.spool.default_source:
            yield self.spool.root
        for share in self.spool.shares:
            if share.source == self.source:
                yield share.path

    def _is_ours(self, top: Path, name: str) -> bool:
        return top == self.spool.root and (name == QUARANTINE or name in self.spool.sources)

    def names(self, folder: Path) -> list[str]:
        """Return what lies in a folder; one that is gone is empty, others are `troubles`."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            self._complain(error, folder)
            return []

    def _complain(self, error: OSError, folder: Path | None = None) -> None:
        where = shown(str(error.filename or folder or self.spool.root))
        self.troubles.append(f"{where}: {error.strerror}")

    # --------------------------------------------------------------------- what is there

    def _below(self, path: Path, name: str, is_ignored: Ignore) -> Iterator[Lying]:
        if not path.is_dir() or path.is_symlink():
            if os.path.lexists(path):
                yield from self._one(path.name, name, is_ignored)
            return
        for here, folders, names in os.walk(path, onerror=self._complain):
            folders[:] = sorted(each for each in folders if not is_ignored(each))
            inside = os.path.relpath(here, path)
            parts = [part for part in (name, "" if inside == "." else inside) if part]
            for each in sorted(names):
                yield from self._one(each, shown("/".join([*parts, each])), is_ignored)

    def _one(self, file_name: str, name: str, is_ignored: Ignore) -> Iterator[Lying]:
        if is_ignored.is_temporary(file_name):
            yield Lying(name, is_temporary=True)
        elif not is_ignored(file_name):
            yield Lying(name)


def sources_in_spool(spool: Spool, batch: str) -> list[str]:
    """Return the sources of which a batch of this name lies in the spool now."""
    received = spool.root / RECEIVED
    senders = os.listdir(received) if received.is_dir() else []
    sources = [
        *spool.sources,
        spool.default_source,
        *(share.source for share in spool.shares),
        *(escape_source(name) for name in senders),
    ]
    return [
        source
        for source in dict.fromkeys(sources)
        if next(_all_of(BatchInSpool(spool, source, batch)), None) is not None
    ]


def _all_of(place: BatchInSpool) -> Iterator[Lying]:
    yield from place.lying()
    yield from place.claimed()
