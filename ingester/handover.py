"""Bringing files from elsewhere into the spool, whole and durable, by copy.

Used by `ingester import`.  Each file is copied to `.receiving/<id>`, flushed, and
renamed to where a file with a known source, batch and id waits (`spool.handed_over`),
so that the spool never sees half a file and a crash in between loses nothing: the
original is only taken away, where that is asked for, once its outcome is known.

    for found in walk(paths, is_ignored): ...        what is there, litter left out
    with Handover(spool_root, source, clock) as handover:
        for found in walk(...):
            handed = handover.bring(found)           copied
    handover.flush()                                 renamed, durable: the spool has them
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ingester import durable
from ingester.errors import Retry
from ingester.model import Clock, FileIdentity, new_id
from ingester.sniff import sniff
from ingester.spool import RECEIVING, handed_over, shown

_FILE_MODE = 0o640
_HEAD_BYTES = 4096
_BLOCK_BYTES = 1 << 20
#: So many files, or bytes, share the flushes of their folders.
_GROUP_FILES = 64
_GROUP_BYTES = 64 << 20
_FLUSHERS = 8
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A file to bring: where it is, what it is called there, and its batch."""

    path: Path
    name: str
    batch: str | None


@dataclass(frozen=True, slots=True)
class Handed:
    """A file that was brought, by the id its outcome will have."""

    arrival_id: str
    found: Found
    identity: FileIdentity  # of the original, when it was copied

    @property
    def size_bytes(self) -> int:
        """Return how many bytes were brought."""
        return self.identity.size


def walk(
    paths: Iterable[Path],
    is_ignored: Callable[[str], bool],
    on_skipped: Callable[[Path, str], None],
) -> Iterator[Found]:
    """Yield the files at and below *paths*, in order; links and devices are told of.

    A folder that is named is a batch of its own name, as if it had been dropped.
    """
    for path in paths:
        if path.is_dir():
            batch = shown(Path(os.path.abspath(path)).name) or None
            yield from _walk_folder(path, batch, is_ignored, on_skipped)
        elif path.is_file():
            yield Found(path, path.name, None)
        else:
            on_skipped(path, "it is neither a file nor a folder")


def _walk_folder(
    top: Path,
    batch: str | None,
    is_ignored: Callable[[str], bool],
    on_skipped: Callable[[Path, str], None],
) -> Iterator[Found]:
    def complain(error: OSError) -> None:
        on_skipped(Path(error.filename or top), error.strerror or "it cannot be listed")

    for folder, folders, names in os.walk(top, onerror=complain):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            if is_ignored(name):
                continue
            path = Path(folder, name)
            if not stat.S_ISREG(path.lstat().st_mode):
                on_skipped(path, "it is a link or a device, not a file")
                continue
            relative = os.path.relpath(path, top)
            yield Found(path, f"{batch}/{relative}" if batch else relative, batch)


def is_foreign(path: Path) -> bool:
    """Return whether a file surely holds no DICOM, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or sniff(head) == "foreign"


class Handover:
    """Copies files into a spool, group by group; `flush` ends the last group."""

    def __init__(
        self, root: Path, source: str, clock: Clock, *, folder_mode: int, min_free_bytes: int
    ) -> None:
        self._root = root
        self._source = source
        self._clock = clock
        self._folder_mode = folder_mode & 0o777
        self._min_free_bytes = min_free_bytes
        self._group: list[tuple[Path, Path]] = []
        self._group_bytes = 0
        self._flushers = ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="flush")

    def __enter__(self) -> Handover:
        return self

    def __exit__(self, *_error: object) -> None:
        self._flushers.shutdown()
        for leftover, _ in self._group:  # an error came between: nobody shall find half a group
            durable.unlink(leftover)

    def bring(self, found: Found, batch: str | None) -> Handed:
        """Copy one file; it is in the spool once its group is flushed.

        Raises
        ------
        Retry
            the spool's disk is full, or the file keeps changing while it is read.
        OSError
            the file cannot be read, or the spool cannot be written.
        """
        arrival_id = new_id(self._clock.now())
        copy = self._root / RECEIVING / arrival_id
        identity = self._copy(found, copy)
        label = shown(batch) if batch else None
        target = self._root / handed_over(self._source, label, arrival_id, shown(found.name))
        self._group.append((copy, target))
        self._group_bytes += identity.size
        if len(self._group) >= _GROUP_FILES or self._group_bytes >= _GROUP_BYTES:
            self.flush()
        return Handed(arrival_id, found, identity)

    def _copy(self, found: Found, copy: Path) -> FileIdentity:
        for _ in range(_TRIES):
            with found.path.open("rb") as file:
                before = FileIdentity.of(os.fstat(file.fileno()))
                self._make_sure_of_room(before.size)
                descriptor = durable.create(copy, _FILE_MODE)
                try:
                    while block := file.read(_BLOCK_BYTES):
                        durable.write(descriptor, block, copy)
                finally:
                    os.close(descriptor)
                after = FileIdentity.of(os.fstat(file.fileno()))
            if (before.size, before.mtime_ns) == (after.size, after.mtime_ns):
                return before
            durable.unlink(copy)
        raise Retry(
            f"{shown(str(found.path))} changes while it is read; import it once it is whole"
        )

    def _make_sure_of_room(self, size: int) -> None:
        disk = os.statvfs(self._root)
        if disk.f_bavail * disk.f_frsize - size < self._min_free_bytes:
            raise Retry(
                f"the spool's disk would have less than [spool] min_free left: {self._root}; "
                "make room, or import less at once"
            )

    def flush(self) -> None:
        """Make the group durable and let the spool see it: bytes, names, folders."""
        list(self._flushers.map(_flush, [copy for copy, _ in self._group]))
        changed: set[Path] = set()
        for copy, target in self._group:
            changed.update(self._put(copy, target))
        # Neighbours together: a journal takes many flushes for the price of few.
        for level in durable.deepest_first(changed):
            list(self._flushers.map(_flush_folder, level))
        self._group.clear()
        self._group_bytes = 0

    def _put(self, copy: Path, target: Path) -> set[Path]:
        """Give a copy its name; returns the folders whose listing changed."""
        for is_last in (False, True):
            made = durable.make_folders(self._root, target.parent, self._folder_mode)
            try:
                durable.rename(copy, target)
            except FileNotFoundError:
                # The service tidied the new folder away before it was filled, or has
                # just been started and wiped `.receiving`.
                if is_last:
                    raise Retry(
                        "a service was started while files were copied; import again"
                    ) from None
                continue
            return {*made, target.parent}
        raise AssertionError("unreachable")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        durable.flush_file(descriptor, path)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    try:
        durable.flush_folder(folder)
    except FileNotFoundError:
        # Taken and tidied by the service between the question and the flush: it has
        # made its own names durable.
        return


def take_away(handed: Handed) -> bool:
    """Remove an original whose outcome is durable (`--move`).

    Returns False where it is another file by now than the one that was copied: that
    one stays.
    """
    try:
        now = FileIdentity.of(os.stat(handed.found.path))
    except FileNotFoundError:
        return True
    then = handed.identity
    if (now.dev, now.ino, now.size, now.mtime_ns) != (then.dev, then.ino, then.size, then.mtime_ns):
        return False
    durable.unlink(handed.found.path)
    return True
