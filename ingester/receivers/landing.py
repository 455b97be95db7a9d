"""An object on its way from the wire into the spool.

    landing = Landing(...)
    landing.feed(bytes) ...            gathered in memory; past 1 MiB streamed to a file
    landing.finish()                   flushed, renamed, folder flushed: now 0x0000

A small object is written once, when it is whole.  A large one is streamed to
`.receiving/<association>.<n>`, so that memory does not grow with the object.  Only
the rename makes it visible, under `.received/<source>/`, and only the flush of that
folder makes the promise true.  `discard` forgets everything.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ingester import durable
from ingester.receivers.file_meta import HEAD_BYTES
from ingester.receivers.flusher import FolderFlusher

_log = logging.getLogger(__name__)

RECEIVING = ".receiving"
RECEIVED = ".received"

#: Objects up to this size are gathered in memory; larger ones in pieces of it.
GATHERED_BYTES = 2**20


class Shelf:
    """Where the objects of one spool land."""

    def __init__(
        self, spool: Path, flusher: FolderFlusher, *, folder_mode: int, file_mode: int
    ) -> None:
        self.spool = spool
        self.flusher = flusher
        self.file_mode = file_mode
        self._folder_mode = folder_mode & 0o777  # the setgid bit is inherited
        self._durable: set[tuple[str, int]] = set()

    def source_folder(self, source: str) -> Path:
        """Return the source's folder, made where it is missing, its name durable.

        Another process may have made it a moment ago and not have flushed yet, so
        each folder (each inode: it may be tidied away and made again) is flushed for
        once by every process.
        """
        folder = self.spool / RECEIVED / source
        try:
            inode = folder.stat().st_ino
        except FileNotFoundError:
            durable.make_folder(folder, self._folder_mode)
            inode = folder.stat().st_ino
        if (source, inode) not in self._durable:
            self.flusher.flush(folder.parent)
            self._durable.add((source, inode))
        return folder


class Landing:
    """One object being received."""

    def __init__(self, shelf: Shelf, source: str, name: str, prefix: bytes) -> None:
        """Prepare to receive; *prefix* (preamble and File Meta) goes before all data."""
        self._shelf = shelf
        self._source = source
        self._path = shelf.spool / RECEIVING / name
        self._final_name = f"{name}.dcm"
        self._gathered = bytearray(prefix)
        self._prefix_bytes = len(prefix)
        self._head: bytes | None = None
        self._descriptor = -1
        self._final: Path | None = None
        self.size_bytes = 0  # of the data set

    def feed(self, data: memoryview) -> bool:
        """Take bytes of the data set; True where a piece was written to the disk."""
        self._gathered += data
        self.size_bytes += len(data)
        if len(self._gathered) < GATHERED_BYTES:
            return False
        self._write_gathered()
        return True

    def head(self) -> bytes:
        """Return the first bytes of the data set, at most `HEAD_BYTES`."""
        if self._head is not None:
            return self._head
        return bytes(self._gathered[self._prefix_bytes : self._prefix_bytes + HEAD_BYTES])

    def _write_gathered(self) -> None:
        if self._head is None:
            self._head = self.head()
            self._descriptor = durable.create(self._path, self._shelf.file_mode)
        durable.write(self._descriptor, memoryview(self._gathered), self._path)
        self._gathered = bytearray()

    def finish(self) -> Path:
        """Make the object durable under its final name and return that.

        Raises
        ------
        OSError : it is not durable; what can be taken back has been
        """
        try:
            self._write_gathered()
            durable.flush_file(self._descriptor, self._path)
            self._close()
            self._publish()
        except BaseException:
            self.discard()
            raise
        assert self._final is not None
        return self._final

    def _publish(self) -> None:
        # The ingester tidies a source's folder away when it has emptied it, perhaps
        # between our look and our rename: then it is made again.
        for is_last_try in (False, False, True):
            folder = self._shelf.source_folder(self._source)
            try:
                durable.rename(self._path, folder / self._final_name)
            except FileNotFoundError:
                if is_last_try or not self._path.exists():
                    raise
                continue
            self._final = folder / self._final_name
            break
        try:
            self._shelf.flusher.flush(folder)
        except FileNotFoundError:
            # Emptied and tidied away: the object has been claimed meanwhile.
            self._shelf.flusher.flush(folder.parent)

    def discard(self) -> None:
        """Take everything back, as far as that is possible."""
        self._gathered = bytearray()
        try:
            self._close()
        except OSError:
            self._descriptor = -1  # nothing was promised
        for path in (self._path, self._final):
            if path is not None:
                _remove(path)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Unlink; a disk that refuses even that leaves the file to the janitor."""
    try:
        durable.unlink(path)
    except OSError as error:
        _log.warning("a leftover of an association cannot be removed: %s", error.strerror)
