"""A new index in the place of the old one, which is kept aside with all its files.

    link        the old files get second names, `index.db.<moment>…`; durable
    unlink      the old names, the database's first
    rename      the new file gets the name; durable

An index is its database and the log beside it: one without the other would be another
index.  So both are kept aside before either loses its name, and a crash at any line
leaves the old index whole, under one name or the other.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from ingester import durable
from ingester.archive import CANNOT_LINK
from ingester.index.connection import is_missing

#: What SQLite keeps beside a database.
SUFFIXES = ("", "-wal", "-shm", "-journal")
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
    """Put the new index in place; returns where the old one is kept, if there was one."""
    kept = index.with_name(f"{index.name}.{now.strftime('%Y%m%dT%H%M%S%fZ')}")
    old = [path for suffix in SUFFIXES if os.path.lexists(path := beside(index, suffix))]
    if old:
        _keep(index, kept, old)
    durable.rename(new, index)
    durable.flush_folder(index.parent)
    return kept if kept.exists() else max(kept_aside(index), default=None) if old else None


def remove(path: Path) -> None:
    """Remove a database of ours that nobody needs, and what SQLite keeps beside it."""
    for suffix in SUFFIXES:
        durable.unlink(beside(path, suffix))


def beside(index: Path, suffix: str) -> Path:
    """Return the path of a file that SQLite keeps beside a database."""
    return index.with_name(index.name + suffix)


def _keep(index: Path, kept: Path, old: list[Path]) -> None:
    """Give the old files other names; what an earlier swap began and a crash ended goes."""
    for each in kept_aside(index):
        if index in old and each.samefile(index):
            remove(each)  # the index was used since: what lies beside this name is not its
    names = [
        (path, beside(kept, path.name[len(index.name) :]))
        for path in old
        if index in old or not _has_other_name(path, index)
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


def _has_other_name(path: Path, index: Path) -> bool:
    """Tell whether a file that was left without its database is kept with it already."""
    suffix = path.name[len(index.name) :]
    names = [beside(each, suffix) for each in kept_aside(index)]
    return any(each.exists() and each.samefile(path) for each in names)
