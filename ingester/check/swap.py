"""A new index in the place of the old one, which is kept aside with all its files.

    link        the old files get second names, `index.db.<moment>…`; durable
    unlink      the old names, the database's first
    rename      the new file gets the name; durable

An index is its database and the log beside it: one without the other would be another
index.  So both are kept aside before either loses its name, and a crash at any line
leaves the old index whole, under one name or the other.
"""

from __future__ import annotations

import logging
import os
import re
from datetime import datetime
from pathlib import Path

from ingester import durable
from ingester.archive import CANNOT_LINK
from ingester.index.connection import is_missing

log = logging.getLogger(__name__)

#: What SQLite keeps beside a database.
SUFFIXES = ("", "-wal", "-shm", "-journal")
_SCRATCH = ".rebuild"
_STAMP = re.compile(r"\.[0-9]{8}T[0-9]{12}Z", re.ASCII)


def latest(index: Path) -> Path:
    """Return the index, or where it is gone the one that was kept aside last.

    A crash in the middle of the swap leaves it so: what only it knows must not be lost.
    """
    if not is_missing(index):
        return index
    return max(kept_aside(index), default=index)


def kept_aside(index: Path) -> list[Path]:
    """Return the indexes that were kept aside, the oldest first."""
    return sorted(
        path
        for path in index.parent.iterdir()
        if path.name.startswith(index.name) and _STAMP.fullmatch(path.name[len(index.name) :])
    )


def swap(new: Path, index: Path, now: datetime) -> Path | None:
    """Put the new index in place; returns where the old one is kept, if there was one.

    Raises
    ------
    OSError : the disk does not let us; the old index has its place
    """
    kept = index.with_name(f"{index.name}.{now.strftime('%Y%m%dT%H%M%S%fZ')}")
    old = [path for suffix in SUFFIXES if os.path.lexists(path := beside(index, suffix))]
    try:
        if old:
            _keep(index, kept, old)
        durable.rename(new, index)
    except OSError:
        _put_back(index, kept)
        raise
    durable.flush_folder(index.parent)
    return kept if kept.exists() else max(kept_aside(index), default=None)


def scratch(index: Path, what: str) -> Path:
    """Return where a rebuild keeps something for as long as it runs."""
    return beside(index, f"{_SCRATCH}{what}")


def tidy(index: Path) -> None:
    """Remove what a rebuild kept for itself; what cannot be removed now stays."""
    for path in sorted(index.parent.iterdir()):
        if path.name.startswith(f"{index.name}{_SCRATCH}"):
            try:
                durable.unlink(path)
            except OSError as error:
                log.warning("%s stays: %s", path, error.strerror)


def beside(index: Path, suffix: str) -> Path:
    """Return the path of a file that SQLite keeps beside a database."""
    return index.with_name(index.name + suffix)


def _keep(index: Path, kept: Path, old: list[Path]) -> None:
    """Give the old files other names; what an earlier swap began and a crash ended goes."""
    for each in kept_aside(index):
        if index in old and each.samefile(index):
            # It was used since under its own name: what lies beside this one is stale.
            for suffix in SUFFIXES:
                durable.unlink(beside(each, suffix))
    names = [
        (path, beside(kept, path.name[len(index.name) :]))
        for path in old
        if _is_worth_keeping(path, index, is_whole=index in old)
    ]
    try:
        for path, aside in names:
            durable.link(path, aside)
    except OSError as error:
        if error.errno not in CANNOT_LINK:
            raise
        for path, aside in names:  # a file system without links
            durable.unlink(aside)
            durable.rename(path, aside)
    durable.flush_folder(index.parent)
    for path in old:
        durable.unlink(path)


def _put_back(index: Path, kept: Path) -> None:
    """Give the old files their names again, the database's last, and take the others."""
    for suffix in reversed(SUFFIXES):
        aside, path = beside(kept, suffix), beside(index, suffix)
        if os.path.lexists(path):
            durable.unlink(aside)
        elif os.path.lexists(aside):
            durable.rename(aside, path)
    durable.flush_folder(index.parent)


def _is_worth_keeping(path: Path, index: Path, *, is_whole: bool) -> bool:
    """Tell whether a file holds anything; SQLite makes its shared memory by itself.

    A log that was left without its database may be kept with that already.
    """
    suffix = path.name[len(index.name) :]
    if suffix and (suffix == "-shm" or path.stat().st_size == 0):
        return False
    if is_whole:
        return True
    names = [beside(each, suffix) for each in kept_aside(index)]
    return not any(each.exists() and each.samefile(path) for each in names)
