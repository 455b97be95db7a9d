"""Archive against index, both ways; nothing is changed.

    rows -> files       is every object there, with its size (and its bytes)?
    files -> rows       is every file known?
    derivatives         the same, both ways
    spool               does every quarantined arrival have its folder, and the reverse?

Beside a running service the two are never at rest: what does not agree is asked for
once more at the end, and what is younger than a minute is left to the service.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ingester import durable
from ingester.archive import Archive
from ingester.check.findings import Finding, FindingKind, Findings, Progress
from ingester.check.tree import FileKind, Folder, KnownObject, folders, kind_of
from ingester.index.connection import Corrupt
from ingester.index.counts import miscounted
from ingester.index.readers import Reader
from ingester.site import BACKUP_NAME, is_backup
from ingester.spool import QUARANTINE

#: Younger files may be on their way to their row (seconds).
_ON_ITS_WAY = 60.0

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
    for name in os.listdir(archive_root):
        if name.startswith((index.name, "index.db", "index-snapshot.db", ".index")):
            names.add(name)
    return frozenset(names)


def verify(
    archive_root: Path,
    index: Path,
    *,
    spool: Path | None = None,
    checksum: bool = False,
    is_live: bool = False,
    progress: Progress | None = None,
) -> Findings:
    """Compare archive, index and quarantine; returns what does not agree.

    Parameters
    ----------
    spool : the spool, to compare its quarantine with the index too
    checksum : read every byte and compare its SHA-256
    is_live : a service is running beside us

    Raises
    ------
    Fatal
        There is no index.
    """
    try:
        with Reader.open(index) as reader:
            check = _Check(archive_root, reader, checksum, is_live, progress)
            return check.run(our_names(archive_root, index), spool)
    except Corrupt as error:
        damaged = Finding(FindingKind.INDEX_DAMAGED, index.name, f"{error} Run `rebuild`.")
        return Findings((damaged,), 0, 0, 0)


@dataclass(slots=True)
class _Check:
    root: Path
    reader: Reader
    checksum: bool
    is_live: bool
    progress: Progress | None
    found: list[Finding] = field(default_factory=list)
    objects: int = 0
    derivatives: int = 0
    bytes_read: int = 0

    def run(self, ours: frozenset[str], spool: Path | None) -> Findings:
        self._index()
        total = int(self.reader.rows("SELECT count(*) AS n FROM instances")[0]["n"])
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="checksum") as readers:
            for folder in folders(self.root, self.reader, ours):
                self._rows_to_files(folder, readers)
                self._files_to_rows(folder)
                if self.progress is not None:
                    self.progress(self.objects, total, "")
        self._staging()
        if spool is not None:
            aside = _quarantine(self.reader, spool / QUARANTINE)
            # Nothing leaves a backup, whatever was decided since.
            past = {FindingKind.DISCARDED_LEFT} if is_backup(self.root) else set()
            self.found += [each for each in aside if each.kind not in past]
        if self.is_live:
            self.found = [each for each in self.found if self._is_still_so(each, spool)]
        return Findings(tuple(self.found), self.objects, self.derivatives, self.bytes_read)

    def _index(self) -> None:
        """Ask SQLite whether its file and the references in it are whole."""
        pragma = "integrity_check" if self.checksum else "quick_check"
        connection = self.reader.connection
        connection.set_authorizer(None)  # our own two questions, not somebody's SQL
        try:
            told = connection.execute(f"PRAGMA {pragma}(10)").fetchall()
            broken = connection.execute("PRAGMA foreign_key_check").fetchmany(10)
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"The index {self.reader.path} is damaged ({error}).") from error
        finally:
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
            for path in known.derivatives:
                self.derivatives += 1
                if not self._is_file(folder, path):
                    self._add(FindingKind.MISSING_DERIVATIVE, path)
        if self.checksum:
            for known, digest in zip(whole, readers.map(self._digest, whole), strict=True):
                self.bytes_read += known.size_bytes
                if digest is None:
                    self._add(FindingKind.UNREADABLE, known.path)
                elif digest != known.sha256:
                    self._add(FindingKind.WRONG_CHECKSUM, known.path)

    def _is_file(self, folder: Folder, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        if parent == folder.path:
            return name in folder.files
        return (self.root / path).is_file()

    def _digest(self, known: KnownObject) -> str | None:
        try:
            return Archive(self.root).sha256_of(known.path)
        except OSError:
            return None

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
        if finding.kind is FindingKind.MISSING_OBJECT:
            return not path.is_file() and self._has_row("instances", finding.path)
        if finding.kind is FindingKind.MISSING_DERIVATIVE:
            return not path.is_file() and self._has_row("derivatives", finding.path)
        if finding.kind is FindingKind.OBJECT_WITHOUT_ROW:
            return _is_settled(path) and not self._has_row("instances", finding.path)
        if finding.kind is FindingKind.DERIVATIVE_WITHOUT_ROW:
            return _is_settled(path) and not self._has_row("derivatives", finding.path)
        if finding.kind is FindingKind.STRAY_FILE:
            return _is_settled(path)
        if finding.kind is FindingKind.DISCARDED_LEFT and spool is not None:
            return _is_settled(spool / finding.path)
        if finding.kind is FindingKind.QUARANTINED_WITHOUT_ROW:
            return not self.reader.rows(
                "SELECT 1 FROM arrivals WHERE arrival_id = ?", (Path(finding.path).name,)
            )
        return True

    def _has_row(self, table: str, path: str) -> bool:
        return bool(self.reader.rows(f"SELECT 1 FROM {table} WHERE path = ? LIMIT 1", (path,)))


def _is_settled(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_ctime > _ON_ITS_WAY
    except FileNotFoundError:
        return False


def _quarantine(reader: Reader, folder: Path) -> Iterator[Finding]:
    """Compare the folders in quarantine with the arrivals that should lie there."""
    waiting = {row["arrival_id"] for row in reader.quarantine(with_foreign=True)}
    lying = set(os.listdir(folder)) if folder.is_dir() else set()
    others = {
        row["arrival_id"]: row["outcome"]
        for row in reader.rows(
            "SELECT arrival_id, outcome FROM arrivals"
            " WHERE outcome IN ('quarantined', 'foreign', 'discarded')"
            " AND arrival_id IN (SELECT value FROM json_each(?))",
            (json.dumps([name for name in lying - waiting if name.isascii()]),),
        )
    }
    for arrival_id in sorted(waiting - lying):
        yield Finding.of(FindingKind.MISSING_QUARANTINED, f"{QUARANTINE}/{arrival_id}")
    for arrival_id in sorted(lying - waiting):
        if arrival_id not in others:
            yield Finding.of(FindingKind.QUARANTINED_WITHOUT_ROW, f"{QUARANTINE}/{arrival_id}")
        elif others[arrival_id] == "discarded":
            yield Finding.of(FindingKind.DISCARDED_LEFT, f"{QUARANTINE}/{arrival_id}")
