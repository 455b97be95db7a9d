"""The index from the archive alone, into a new file that then takes the old one's place.

    order      every object's (file time, path), so that "the first" is the same again
    read       the same `prepare` as for a file that arrives
    record     the same `Writer.record`
    carry over what no file can tell, from the old index, where it can still be read,
               and what people added to it
    swap       old files aside together, the new one in; nothing is deleted

A crash before the swap leaves the old index untouched; the next attempt starts anew.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ingester import durable
from ingester.check.additions import carry_additions
from ingester.check.findings import Finding, Progress
from ingester.check.former import FormerIndex
from ingester.check.objects import Defaults, Found, ObjectReader, no_defaults
from ingester.check.repair import take_in
from ingester.check.tree import object_files
from ingester.check.verify import our_names
from ingester.check.versions import tell_variants
from ingester.index.connection import is_missing
from ingester.index.writer import Writer
from ingester.model import Clock
from ingester.prepare import Limits
from ingester.quarantine import Quarantined
from ingester.spool import QUARANTINE

log = logging.getLogger(__name__)

_BATCH = 64
_STAMP = re.compile(r"\.[0-9]{8}T[0-9]{12}Z", re.ASCII)
_SUFFIXES = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild made: rows, what could not be taken in, what was carried over.

    `lost` says what people had added to the old index and could not be made again.
    """

    objects: int
    findings: tuple[Finding, ...]
    carried: Mapping[str, int]
    kept_aside: Path | None
    lost: tuple[str, ...] = ()


def rebuild(
    archive_root: Path,
    index: Path,
    *,
    clock: Clock,
    spool: Path | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    defaults: Defaults = no_defaults,
    limits: Limits | None = None,
    columns: Sequence[str] = (),
    mode: int = 0o640,
) -> Rebuilt:
    """Make the index again from the archive's tree, and put it in the old one's place.

    Nobody else may have the index open for writing.

    Parameters
    ----------
    spool : where set, quarantined files that no index knows get their row too
    executor : reads objects in other processes; None reads them here
    defaults : what the files of a source leave out, as for the ingest
    columns : keywords with a column of their own; those that the old index had stay

    Raises
    ------
    Retry
        The disk does not let us; the old index is untouched.
    """
    new = index.with_name(f"{index.name}.rebuild")
    order = index.with_name(f"{index.name}.rebuild-order")
    _remove(new)
    _remove(order)
    latest = _latest(index)
    former = FormerIndex.open(latest)
    try:
        with closing(_Order(order, archive_root, our_names(archive_root, index))) as files:
            writer = Writer.open(new, columns=[*columns, *former.promoted()], mode=mode)
            try:
                reader = ObjectReader(archive_root, defaults, limits or Limits(), executor)
                done, findings = _fill(writer, reader, former, files, progress)
                former.carry_over(writer)
                if spool is not None:
                    _take_in_quarantine(writer, spool / QUARANTINE)
                writer.checkpoint(idle=True)
            finally:
                writer.close()
    finally:
        former.close()
        _remove(order)
    added = carry_additions(latest, new)
    if added.count:
        former.carried["additions"] += added.count
    kept = _swap(new, index, clock)
    return Rebuilt(done, tuple(findings), dict(former.carried), kept, tuple(added.lost))


def _fill(
    writer: Writer,
    reader: ObjectReader,
    former: FormerIndex,
    files: _Order,
    progress: Progress | None,
) -> tuple[int, list[Finding]]:
    findings: list[Finding] = []
    unsure: list[str] = []
    read = reader.read(files.paths())
    done = 0
    while batch := list(islice(read, _BATCH)):
        remembered = [_remembered(found, former) for found in batch]
        findings += take_in(writer, remembered, announce=False)
        unsure += [
            each.path for each in remembered if each.record and _is_unsure(each.record.detail)
        ]
        done += len(batch)
        if progress is not None:
            progress(done, files.total, "")
    tell_variants(writer, reader, [path for path in unsure if "~" in path])
    return done, findings


def _remembered(found: Found, former: FormerIndex) -> Found:
    if found.record is None:
        return found
    return replace(found, record=former.remembered(found.record))


def _is_unsure(detail: Mapping[str, object]) -> bool:
    return bool(detail.get("from_archive"))


class _Order:
    """The objects of the tree by (file time, path), sorted on disk beside the index."""

    def __init__(self, path: Path, root: Path, ours: frozenset[str]) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE files (mtime_ns INTEGER, path BLOB)")
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT INTO files VALUES (?, ?)",
            ((status.st_mtime_ns, os.fsencode(path)) for path, status in object_files(root, ours)),
        )
        self._connection.execute("COMMIT")
        self.total: int = self._connection.execute("SELECT count(*) FROM files").fetchone()[0]

    def paths(self) -> Iterator[str]:
        """Yield every path, the oldest file first."""
        for row in self._connection.execute("SELECT path FROM files ORDER BY mtime_ns, path"):
            yield os.fsdecode(row[0])

    def close(self) -> None:
        """Close the list; the caller removes its file."""
        self._connection.close()


def _latest(index: Path) -> Path:
    """Return the index, or where it is gone the one that was kept aside last.

    A crash in the middle of the swap leaves it so: what only it knows must not be lost.
    """
    if not is_missing(index):
        return index
    aside = [path for path in index.parent.iterdir() if _is_kept_aside(path, index)]
    return max(aside, default=index)


def _is_kept_aside(path: Path, index: Path) -> bool:
    return path.name.startswith(index.name) and bool(_STAMP.fullmatch(path.name[len(index.name) :]))


def _take_in_quarantine(writer: Writer, folder: Path) -> None:
    """Give quarantined files that no index knows their row again."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    known = writer.finished(names)
    told = [Quarantined.read(folder / name) for name in names if name not in known]
    writer.record([each.as_record() for each in told if each is not None], announce=False)


def _swap(new: Path, index: Path, clock: Clock) -> Path | None:
    """Put the new index in place; the old one is kept beside it under its moment."""
    kept: Path | None = None
    if any(index.with_name(index.name + suffix).exists() for suffix in _SUFFIXES):
        stamp = clock.now().strftime("%Y%m%dT%H%M%S%fZ")
        kept = index.with_name(f"{index.name}.{stamp}")
        for suffix in _SUFFIXES:
            old = index.with_name(index.name + suffix)
            if old.exists():
                durable.rename(old, kept.with_name(kept.name + suffix))
    durable.rename(new, index)
    durable.flush_folder(index.parent)
    return kept


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        durable.unlink(path.with_name(path.name + suffix))
