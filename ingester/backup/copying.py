"""Copying files into a backup: nothing is believed that was not read back.

    read      the source, never following a link, hashed as it is read
    write     to `.staging`, mode and time set, flushed
    compare   what was read with the index, what was written with what was read
    name      never over an object: what lay there is set aside first
    flush     the folders, each once

A source that is damaged is told and not copied; what the backup has of it stays.
Several files are on their way at once, because a flush is mostly waiting.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ingester import durable
from ingester.archive import Archive
from ingester.backup.destination import Destination
from ingester.backup.origin import Origin, Wish, WishKind
from ingester.backup.plan import COARSE_NS
from ingester.check.digest import sha256_on_disk
from ingester.check.findings import Finding, FindingKind
from ingester.errors import Fatal

_THREADS = 4
_CHUNK = 1 << 20
#: Errors of one file of the archive alone; all others are the world's.
_OF_THE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENXIO})
#: What a disk without modes, owners or exact times says (FAT, some shares).
_NO_MODES = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
#: What a disk says of a name that it cannot hold.
_BAD_NAME = frozenset({errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ})

_NO_MODES_NOTE = (
    "the disk of the backup keeps no modes or owners: give them again when you restore from it"
)
_COARSE_NOTE = (
    "the disk of the backup keeps times coarsely: an index that is rebuilt from its files alone, "
    "without its index.db, may take objects of the same moment in another order"
)
_MENDED = (
    "What the backup had under this name was not the object: a good copy took its place, and it "
    "is kept beside it under a name that begins with .damaged-."
)
_NOT_THERE = "It is not in the backup."
_NOT_WHOLE = "What the backup has of it is not whole either."


class _UnreadableError(Exception):
    """The source cannot be had as what it should be: which kind of finding, and why."""

    def __init__(self, kind: FindingKind, why: str = "") -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why


@dataclass(frozen=True, slots=True)
class _Staged:
    """A file that waits for its name; None where the one that is there is good."""

    wish: Wish
    path: Path | None
    size_bytes: int = 0


@dataclass(slots=True)
class Told:
    """What became of wishes."""

    copied: int = 0
    bytes_copied: int = 0
    present: int = 0  # doubtful ones that turned out to be good
    mended: list[Finding] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    gone: list[Wish] = field(default_factory=list)  # from the source: perhaps replaced meanwhile


class Copier:
    """Copies batches of files into one backup."""

    def __init__(
        self,
        origin: Origin,
        destination: Destination,
        *,
        stamp: str,
        is_stopped: Callable[[], bool],
    ) -> None:
        """Prepare; *stamp* is part of the names of what is set aside."""
        self._origin = origin
        self._to = destination
        self._tree = Archive(destination.root, mode=destination.folder_mode)
        self._stamp = stamp
        self._is_stopped = is_stopped
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="backup")
        self._count = 0
        self._notes: set[str] = set()
        self.lost_times = False  # the disk does not keep them at all

    def close(self) -> None:
        """End the threads; what they were about to copy is left."""
        self._pool.shutdown(cancel_futures=True)

    @property
    def notes(self) -> list[str]:
        """Return what the backup's disk cannot do, in sentences."""
        return sorted(self._notes)

    def copy(self, batch: Sequence[Wish]) -> Told:
        """Copy files, all of them durable under their names when this returns.

        Raises
        ------
        OSError : the backup's disk does not let us; what has its name is whole
        Fatal : the backup's disk gives back other bytes than it was given
        KeyboardInterrupt : somebody asked to stop
        """
        numbers = range(self._count, self._count + len(batch))
        self._count += len(batch)
        told = Told()
        futures = [
            self._pool.submit(self._stage, wish, self._to.staging / str(number))
            for wish, number in zip(batch, numbers, strict=True)
        ]
        staged: list[_Staged] = []
        try:
            for wish, future in zip(batch, futures, strict=True):
                try:
                    staged.append(future.result())
                except FileNotFoundError:
                    told.gone.append(wish)
                except _UnreadableError as error:
                    told.findings.append(_finding(wish, error.kind, error.why))
        finally:
            for future in futures:
                future.cancel()
        if self._is_stopped():
            raise KeyboardInterrupt
        self._give_names(staged, told)
        return told

    # ---------------------------------------------------------------- one file

    def _stage(self, wish: Wish, target: Path) -> _Staged:
        """Make a durable copy without its name; runs in a thread.

        Raises
        ------
        FileNotFoundError : there is no source (any more)
        _UnreadableError : there is one that is not to be had
        """
        if self._is_stopped():
            raise KeyboardInterrupt
        if wish.is_doubtful and self._is_good(wish):
            return _Staged(wish, None)
        source = self._origin.source_of(wish)
        status = _look(source)
        if stat.S_ISLNK(status.st_mode) and wish.kind is WishKind.QUARANTINED:
            durable.symlink(os.readlink(source), target)
            return _Staged(wish, target)
        if not stat.S_ISREG(status.st_mode):
            raise _UnreadableError(FindingKind.UNREADABLE, "It is no regular file.")
        if wish.sha256 is not None and status.st_size != wish.size_bytes:
            raise _UnreadableError(FindingKind.WRONG_SIZE)
        copy = durable.create(target, 0o600)  # until it is sealed
        try:
            size, read = self._write(source, copy, target)
            if wish.sha256 not in (None, read):
                raise _UnreadableError(FindingKind.WRONG_CHECKSUM)
            mtime_ns = wish.mtime_ns if wish.mtime_ns is not None else status.st_mtime_ns
            self._seal(copy, target, wish, status, mtime_ns)
            durable.flush_file(copy, target)
        except _UnreadableError:
            durable.unlink(target)
            raise
        finally:
            os.close(copy)
        if self._digest(target) != read:
            raise Fatal(
                f"{self._to.root}: the disk gives back other bytes than it was given; "
                "use another disk for the backup"
            )
        return _Staged(wish, target, size)

    def _write(self, source: Path, copy: int, target: Path) -> tuple[int, str]:
        """Copy all bytes; returns how many, and the SHA-256 of what was read."""
        digest, size = hashlib.sha256(), 0
        with _of_the_source():
            durable.effect("read", source)
            file = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while True:
                if self._is_stopped():
                    raise KeyboardInterrupt
                with _of_the_source():
                    data = os.read(file, _CHUNK)
                if not data:
                    break
                digest.update(data)
                size += len(data)
                durable.write(copy, data, target)
            # It was read once: the service's own pages must not make room for it.
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
        return size, digest.hexdigest()

    def _seal(
        self, copy: int, target: Path, wish: Wish, status: os.stat_result, mtime_ns: int
    ) -> None:
        try:
            durable.seal(copy, target, mode=wish.kind.mode, mtime_ns=mtime_ns)
            if os.geteuid() == 0:
                os.chown(copy, status.st_uid, status.st_gid)
        except OSError as error:
            if error.errno not in _NO_MODES:
                raise
            self._notes.add(_NO_MODES_NOTE)
            with suppress(OSError):
                os.utime(copy, ns=(mtime_ns, mtime_ns))
        error_ns = abs(os.fstat(copy).st_mtime_ns - mtime_ns)
        if error_ns:
            self._notes.add(_COARSE_NOTE)
        if error_ns >= COARSE_NS:
            self.lost_times = True

    def _is_good(self, wish: Wish) -> bool:
        """Return whether what lies in the backup is the object, and set its time right."""
        path = self._to.root / wish.path
        if self._digest(path) != wish.sha256:
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if wish.mtime_ns is not None and status.st_mtime_ns != wish.mtime_ns:
                self._seal(descriptor, path, wish, status, wish.mtime_ns)
        finally:
            os.close(descriptor)
        return True

    def _digest(self, path: Path) -> str | None:
        """Return the SHA-256 of a file of the backup, read from its disk; None if it cannot be."""
        try:
            return sha256_on_disk(path, self._is_stopped)
        except OSError:
            return None  # whatever is there is not what was written

    # ------------------------------------------------------------------- names

    def _give_names(self, staged: Sequence[_Staged], told: Told) -> None:
        lacking = [(each.wish, each.path, each.size_bytes) for each in staged if each.path]
        told.present += len(staged) - len(lacking)
        paths = [wish.path for wish, _, _ in lacking]
        self._tree.make_homes(paths)
        for wish, path, size_bytes in lacking:
            if self._give_name(wish, path, told):
                told.copied += 1
                told.bytes_copied += size_bytes
        self._tree.flush_homes(paths)

    def _give_name(self, wish: Wish, path: Path, told: Told) -> bool:
        final = self._tree.absolute(wish.path)
        try:
            if wish.kind is not WishKind.OBJECT:
                durable.replace(path, final)
                return True
            if os.path.lexists(final):
                self._tree.set_aside(wish.path, self._stamp)
                told.mended.append(Finding(FindingKind.WRONG_CHECKSUM, wish.path, _MENDED))
            durable.rename(path, final)
        except OSError as error:
            if error.errno not in _BAD_NAME or wish.kind is not WishKind.QUARANTINED:
                raise
            durable.unlink(path)
            why = "The disk of the backup cannot hold a file of this name."
            told.findings.append(Finding.of(FindingKind.UNREADABLE, wish.path, why))
            return False
        return True


def missing(wish: Wish) -> Finding:
    """Return what to say of a file that the index names and the site does not have."""
    kinds = {
        WishKind.OBJECT: FindingKind.MISSING_OBJECT,
        WishKind.QUARANTINED: FindingKind.MISSING_QUARANTINED,
    }
    return _finding(wish, kinds.get(wish.kind, FindingKind.MISSING_DERIVATIVE))


def _finding(wish: Wish, kind: FindingKind, why: str = "") -> Finding:
    if wish.kind is WishKind.OBJECT:
        why = f"{why} {_NOT_WHOLE if wish.is_doubtful else _NOT_THERE}".strip()
    return Finding.of(kind, wish.path, why)


def _look(source: Path) -> os.stat_result:
    with _of_the_source():
        return os.lstat(source)


@contextmanager
def _of_the_source() -> Iterator[None]:
    """Tell errors of one file of the site from those of the world."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
        raise _UnreadableError(FindingKind.UNREADABLE, f"({error.strerror})") from error
