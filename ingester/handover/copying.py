"""Copying into the spool, group by group: bytes, flush, name."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ingester import durable
from ingester.errors import Retry
from ingester.handover.listing import CannotRead, Found, reading
from ingester.model import Clock, FileIdentity, new_id
from ingester.spool import RECEIVING, handed_over, shown

_FILE_MODE = 0o640
_BLOCK_BYTES = 1 << 20
#: So many files, or bytes, share the flushes of their folders.
_GROUP_FILES = 64
_GROUP_BYTES = 64 << 20
_FLUSHERS = 8
_TRIES = 3


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
        CannotRead
            this file cannot be read, or keeps changing meanwhile; the next may be brought
        Retry
            the spool's disk is full
        OSError
            the spool cannot be written
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
            with reading():
                file = found.path.open("rb")
            with file:
                before = FileIdentity.of(os.fstat(file.fileno()))
                self.make_sure_of_room(before.size)
                self._copy_open(file, before.size, copy)
                after = FileIdentity.of(os.fstat(file.fileno()))
            if (before.size, before.mtime_ns) == (after.size, after.mtime_ns):
                return before
            durable.unlink(copy)
        raise CannotRead("it changes while it is read: import it once it is whole")

    def _copy_open(self, file: BinaryIO, size_bytes: int, copy: Path) -> None:
        """Copy no more than there was at the beginning: a file that grows may never end."""
        descriptor = durable.create(copy, _FILE_MODE)
        left = size_bytes
        try:
            while left:
                with reading():
                    block = file.read(min(_BLOCK_BYTES, left))
                if not block:
                    break
                durable.write(descriptor, block, copy)
                left -= len(block)
        except BaseException:
            durable.unlink(copy)
            raise
        finally:
            os.close(descriptor)

    def make_sure_of_room(self, size_bytes: int) -> None:
        """Make sure that so many bytes may be brought.

        Raises
        ------
        Retry : the spool's disk would have less than `min_free` left
        """
        disk = os.statvfs(self._root)
        free = disk.f_bavail * disk.f_frsize
        if free - size_bytes < self._min_free_bytes:
            raise Retry(
                f"the spool's disk has no room for that: {size_bytes:,} bytes are to be copied,"
                f" {free:,} are free in {self._root}, and {self._min_free_bytes:,} must stay free"
                " ([spool] min_free); make room, or import less at once"
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
