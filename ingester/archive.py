"""Where an instance lives, and putting it there without ever overwriting anything.

A path is a pure function of source, Study Date, Study and SOP Instance UID; for
another version of a known UID twelve digits of its SHA-256 follow.  The clock and
the order of arrival never enter it, so the tree alone can rebuild the index.

    instance_path("CT1", "2024-01-31", study_uid, sop_uid)
        -> "CT1/2024/01/31/<study uid>/<sop uid>.dcm"
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from ingester import durable
from ingester.model import Kind, StoredFile

_ALLOWED = re.compile(r"[^A-Za-z0-9._-]")
_OUR_NAMES = re.compile(r"(index\.db.*|index-snapshot\.db.*|quarantine)", re.ASCII | re.IGNORECASE)
_ESCAPED = re.compile(r".*-[0-9a-f]{8}", re.ASCII)
_LONGEST_SOURCE = 64

#: So many folders are remembered as durable; to forget one costs a flush.
_MOST_REMEMBERED = 10_000

OBJECT_MODE = 0o440
DERIVATIVE_MODE = 0o640

#: Errors of `link` that mean "not between these two places", so that a copy is made.
CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})

#: Those of them that say so of the two file systems, not of one file.
NEVER_LINKS = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS})

#: Errors of `open` that mean "there is no regular file of that name".
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


def escape_source(raw: str) -> str:
    """Return *raw* as a source: a safe folder name, the same for the same input.

    `[A-Za-z0-9._-]` stay (not a leading dot), all else becomes `_`; where anything
    changed, `-` and 8 hex digits of the SHA-256 of the original follow, so that two
    senders never share a folder by accident.  Names of our own files count as changed.
    """
    name = _ALLOWED.sub("_", raw)
    if name.startswith("."):
        name = "_" + name[1:]
    name = name[:_LONGEST_SOURCE] or "_"
    is_ours = _OUR_NAMES.fullmatch(name) and not _ESCAPED.fullmatch(name)
    if name == raw and not is_ours:
        return name
    return f"{name}-{hashlib.sha256(raw.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def instance_path(
    source: str,
    study_date: str | None,
    study_instance_uid: str,
    sop_instance_uid: str,
    other_version: str | None = None,
) -> str:
    """Return where an instance lives, relative to the archive.

    Parameters
    ----------
    source : an escaped source (`escape_source`)
    study_date : `YYYY-MM-DD`, or None where the object has no readable Study Date
    study_instance_uid, sop_instance_uid : validated UIDs
    other_version : the SHA-256 (hex) of a variant's or conflict's file, else None
    """
    folder = (study_date or "0000-00-00").replace("-", "/")
    suffix = f"~{other_version[:12]}" if other_version else ""
    return f"{source}/{folder}/{study_instance_uid}/{sop_instance_uid}{suffix}.dcm"


def derivative_path(path: str, kind: Kind) -> str:
    """Return where the thumbnail or video of the object at *path* lives."""
    return path.removesuffix(".dcm") + (".jpg" if kind is Kind.THUMBNAIL else ".mp4")


class Published(Enum):
    """What giving an object its final name met."""

    NEW = "new"  # the name is ours now
    SAME_FILE = "same-file"  # it was ours already: a replay
    OCCUPIED = "occupied"  # another file lives there


class Archive:
    """The tree of archived objects below *root*."""

    def __init__(self, root: Path, *, mode: int = 0o2750) -> None:
        self.root = root
        self.staging = root / ".staging"
        self.media = root / ".media"
        self._mode = mode & 0o777
        self._prefix = f"{root}/"
        self._durable: set[Path] = set()  # folders whose names are

    def make_folders(self) -> None:
        """Make our own folders and wipe what an earlier run left half-copied."""
        durable.make_folder(self.staging, self._mode)
        durable.make_folder(self.media, self._mode)
        for leftover in sorted(os.scandir(self.staging), key=lambda entry: entry.name):
            remove_tree(Path(leftover.path))

    def has_objects(self) -> bool:
        """Return whether any object lives here, whatever the index says."""
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if Path(folder) != self.root and any(name.endswith(".dcm") for name in names):
                return True
        return False

    def absolute(self, path: str) -> Path:
        """Return the absolute path of an object, sure to lie in the archive."""
        return Path(self._absolute(path))

    def _absolute(self, path: str) -> str:
        around = f"/{path}/"
        if "//" in around or "/./" in around or "/../" in around or "\0" in path:
            raise ValueError("a path of the archive must stay inside it")
        return f"{self._prefix}{path}"

    def make_homes(self, paths: Iterable[str]) -> None:
        """Make the folders of these objects, each new one durable in its parent."""
        changed: dict[Path, None] = {}
        homes = self._homes(paths)
        for folder in homes:
            for parent in durable.make_folders(self.root, folder, self._mode):
                changed[parent] = None
            # A folder that is there may be what a run left that died before the flush.
            while folder != self.root and folder not in self._durable:
                folder = folder.parent
                changed[folder] = None
        for parent in changed:
            durable.flush_folder(parent)
        if len(self._durable) > _MOST_REMEMBERED:
            self._durable.clear()
        for folder in homes:
            while folder != self.root and folder not in self._durable:
                self._durable.add(folder)
                folder = folder.parent

    def publish(self, bytes_at: Path, path: str) -> Published:
        """Give the bytes their final name, never replacing what is there."""
        final = self._absolute(path)
        try:
            durable.link(bytes_at, final)
        except FileExistsError:
            mine, there = os.lstat(bytes_at), os.lstat(final)
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                return Published.SAME_FILE
            return Published.OCCUPIED
        return Published.NEW

    def flush_homes(self, paths: Iterable[str]) -> None:
        """Make the names of these objects durable, each folder once."""
        for folder in self._homes(paths):
            durable.flush_folder(folder)

    def _homes(self, paths: Iterable[str]) -> list[Path]:
        return [self.absolute(each) for each in sorted({path.rpartition("/")[0] for path in paths})]

    def status_of(self, path: str) -> os.stat_result | None:
        """Return the status of the object at *path*, None where no regular file is there."""
        try:
            status = os.lstat(self._absolute(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def lost(self, path: str) -> StoredFile:
        """Say of an object's file that is no witness any more whether anything is there."""
        is_there = os.path.lexists(self._absolute(path))
        return StoredFile.DAMAGED if is_there else StoredFile.MISSING

    def set_aside(self, path: str, name: str) -> None:
        """Rename a damaged object to a dot-name beside it; nothing is removed."""
        final = self.absolute(path)
        durable.rename(final, final.with_name(f".damaged-{name}-{final.name}"))

    def sha256_of(self, path: str) -> str | None:
        """Return the SHA-256 of the object at *path*, None where no regular file is there."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._absolute(path), flags)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        finally:
            os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a file or a folder of our own making, links never followed."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(os.scandir(path), key=lambda each: each.name):
            remove_tree(Path(entry.path))
        durable.remove_folder(path)
    else:
        durable.unlink(path)
