"""Does anything of this batch still lie in the spool?  The folder is asked.

What the ingest has claimed it knows itself; here it is what nobody has looked at yet,
or what is still being written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from ingester.completion import Origin
from ingester.ignore import Ignore
from ingester.spool import RECEIVED, Spool

#: A folder with so many entries that are not files of ours is taken as waiting.
_MOST_ENTRIES = 20_000


def lies_in_spool(spool: Spool, origin: Origin) -> bool:
    """Return whether a file of *origin* (source, batch) lies in a drop folder."""
    source, batch = origin
    is_ignored = Ignore(spool.ignore)
    received = spool.root / RECEIVED / source
    if batch is None:
        return any(_has_file(top, is_ignored, is_deep=False) for top in _tops(spool, source))
    if _has_file(received / f"@{quote(batch, safe=' ')}", is_ignored, is_deep=True):
        return True
    if any(name.startswith(f"{batch}.") for name in _names(received)):
        return True
    return any(_has_file(top / batch, is_ignored, is_deep=True) for top in _tops(spool, source))


def _tops(spool: Spool, source: str) -> Iterator[Path]:
    if source in spool.sources:
        yield spool.root / source
    if source == spool.default_source:
        yield spool.root
    for share in spool.shares:
        if share.source == source:
            yield share.path


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _has_file(path: Path, is_ignored: Ignore, *, is_deep: bool) -> bool:
    """Return whether *path* is a file or holds one that is not to be left alone."""
    if path.is_file():
        return not is_ignored(path.name)
    seen = 0
    for _, folders, names in os.walk(path):
        folders[:] = [name for name in folders if is_deep and not is_ignored(name)]
        if any(not is_ignored(name) for name in names):
            return True
        seen += len(names) + len(folders)
        if seen > _MOST_ENTRIES:
            return True
    return False
