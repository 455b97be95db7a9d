"""The folder that a backup lives in: whose it is, and that it is ours alone for now.

A backup is a tree like the archive's, with an ordinary `index.db` at its top, so that
it can be read, verified and rebuilt where it lies.  `.backup` says of which site, and
keeps it from being taken for the archive itself.  The archive remembers where its
backups are (`.backups/`), so that a disk that is not mounted is noticed, not filled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingester import __version__, durable, site
from ingester.archive import remove_tree
from ingester.backup.origin import Origin
from ingester.errors import Fatal
from ingester.model import type_json

STAGING = ".staging"
#: Where an archive remembers its backups.
LEDGER = ".backups"

_FORMAT = 1
_FILE_MODE = 0o640
_UMASK = 0o007
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
#: What a disk may hold and still count as empty.
_LITTER = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN", ".snapshot"})

Marker = dict[str, type_json]


@dataclass(slots=True)
class Destination:
    """A backup's folder, locked and known to be this site's.

    `notes` are sentences about it that a person should read once.
    """

    root: Path
    marker: Marker
    folder_mode: int
    notes: list[str] = field(default_factory=list)

    @property
    def staging(self) -> Path:
        """Return where files are made before they get their names."""
        return self.root / STAGING

    def put_text(self, name: str, data: bytes) -> None:
        """Write a small file at the top, unless it is there already."""
        try:
            if (self.root / name).read_bytes() == data:
                return
        except FileNotFoundError:
            pass
        durable.replace_file(self.root / name, data, _FILE_MODE)

    def write_marker(self, **changes: type_json) -> None:
        """Note what this backup holds now."""
        self.marker |= {"format": _FORMAT, "ingester": __version__, **changes}
        data = json.dumps(self.marker, indent=2).encode() + b"\n"
        durable.replace_file(self.root / site.BACKUP_NAME, data, _FILE_MODE)


@contextmanager
def opened(path: Path, origin: Origin, *, is_new: bool) -> Iterator[Destination]:
    """Open a backup's folder, made where it is new; ours alone while the block runs.

    Parameters
    ----------
    is_new : a person says that this is a new disk, although a backup was here before

    Raises
    ------
    Fatal : it cannot be used; the sentence says why
    """
    root = Path(os.path.realpath(path))
    _refuse_nested(root, origin)
    site_id = site.id_of(origin.archive)
    if site_id is None:
        raise Fatal(f"{origin.archive} has no {site.SITE_NAME} yet: `ingester run` makes it")
    umask = os.umask(_UMASK)
    try:
        marker = _marker(root, site_id, is_expected=not is_new and _is_known(origin, root))
        _make(root, origin.folder_mode)
        with _held(root) as notes:
            destination = Destination(root, marker, origin.folder_mode & 0o777, notes)
            if not marker:
                destination.write_marker(site=site_id, archive=str(origin.archive))
            remember(origin, root, destination.marker, notes)
            durable.make_folder(destination.staging, destination.folder_mode)
            _wipe(destination.staging)
            _note_same_disk(root, origin, notes)
            try:
                yield destination
            finally:
                _wipe(destination.staging)
    finally:
        os.umask(umask)


def _wipe(staging: Path) -> None:
    """Remove what a run left that was stopped: its files have no names yet."""
    for leftover in sorted(os.listdir(staging)):
        remove_tree(staging / leftover)


def remember(origin: Origin, root: Path, marker: Marker, notes: list[str]) -> None:
    """Let the archive remember this backup, and when it was made."""
    entry = {"path": str(root), "objects_at": marker.get("objects_at")}
    file = _entry(origin, root)
    try:
        durable.make_folder(file.parent, origin.folder_mode & 0o777)
        durable.replace_file(file, json.dumps(entry).encode() + b"\n", _FILE_MODE)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        notes.append(
            f"{file.parent} cannot be written ({error.strerror}): it will not be noticed when "
            "the disk of this backup is not mounted"
        )


def _entry(origin: Origin, root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return origin.archive / LEDGER / f"{name}.json"


def _is_known(origin: Origin, root: Path) -> bool:
    return _entry(origin, root).is_file()


def _refuse_nested(root: Path, origin: Origin) -> None:
    for name, folder in (
        ("the archive", origin.archive),
        ("the spool", origin.spool),
        *(("the share", each) for each in origin.others),
    ):
        real = Path(os.path.realpath(folder))
        if root.is_relative_to(real) or real.is_relative_to(root):
            raise Fatal(f"{root} and {name} {folder} lie in one another; choose another folder")
    for folder in root.parents:
        if site.is_backup(folder) or site.id_of(folder) is not None:
            raise Fatal(f"{root} lies in {folder}, a site or a backup; choose another folder")


def _marker(root: Path, site_id: str, *, is_expected: bool) -> Marker:
    """Return what the folder says of itself; empty where it is new."""
    file = root / site.BACKUP_NAME
    try:
        marker = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        _refuse_used(root)
        if is_expected:
            raise Fatal(
                f"there was a backup at {root}, and there is none now; is its disk not mounted? "
                "If this is a new disk, say so with --new"
            ) from None
        return {}
    except ValueError:
        raise Fatal(f"{file} cannot be read; is this a backup made by ingester?") from None
    if not isinstance(marker, dict) or not isinstance(marker.get("format"), int):
        raise Fatal(f"{file} cannot be read; is this a backup made by ingester?")
    if marker["format"] > _FORMAT:
        raise Fatal(f"{root} is a backup made by a newer ingester; install that version")
    if marker.get("site") != site_id:
        raise Fatal(
            f"{root} is the backup of another site (of {marker.get('archive')}); "
            "give each site a folder of its own"
        )
    return marker


def _refuse_used(root: Path) -> None:
    if not root.exists():
        if not root.parent.is_dir():
            raise Fatal(f"there is no folder {root.parent}; is a disk not mounted?")
        return
    if not root.is_dir():
        raise Fatal(f"{root} is not a folder")
    ours = {site.LOCK_NAME, durable.unfinished(root / site.BACKUP_NAME).name}
    others = sorted(set(os.listdir(root)) - _LITTER - ours)
    if others:
        raise Fatal(
            f"{root} is not empty (it holds {others[0]}) and is no backup made by ingester; "
            "name an empty folder, or a new one"
        )


def _make(root: Path, mode: int) -> None:
    if durable.make_folder(root, mode & 0o777):
        durable.flush_folder(root.parent)
    try:
        durable.flush_folder(root)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        raise Fatal(
            f"the file system of {root} cannot make names durable (fsync of a folder), so a "
            "power cut could take the backup with it; choose another one"
        ) from error


@contextmanager
def _held(root: Path) -> Iterator[list[str]]:
    """Hold the folder's lock; yields notes, with one where the disk has no locks."""
    with ExitStack() as stack:
        notes: list[str] = []
        try:
            stack.enter_context(site.held(root, command="backup"))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            notes.append(f"the disk of {root} has no locks: let only one backup run at a time")
        yield notes


def _note_same_disk(root: Path, origin: Origin, notes: list[str]) -> None:
    if os.stat(root).st_dev == os.stat(origin.archive).st_dev:
        notes.append(
            f"{root} lies on the same file system as the archive: it protects from mistakes, "
            "not from the loss of the disk"
        )
