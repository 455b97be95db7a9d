"""Archive against index, both ways; nothing is changed.

    index               is SQLite's file whole; has every object its header and its arrival?
    rows -> files       is every object there, with its size and time (and its bytes)?
    files -> rows       is every file known?
    derivatives         the same, both ways
    DICOMDIRs           those that were kept, both ways
    spool               does every quarantined arrival have its folder, and the reverse?

Beside a running service the two are never at rest: what does not agree is asked for
once more at the end, and what is younger than a minute is left to the service.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ingester import durable
from ingester.check import aside
from ingester.check.digest import never, sha256_on_disk
from ingester.check.findings import Finding, FindingKind, Findings, Progress
from ingester.check.tree import FileKind, Folder, KnownObject, folders, kind_of
from ingester.index.connection import Corrupt
from ingester.index.counts import miscounted
from ingester.index.readers import Reader, Row
from ingester.moments import mtime_ns_of
from ingester.site import BACKUP_NAME, is_backup
from ingester.spool import QUARANTINE

#: Younger files may be on their way to their row (seconds).
_ON_ITS_WAY = 60.0

#: Times are kept to two seconds by the coarsest file systems.
_COARSE_NS = 2_000_000_000
#: How often (virtual machine steps) a long statement asks whether to stop.
_STEPS = 100_000

#: What must be there beside an object's row, and what to say where it is not.
_BESIDE = {
    FindingKind.MISSING_HEADER: "SELECT path FROM instances AS i WHERE NOT EXISTS"
    " (SELECT 1 FROM headers AS h WHERE h.instance_id = i.instance_id)",
    FindingKind.MISSING_ARRIVAL: "SELECT path FROM instances AS i WHERE NOT EXISTS"
    " (SELECT 1 FROM arrivals AS a WHERE a.instance_id = i.instance_id)",
}

#: What a file without a row is called; a damaged copy set aside is nobody's business.
_TOO_MANY = {
    FileKind.OBJECT: FindingKind.OBJECT_WITHOUT_ROW,
    FileKind.DERIVATIVE: FindingKind.DERIVATIVE_WITHOUT_ROW,
    FileKind.STRAY: FindingKind.STRAY_FILE,
}


def our_names(archive_root: Path, index: Path) -> frozenset[str]:
    """Return the names at the archive's top that hold no objects."""
    names = {".staging", ".media", ".site", ".lock", ".control", ".backups"}
    names |= {"lost+found", ".gitkeep"}
    if is_backup(archive_root):
        names |= {BACKUP_NAME, ".spool", "ingest.toml", "site-ingest.toml"}
    names |= {durable.unfinished(Path(name)).name for name in names}
    with os.scandir(archive_root) as entries:
        for entry in entries:
            is_index = entry.name.startswith((index.name, "index.db", "index-snapshot.db"))
            # A folder is a source's: a sender may call itself as our files are called.
            if entry.name.startswith(".index") or (
                is_index and not entry.is_dir(follow_symlinks=False)
            ):
                names.add(entry.name)
    return frozenset(names)


@dataclass(frozen=True, slots=True)
class Part:
    """The objects whose bytes are read this time: the *number*-th of *count* parts.

    Which part an object is in is told by its SHA-256, so that so many nights read all.
    """

    number: int = 1
    count: int = 1

    def has(self, sha256: str) -> bool:
        """Return whether an object is in this part."""
        return int(sha256[:8], 16) % self.count == self.number - 1


def verify(
    archive_root: Path,
    index: Path,
    *,
    spool: Path | None = None,
    checksum: bool = False,
    part: Part | None = None,
    is_live: bool = False,
    progress: Progress | None = None,
    is_stopped: Callable[[], bool] = never,
) -> Findings:
    """Compare archive, index and quarantine; returns what does not agree.

    Parameters
    ----------
    spool : the spool, to compare its quarantine with the index too
    checksum : read every byte and compare its SHA-256; of *part* alone where that is given
    is_live : a service is running beside us

    Raises
    ------
    Fatal : there is no index
    KeyboardInterrupt : *is_stopped* said so
    """
    try:
        with Reader.open(index) as reader:
            check = _Check(
                archive_root,
                reader,
                checksum,
                part or Part(),
                is_live,
                progress or _tell_nobody,
                is_stopped,
                is_backup(archive_root),
            )
            return check.run(our_names(archive_root, index), spool)
    except Corrupt as error:
        damaged = Finding(FindingKind.INDEX_DAMAGED, index.name, f"{error} Run `rebuild`.")
        return Findings((damaged,), 0, 0, 0)


def _tell_nobody(_done: int, _total: int | None, _note: str) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class _Check:
    root: Path
    reader: Reader
    checksum: bool
    part: Part
    is_live: bool
    progress: Progress
    is_stopped: Callable[[], bool]
    is_backup: bool
    found: list[Finding] = field(default_factory=list)
    objects: int = 0
    derivatives: int = 0
    bytes_read: int = 0
    unlisted: list[str] = field(default_factory=list)  # folders that cannot be

    def run(self, ours: frozenset[str], spool: Path | None) -> Findings:
        self.progress(0, None, "looking at the index")
        self._index()
        total = int(self.reader.rows("SELECT count(*) AS n FROM instances")[0]["n"])
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="checksum") as readers:
            for folder in folders(self.root, self.reader, ours):
                self._stop_if_asked()
                self._folder(folder, readers)
                read = f"{self.bytes_read / 1e6:,.0f} MB read" if self.bytes_read else ""
                self.progress(self.objects, total, read)
        self._staging()
        self.found += aside.media(
            self.reader, self.root, checksum=self.checksum, is_stopped=self.is_stopped
        )
        if spool is not None:
            found = aside.quarantine(self.reader, spool / QUARANTINE)
            # Nothing leaves a backup, whatever was decided since.
            past = {FindingKind.DISCARDED_LEFT} if self.is_backup else set()
            self.found += [each for each in found if each.kind not in past]
        if self.is_live:
            self.found = [each for each in self.found if self._is_still_so(each, spool)]
        return Findings(tuple(self.found), self.objects, self.derivatives, self.bytes_read)

    def _stop_if_asked(self) -> None:
        if self.is_stopped():
            raise KeyboardInterrupt

    def _folder(self, folder: Folder, readers: ThreadPoolExecutor) -> None:
        if any(folder.path.startswith(f"{each}/") for each in self.unlisted):
            self.objects += len(folder.objects)
            return  # named with the folder above
        if folder.error is not None:
            self.unlisted.append(folder.path)
            self.objects += len(folder.objects)
            why = f"({folder.error.strerror}; what lies below it was not looked at)"
            self.found.append(Finding.of(FindingKind.UNREADABLE, folder.path, why))
            return
        self._rows_to_files(folder, readers)
        self._files_to_rows(folder)

    def _index(self) -> None:
        """Ask SQLite whether its file and the references in it are whole."""
        pragma = "integrity_check" if self.checksum else "quick_check"
        connection = self.reader.connection
        connection.set_authorizer(None)  # our own two questions, not somebody's SQL
        connection.set_progress_handler(self.is_stopped, _STEPS)
        try:
            told = connection.execute(f"PRAGMA {pragma}(10)").fetchall()
            broken = connection.execute("PRAGMA foreign_key_check").fetchmany(10)
        except sqlite3.DatabaseError as error:
            self._stop_if_asked()
            raise Corrupt(f"The index {self.reader.path} is damaged ({error}).") from error
        finally:
            connection.set_progress_handler(None, 0)
            self.reader.secure()
        words = [row[0] for row in told if row[0] != "ok"]
        words += [f"a row of {row[0]} refers to a missing row of {row[2]}" for row in broken]
        for each in words:
            message = f"The index is damaged: {each}. Run `ingester rebuild`."
            self.found.append(Finding(FindingKind.INDEX_DAMAGED, self.reader.path.name, message))
        with self.reader.consistent():
            is_wrong = not words and miscounted(connection)
        if is_wrong:
            self._add(FindingKind.INDEX_MISCOUNTED, self.reader.path.name)
        for kind, question in _BESIDE.items():
            for row in self.reader.rows(question):
                self._add(kind, row["path"])

    def _rows_to_files(self, folder: Folder, readers: ThreadPoolExecutor) -> None:
        whole: list[KnownObject] = []
        for name, known in folder.objects.items():
            self.objects += 1
            status = folder.files.get(name)
            if status is None or not stat.S_ISREG(status.st_mode):
                self._add(FindingKind.MISSING_OBJECT, known.path)
            elif status.st_size != known.size_bytes:
                self._add(FindingKind.WRONG_SIZE, known.path)
            else:
                whole.append(known)
                if not self.is_backup and not _is_on_time(status, known):
                    self._add(FindingKind.WRONG_TIME, known.path)
            for path in known.derivatives:
                self.derivatives += 1
                if not self._is_picture(folder, path):
                    self._add(FindingKind.MISSING_DERIVATIVE, path)
        if self.checksum:
            self._read([each for each in whole if self.part.has(each.sha256)], readers)

    def _read(self, objects: Sequence[KnownObject], readers: ThreadPoolExecutor) -> None:
        """Compare the bytes of objects with their digests."""
        digests = [
            readers.submit(sha256_on_disk, f"{self.root}/{each.path}", self.is_stopped)
            for each in objects
        ]
        try:
            for known, digest in zip(objects, digests, strict=True):
                try:
                    if digest.result() != known.sha256:
                        self._add(FindingKind.WRONG_CHECKSUM, known.path)
                except OSError as error:
                    why = f"({error.strerror})"
                    self.found.append(Finding.of(FindingKind.UNREADABLE, known.path, why))
                self.bytes_read += known.size_bytes
        finally:
            for digest in digests:
                digest.cancel()

    def _is_picture(self, folder: Folder, path: str) -> bool:
        """Return whether a derivative is a file that holds something."""
        parent, _, name = path.rpartition("/")
        if parent == folder.path:
            status = folder.files.get(name)
        else:
            try:
                status = os.lstat(self.root / path)
            except OSError:
                return False
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_size > 0

    def _files_to_rows(self, folder: Folder) -> None:
        made = {path for known in folder.objects.values() for path in known.derivatives}
        for name, status in sorted(folder.files.items()):
            path = f"{folder.path}/{name}" if folder.path else name
            if name in folder.objects or path in made:
                continue
            kind = _TOO_MANY.get(kind_of(folder.path, name, status))
            if kind is not None:
                self._add(kind, path)

    def _staging(self) -> None:
        staging = self.root / ".staging"
        if not self.is_live and staging.is_dir():
            for name in sorted(os.listdir(staging)):
                self._add(FindingKind.LEFTOVER, f".staging/{name}")

    def _add(self, kind: FindingKind, path: str) -> None:
        self.found.append(Finding.of(kind, path))

    def _is_still_so(self, finding: Finding, spool: Path | None) -> bool:
        """Ask once more: beside a running service the two are never at rest."""
        path = self.root / finding.path
        again: dict[FindingKind, Callable[[], bool]] = {
            FindingKind.MISSING_OBJECT: lambda: (
                not path.is_file() and self._has_row("instances", finding.path)
            ),
            FindingKind.MISSING_DERIVATIVE: lambda: (
                not path.is_file() and self._has_row("derivatives", finding.path)
            ),
            FindingKind.OBJECT_WITHOUT_ROW: lambda: (
                _is_settled(path) and not self._has_row("instances", finding.path)
            ),
            FindingKind.DERIVATIVE_WITHOUT_ROW: lambda: (
                _is_settled(path) and not self._has_row("derivatives", finding.path)
            ),
            FindingKind.DICOMDIR_WITHOUT_ROW: lambda: (
                _is_settled(path) and not self._arrival(path.parent.name)
            ),
            FindingKind.STRAY_FILE: partial(_is_settled, path),
        }
        if spool is not None:
            aside_path = spool / finding.path
            again |= {
                FindingKind.DISCARDED_LEFT: partial(_is_settled, aside_path),
                FindingKind.MISSING_QUARANTINED: lambda: self._is_lacking(aside_path),
                FindingKind.QUARANTINED_WITHOUT_ROW: lambda: not self._arrival(aside_path.name),
            }
        ask = again.get(finding.kind)
        return ask is None or ask()

    def _is_lacking(self, folder: Path) -> bool:
        """Return whether an arrival still is to be in quarantine, and is not."""
        return any(
            aside.lack(folder, row["size_bytes"]) is not None
            for row in self._arrival(folder.name)
            if row["outcome"] in ("quarantined", "foreign")
            and row["resolved_at"] is None
            and row["retried_as"] is None
        )

    def _arrival(self, arrival_id: str) -> list[Row]:
        return self.reader.rows("SELECT * FROM arrivals WHERE arrival_id = ?", (arrival_id,))

    def _has_row(self, table: str, path: str) -> bool:
        return bool(self.reader.rows(f"SELECT 1 FROM {table} WHERE path = ? LIMIT 1", (path,)))


def _is_on_time(status: os.stat_result, known: KnownObject) -> bool:
    return abs(status.st_mtime_ns - mtime_ns_of(known.archived_at)) < _COARSE_NS


def _is_settled(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_ctime > _ON_ITS_WAY
    except FileNotFoundError:
        return False
