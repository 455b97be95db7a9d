"""What lies beside the tree: the quarantine and the DICOMDIRs, against their rows."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ingester import durable, kept
from ingester.archive import Archive
from ingester.check.digest import sha256_on_disk
from ingester.check.findings import Finding, FindingKind
from ingester.claims import is_arrival_id
from ingester.index.readers import Reader
from ingester.index.writer import Writer
from ingester.quarantine import Quarantined, file_in
from ingester.spool import QUARANTINE, shown

MEDIA = ".media"


def quarantine(reader: Reader, folder: Path) -> Iterator[Finding]:
    """Compare the folders in quarantine with the arrivals that should lie there."""
    waiting = {row["arrival_id"]: row for row in reader.quarantine(with_foreign=True)}
    lying = set(os.listdir(folder)) if folder.is_dir() else set()
    others = {
        row["arrival_id"]: row["outcome"]
        for row in reader.rows(
            "SELECT arrival_id, outcome FROM arrivals"
            " WHERE outcome IN ('quarantined', 'foreign', 'discarded')"
            " AND arrival_id IN (SELECT value FROM json_each(?))",
            (json.dumps([name for name in lying - waiting.keys() if name.isascii()]),),
        )
    }
    for arrival_id, row in sorted(waiting.items()):
        why = lack(folder / arrival_id, row["size_bytes"])
        if why is not None:
            path = f"{QUARANTINE}/{arrival_id}"
            yield Finding.of(FindingKind.MISSING_QUARANTINED, path, why)
    for arrival_id in sorted(lying - waiting.keys()):
        if arrival_id not in others:
            yield Finding.of(FindingKind.QUARANTINED_WITHOUT_ROW, f"{QUARANTINE}/{arrival_id}")
        elif others[arrival_id] == "discarded":
            yield Finding.of(FindingKind.DISCARDED_LEFT, f"{QUARANTINE}/{arrival_id}")


def lack(folder: Path, size_bytes: int) -> str | None:
    """Return what a quarantined file's folder lacks, in words; None where nothing.

    The file's bytes are not compared: a person may mend it where it lies.
    """
    if not folder.is_dir():
        return ""
    told = Quarantined.read(folder)
    if told is None:
        return "Its folder is there, but reason.json cannot be read."
    if file_in(folder) is None and size_bytes and told.kept_at is None:
        return "Its folder and its reason are there, the file is not."
    return None


def media(
    reader: Reader, root: Path, *, checksum: bool, is_stopped: Callable[[], bool]
) -> Iterator[Finding]:
    """Compare the DICOMDIRs that are kept with the arrivals that say so, both ways."""
    for row in reader.rows(
        "SELECT size_bytes, sha256, json_extract(detail, '$.kept_at') AS kept_at FROM arrivals"
        " WHERE outcome = 'unpacked' AND json_extract(detail, '$.kept_at') IS NOT NULL"
        " ORDER BY arrival_id"
    ):
        path = str(row["kept_at"])
        parts = path.split("/")
        if parts[0] != MEDIA or ".." in parts:
            yield Finding.of(FindingKind.MISSING_DICOMDIR, path)
            continue
        try:
            status = os.lstat(root / path)
        except OSError:
            yield Finding.of(FindingKind.MISSING_DICOMDIR, path)
            continue
        if not stat.S_ISREG(status.st_mode):
            yield Finding.of(FindingKind.MISSING_DICOMDIR, path)
        elif status.st_size != row["size_bytes"]:
            yield Finding.of(FindingKind.WRONG_SIZE, path)
        elif checksum:
            yield from _bytes_of(root, path, row["sha256"], is_stopped)
    yield from _without_row(reader, Archive(root))
    yield from _strays(root)


def _without_row(reader: Reader, archive: Archive) -> Iterator[Finding]:
    there = list(kept.kept(archive))
    rows = reader.rows(
        "SELECT arrival_id FROM arrivals WHERE arrival_id IN (SELECT value FROM json_each(?))",
        (json.dumps(there),),
    )
    known = {row["arrival_id"] for row in rows}
    for arrival_id in there:
        if arrival_id not in known:
            yield Finding.of(FindingKind.DICOMDIR_WITHOUT_ROW, kept.kept_at(arrival_id))


def take_in_media(root: Path, writer: Writer, arrival_ids: Iterable[str]) -> list[Finding]:
    """Give kept DICOMDIRs that the index does not know their row; returns those it cannot."""
    archive = Archive(root)
    wanted = list(arrival_ids)
    known = writer.finished(wanted)
    told = {each: kept.as_record(archive, each) for each in wanted if each not in known}
    writer.record([record for record in told.values() if record is not None], announce=False)
    return [
        Finding.of(FindingKind.DICOMDIR_WITHOUT_ROW, kept.kept_at(each))
        for each, record in told.items()
        if record is None
    ]


def _bytes_of(
    root: Path, path: str, sha256: str | None, is_stopped: Callable[[], bool]
) -> Iterator[Finding]:
    try:
        found = sha256_on_disk(root / path, is_stopped)
    except OSError as error:
        yield Finding.of(FindingKind.UNREADABLE, path, f"({error.strerror})")
        return
    if sha256 is not None and found != sha256:
        yield Finding.of(FindingKind.WRONG_CHECKSUM, path)


def _strays(root: Path) -> Iterator[Finding]:
    """Name what is no kept DICOMDIR."""
    ours = {kept.DIRECTORY, kept.ARRIVAL}
    ours |= {durable.unfinished(Path(name)).name for name in ours}
    folder = root / MEDIA
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        home = folder / name
        if not (is_arrival_id(name) and home.is_dir() and not home.is_symlink()):
            yield Finding.of(FindingKind.STRAY_FILE, f"{MEDIA}/{shown(name)}")
            continue
        for each in sorted(set(os.listdir(home)) - ours):
            yield Finding.of(FindingKind.STRAY_FILE, f"{MEDIA}/{name}/{shown(each)}")
