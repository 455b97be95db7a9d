"""What a backup lacks: the index's copy against the tree that is there already.

An object that is there with the size and the time that the index gives it is taken
for present: it was compared with its SHA-256 when it was written.  What looks
otherwise is doubtful and is read.  Of other files size and time decide.

The list may be as long as the archive has files, so it lies in a private database of
SQLite's, which goes to disk where it grows.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingester.backup.origin import INDEX, SPOOL, Origin, Wish, WishKind
from ingester.check.findings import Progress
from ingester.check.tree import KnownObject, folders
from ingester.check.verify import our_names
from ingester.claims import REASON
from ingester.index.readers import Reader
from ingester.moments import mtime_ns_of
from ingester.spool import QUARANTINE

#: FAT keeps times to two seconds.
COARSE_NS = 2_000_000_000


class Plan:
    """The wishes of one backup, in the order of their paths."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(
            "CREATE TABLE wishes (kind TEXT, path BLOB, size_bytes INTEGER, sha256 TEXT,"
            " mtime_ns INTEGER, is_doubtful INTEGER)"
        )
        self._connection.execute("BEGIN")
        self.present = 0  # objects that need not be looked at
        self.count = 0
        self.lacking_bytes = 0

    def add(self, wish: Wish) -> None:
        """Put a wish on the list."""
        self.count += 1
        if not wish.is_doubtful:
            self.lacking_bytes += wish.size_bytes
        self._connection.execute(
            "INSERT INTO wishes VALUES (?, ?, ?, ?, ?, ?)",
            (
                wish.kind.value,
                os.fsencode(wish.path),
                wish.size_bytes,
                wish.sha256,
                wish.mtime_ns,
                wish.is_doubtful,
            ),
        )

    def wishes(self) -> Iterator[Wish]:
        """Yield every wish in the order of the list."""
        for row in self._connection.execute("SELECT * FROM wishes ORDER BY rowid"):
            kind, path, size_bytes, sha256, mtime_ns, is_doubtful = row
            yield Wish(
                WishKind(kind), os.fsdecode(path), size_bytes, sha256, mtime_ns, bool(is_doubtful)
            )

    def close(self) -> None:
        """Forget the list."""
        self._connection.close()


def make(
    plan: Plan,
    origin: Origin,
    root: Path,
    reader: Reader,
    *,
    checksum: bool,
    changed: frozenset[str] = frozenset(),
    keeps_times: bool = True,
    is_stopped: Callable[[], bool],
    progress: Progress,
) -> int:
    """Put on the list what the backup at *root* lacks; returns how many objects there are.

    Parameters
    ----------
    reader : the index's copy
    checksum : look at every byte that is there
    changed : paths whose objects are known to have other bytes now
    keeps_times : whether the backup's disk keeps times as they are set
    """
    judge = _Judge(plan, origin, root, checksum, changed, keeps_times)
    total = count(reader)
    seen = 0
    for folder in folders(root, reader, our_names(root, root / INDEX)):
        if is_stopped():
            raise KeyboardInterrupt
        for name, known in folder.objects.items():
            seen += 1
            judge.object(folder.files.get(name), known)
        for known in folder.objects.values():
            for path in known.derivatives:
                judge.other(Wish(WishKind.DERIVATIVE, path, 0))
        progress(seen, total, "comparing")
    for wish in _media(origin):
        judge.other(wish)
    for wish in _quarantine(origin, reader):
        judge.other(wish)
    return total


def count(reader: Reader) -> int:
    """Return how many objects an index knows."""
    return int(reader.rows("SELECT count(*) AS n FROM instances")[0]["n"])


@dataclass(frozen=True, slots=True)
class _Judge:
    """Puts on the list what is lacking, and what must be looked at."""

    plan: Plan
    origin: Origin
    root: Path
    checksum: bool
    changed: frozenset[str]
    keeps_times: bool

    def object(self, status: os.stat_result | None, known: KnownObject) -> None:
        """Wish for an object, unless it is there (*status*) as the index describes it."""
        mtime_ns = mtime_ns_of(known.archived_at)
        is_there = status is not None and (
            stat.S_ISREG(status.st_mode) and status.st_size == known.size_bytes
        )
        is_on_time = not self.keeps_times or (
            status is not None and abs(status.st_mtime_ns - mtime_ns) < COARSE_NS
        )
        is_sure = is_on_time and not self.checksum and known.path not in self.changed
        if is_there and is_sure:
            self.plan.present += 1
            return
        self.plan.add(
            Wish(
                WishKind.OBJECT,
                known.path,
                known.size_bytes,
                known.sha256,
                mtime_ns,
                is_doubtful=is_there,
            )
        )

    def other(self, wish: Wish) -> None:
        """Wish for a file without a digest, unless the copy there looks the same."""
        try:
            status = os.lstat(self.origin.source_of(wish))
        except OSError:
            self.plan.add(wish)  # said when it is to be copied
            return
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return  # a pipe or a device that somebody dropped: there are no bytes to keep
        try:
            there = os.lstat(self.root / wish.path)
        except FileNotFoundError:
            there = None
        if there is None or not self._looks_the_same(status, there):
            self.plan.add(Wish(wish.kind, wish.path, status.st_size))

    def _looks_the_same(self, status: os.stat_result, there: os.stat_result) -> bool:
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(there.st_mode):
            return False
        if status.st_size != there.st_size:
            return False
        if stat.S_ISLNK(status.st_mode):
            return True
        if not self.keeps_times:
            return there.st_mtime_ns >= status.st_mtime_ns  # copied after it was made
        return abs(there.st_mtime_ns - status.st_mtime_ns) < COARSE_NS


def _media(origin: Origin) -> Iterator[Wish]:
    """Yield every DICOMDIR that the archive keeps."""
    media = origin.archive / ".media"
    for home in _names(media):
        for name in _names(media / home):
            if not name.startswith("."):
                yield Wish(WishKind.MEDIUM, f".media/{home}/{name}", 0)


def _quarantine(origin: Origin, reader: Reader) -> Iterator[Wish]:
    """Yield what lies in the folders of the arrivals that the index has in quarantine."""
    for row in reader.quarantine(with_foreign=True):
        home = f"{SPOOL}/{QUARANTINE}/{row['arrival_id']}"
        names = _names(origin.spool / QUARANTINE / row["arrival_id"])
        for name in names or [REASON]:
            if not name.startswith(f".{REASON}"):
                yield Wish(WishKind.QUARANTINED, f"{home}/{name}", 0)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
