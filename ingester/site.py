"""Making sure that this spool and this archive belong together, and are ours alone.

A site id lies in both folders; where the archive's is missing or another, a disk is
not mounted and nothing may be written.  Two locks, one in each folder, let one
service in; who holds them stands in the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingester import durable
from ingester.archive import Archive
from ingester.errors import Fatal
from ingester.observe import one_line

SITE_NAME = ".site"
LOCK_NAME = ".lock"
#: What marks a folder as a backup of an archive (see the room `backup`).
BACKUP_NAME = ".backup"
_FILE_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Space:
    """How much of a file system is free, for us."""

    free_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, path: Path) -> Space:
        """Ask the file system that *path* lies on."""
        found = os.statvfs(path)
        return cls(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def make_roots(spool: Path, archive: Path, *, spool_mode: int, archive_mode: int) -> None:
    """Make both folders where neither is there; one without the other is a mishap.

    Raises
    ------
    Fatal : one is missing (a disk not mounted, a typing error), or one lies in the other
    """
    real_spool, real_archive = Path(os.path.realpath(spool)), Path(os.path.realpath(archive))
    if real_spool.is_relative_to(real_archive) or real_archive.is_relative_to(real_spool):
        raise Fatal(f"the spool {spool} and the archive {archive} must not lie in one another")
    missing = [path for path in (spool, archive) if not path.is_dir()]
    if len(missing) == 1:
        raise Fatal(
            f"there is no folder {missing[0]}; is a disk not mounted? "
            "(a new site is made by: ingester init)"
        )
    for path, mode in ((spool, spool_mode), (archive, archive_mode)):
        if path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.make_folder(path, mode & 0o777)
            durable.flush_folder(path.parent)


def tie(spool: Path, archive: Path) -> None:
    """Make sure that both bear the same site id, made now where both are new.

    Raises
    ------
    Fatal : they do not belong together; the sentence says what to do
    """
    sentence = why_apart(spool, archive)
    if sentence is not None:
        raise Fatal(sentence)
    in_archive = id_of(archive)
    if in_archive is not None and in_archive == id_of(spool):
        return
    site_id = in_archive or secrets.token_hex(8)
    # The archive's first: a crash in between leaves an empty archive with an id, which
    # the next start hands on; the other order would look like a disk not mounted.
    if in_archive is None:
        durable.replace_file(archive / SITE_NAME, f"{site_id}\n".encode(), _FILE_MODE)
    durable.replace_file(spool / SITE_NAME, f"{site_id}\n".encode(), _FILE_MODE)


def why_apart(spool: Path, archive: Path) -> str | None:
    """Return the sentence that says why both do not belong together; None if they may."""
    if is_backup(archive):
        return (
            f"{archive} is a backup (it holds {BACKUP_NAME}): it can be read, verified and "
            "rebuilt, but nothing is changed in it; how to restore from it stands in "
            "docs/recovery.md"
        )
    in_spool, in_archive = id_of(spool), id_of(archive)
    if in_spool is not None and in_spool == in_archive:
        return None
    if in_spool is not None and in_archive is not None:
        return (
            f"the archive {archive} belongs to another spool than {spool} "
            f"({SITE_NAME} differs); is the right disk mounted?"
        )
    if in_spool is not None:
        return (
            f"the archive {archive} has no {SITE_NAME}; is its disk not mounted? If this is "
            f"the right archive: cp {spool / SITE_NAME} {archive / SITE_NAME}"
        )
    if not archive.is_dir() or not Archive(archive).has_objects():
        return None
    return f"the archive {archive} holds objects, but the spool {spool} does not know it. If " + (
        f"they belong together: cp {archive / SITE_NAME} {spool / SITE_NAME}"
        if in_archive is not None
        else f"they belong together, give both the same id: "
        f"echo {secrets.token_hex(8)} | tee {spool / SITE_NAME} {archive / SITE_NAME}"
    )


def is_backup(archive: Path) -> bool:
    """Return whether this folder is no archive, but a backup of one."""
    return os.path.lexists(archive / BACKUP_NAME)


def id_of(folder: Path) -> str | None:
    """Return the site id that a spool or an archive bears; None where there is none."""
    try:
        text = (folder / SITE_NAME).read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    return text or None


@contextmanager
def held(*folders: Path, command: str) -> Iterator[None]:
    """Hold the lock of each folder; nobody else can while the block runs.

    *command* is what others are told of us ("run"): a word, no arguments.

    The descriptors are closed in every child process, so a child that outlives us
    holds nothing.

    Raises
    ------
    Fatal : another process holds one; the sentence names it
    """
    with ExitStack() as stack:
        for folder in folders:
            stack.callback(_unlock, _lock(folder / LOCK_NAME, command))
        yield


def _unlock(descriptor: int) -> None:
    # Not by closing alone: a child that is just being started still shares it.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _lock(path: Path, command: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, _FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = one_line(os.pread(descriptor, 300, 0).decode("utf-8", "replace").strip())
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise Fatal(
            f"{path.parent} is in use by {holder or 'another process'}; "
            "only one service may work on it (see: ingester status)"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} (ingester {command})\n".encode(), 0)
    return descriptor


def holder_of(folder: Path, locks: Path = Path("/proc/locks")) -> int | None:
    """Return the process that holds a folder's lock, as the kernel tells; None if nobody.

    The lock is not tried: a service that is just starting would be refused.  A holder in
    another container is 0.
    """
    try:
        status = os.stat(folder / LOCK_NAME)
        lines = locks.read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{status.st_ino}"):
            return max(int(fields[4]), 0)
    return None
