"""What lies about: unfinished copies, claims nobody works on, backups that are old."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingester.backup.destination import LEDGER
from ingester.doctor.findings import Check
from ingester.ignore import is_temporary
from ingester.spool import RECEIVING, shown

#: An unfinished copy of this age is nobody's any more.
_OLD = timedelta(hours=24)
_BACKUP_AGE = timedelta(days=7)
_MOST_NAMED = 3
_MOST_LOOKED_AT = 100_000


def unfinished(spool: Path, now: datetime) -> Check:
    """Name copies with a temporary name that have lain in the drop folders for a day."""
    old: list[str] = []
    looked = 0
    for here, folders, names in os.walk(spool):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(here) == spool:
            folders[:] = [name for name in folders if name != "quarantine"]
        for name in names:
            looked += 1
            path = Path(here) / name
            if is_temporary(name) and _age(path, now) > _OLD:
                old.append(shown(str(path.relative_to(spool))))
        if looked > _MOST_LOOKED_AT:
            break
    if not old:
        return Check.ok("leftovers", "no forgotten copies in the drop folders")
    named = ", ".join(sorted(old)[:_MOST_NAMED]) + (", …" if len(old) > _MOST_NAMED else "")
    return Check.note(
        "leftovers",
        f"{len(old):,} with a temporary name, older than a day, are left alone: {named}",
        "copy them again, or rename them: then they are taken",
    )


def of_a_stopped_service(spool: Path, archive: Path, *, claimed: int) -> Check:
    """Say what an earlier run left, where no service runs: the next start takes it up."""
    found = []
    if claimed:
        found.append(f"{claimed:,} claimed files")
    for name, folder in (
        ("half-received", spool / RECEIVING),
        ("half-copied", archive / ".staging"),
    ):
        count = len(os.listdir(folder)) if folder.is_dir() else 0
        if count:
            found.append(f"{count:,} {name} files")
    if found:
        message = f"an earlier run left {' and '.join(found)}; the next start takes care of them"
        return Check.note("leftovers", message, "ingester run")
    return Check.ok("leftovers", "an earlier run left nothing half-done")


def backups(archive: Path, now: datetime, *, has_objects: bool) -> Check:
    """Say when the archive was last backed up, and to where."""
    folder = archive / LEDGER
    made: list[tuple[datetime, str]] = []
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        try:
            entry = json.loads((folder / name).read_bytes())
            made.append((datetime.fromisoformat(entry["objects_at"]), str(entry["path"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # never finished, or not ours
    fix = "ingester backup /mnt/backup (every night, on another disk)"
    if not made:
        if not has_objects:
            return Check.ok("backup", "there is nothing to back up yet")
        return Check.note("backup", "the archive was never backed up by ingester", fix)
    at, path = max(made)
    last = f"last backed up to {path} at {at:%Y-%m-%d %H:%M} UTC"
    if now - at > _BACKUP_AGE:
        return Check.note("backup", f"{last}, {(now - at).days} days ago", fix)
    return Check.ok("backup", last)


def _age(path: Path, now: datetime) -> timedelta:
    try:
        return now - datetime.fromtimestamp(path.lstat().st_ctime, UTC)
    except OSError:
        return timedelta()
