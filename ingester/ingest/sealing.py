"""The bytes of an object on their way to a final name: sealed, flushed, linked.

What will be an object of the archive is either the claimed file itself or, where a
link cannot do or somebody may still write to it, a copy in the archive's staging
folder.  Either gets its mode and time and is flushed in a thread, begun as soon as it
was read, so that a batch waits once for all its flushes.  Two things may come to
light here that send a file back to be read: it is not the one that was read
(`Touched`), or its bytes must be copied (`CannotLink`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from ingester import durable
from ingester.archive import CANNOT_LINK, NEVER_LINKS, OBJECT_MODE, Archive, Published
from ingester.ingest.values import Entry
from ingester.model import FileIdentity
from ingester.moments import Moments, mtime_ns_of

_FLUSHERS = 8


class Touched(Exception):
    """The file is not the one that was read: read it again."""

    def __init__(self, entry: Entry) -> None:
        super().__init__("the file changed after it was read")
        self.entry = entry


class CannotLink(Exception):
    """These bytes cannot get a final name by a link, or not be made durable: copy."""

    def __init__(self, entry: Entry, *, is_general: bool = False) -> None:
        super().__init__("the file must be copied")
        self.entry = entry
        self.is_general = is_general  # its neighbours on the same file system must be, too


class Sealing:
    """Makes the bytes of objects durable and gives them names."""

    def __init__(self, archive: Archive, moments: Moments) -> None:
        self._archive = archive
        self._moments = moments
        self._flushers = ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="flush")

    def close(self) -> None:
        """End the threads that flush."""
        self._flushers.shutdown()

    def date(self, entry: Entry) -> None:
        """Give an object the moment of its archiving, if it has none."""
        if entry.instance is not None and not entry.archived_at:
            entry.archived_at = self._moments.next()

    def begin(self, entry: Entry) -> None:
        """Begin to make an object's bytes durable, while others are still being read."""
        if entry.instance is not None and entry.flushing is None:
            self.date(entry)
            entry.flushing = self._flushers.submit(self._seal_and_flush, entry)

    def date_back(self, entry: Entry, archived_at: str) -> None:
        """Seal and flush, perhaps once more, as archived at an earlier moment.

        Raises
        ------
        Touched, CannotLink : it must be read again
        """
        self.finish(entry)
        entry.archived_at = archived_at
        entry.flushing = self._flushers.submit(self._seal_and_flush, entry)

    def finish(self, entry: Entry) -> None:
        """Wait until an object's bytes are durable.

        Raises
        ------
        Touched, CannotLink : it must be read again
        """
        if entry.flushing is not None:
            entry.flushing.result()

    def end(self, entry: Entry) -> None:
        """Wait until nobody flushes these bytes any more, however that went."""
        if entry.flushing is not None:
            wait([entry.flushing])

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove names, several at once.

        One goes before the others begin: nothing overtakes what this thread did before.
        """
        for path in paths[:1]:
            durable.unlink(path)
        for removal in [self._flushers.submit(durable.unlink, path) for path in paths[1:]]:
            removal.result()

    def staged(self, entry: Entry) -> Path:
        """Return where the copy of a file lies, if there is one."""
        return self._archive.staging / entry.item.claim.arrival_id

    def bytes_of(self, entry: Entry) -> Path:
        """Return the file that is to become the object: the copy or the claimed one."""
        if entry.prepared is not None and entry.prepared.staged:
            return self.staged(entry)
        return entry.item.claim.path

    def give_name(self, entry: Entry, path: str) -> Published:
        """Link the bytes to a path of the archive.

        Raises
        ------
        Touched, CannotLink : it must be read again
        """
        try:
            return self._archive.publish(self.bytes_of(entry), path)
        except FileNotFoundError as error:
            raise Touched(entry) from error
        except OSError as error:
            if entry.item.must_copy or error.errno not in CANNOT_LINK:
                raise
            raise CannotLink(entry, is_general=error.errno in NEVER_LINKS) from error

    def _seal_and_flush(self, entry: Entry) -> None:
        """Give the bytes their mode and time and flush them, sure that they were read."""
        assert entry.prepared is not None
        if entry.has_failed:
            raise CannotLink(entry)
        path = self.bytes_of(entry)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError as error:
            raise Touched(entry) from error
        try:
            status = FileIdentity.of(os.fstat(descriptor))
            read = entry.sealed or entry.prepared.identity
            if not entry.prepared.staged and not _is_untouched(status, read):
                raise Touched(entry)
            when = mtime_ns_of(entry.archived_at)
            durable.seal(descriptor, path, mode=OBJECT_MODE, mtime_ns=when)
            entry.sealed = FileIdentity.of(os.fstat(descriptor))
            try:
                durable.flush_file(descriptor, path)
            except OSError as error:
                # Asking again would be told a lie: the bytes are copied once more.
                entry.has_failed = True
                raise CannotLink(entry) from error
        finally:
            os.close(descriptor)


def _is_untouched(now: FileIdentity, then: FileIdentity) -> bool:
    """Compare what the contents depend on; a second name of ours changes the rest."""
    return (now.dev, now.ino, now.size, now.mtime_ns) == (
        then.dev,
        then.ino,
        then.size,
        then.mtime_ns,
    )
