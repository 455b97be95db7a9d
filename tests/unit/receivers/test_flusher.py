from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from ingester.receivers.flusher import FlushTimeoutError, FolderFlusher


class Disk:
    """A disk whose flushes are let through one at a time."""

    def __init__(self) -> None:
        self.flushed: list[str] = []
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.error: OSError | None = None

    def flush(self, folder: Path) -> None:
        self.flushed.append(folder.name)
        self.began.release()
        self.may_end.acquire()
        if self.error is not None:
            raise self.error


class Waiter(threading.Thread):
    def __init__(self, flusher: FolderFlusher, folder: str) -> None:
        super().__init__()
        self._flusher = flusher
        self._folder = Path(folder)
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._flusher.flush(self._folder)
        except OSError as error:
            self.error = error


def joined(flusher: FolderFlusher, count: int) -> None:
    """Wait until *count* threads wait for the next flush."""
    while len(flusher._changed._waiters) < count:  # type: ignore[attr-defined]  # CPython's own list
        pass


def test_who_comes_during_a_flush_shares_the_next_one() -> None:
    disk = Disk()
    flusher = FolderFlusher(flush=disk.flush)
    first = Waiter(flusher, "a")
    disk.began.acquire()
    later = [Waiter(flusher, "a") for _ in range(8)]
    joined(flusher, 8)
    disk.may_end.release()
    first.join()
    disk.began.acquire()
    assert all(each.is_alive() for each in later)
    disk.may_end.release()
    for each in later:
        each.join()
    assert disk.flushed == ["a", "a"]


def test_folders_do_not_wait_for_each_other() -> None:
    disk = Disk()
    flusher = FolderFlusher(flush=disk.flush)
    waiters = [Waiter(flusher, "a"), Waiter(flusher, "b")]
    disk.began.acquire()
    disk.began.acquire()
    disk.may_end.release(2)
    for each in waiters:
        each.join()


def test_a_failed_flush_is_everybodys() -> None:
    disk = Disk()
    flusher = FolderFlusher(flush=disk.flush)
    first = Waiter(flusher, "a")
    disk.began.acquire()
    later = [Waiter(flusher, "a") for _ in range(3)]
    joined(flusher, 3)
    disk.may_end.release()
    first.join()
    disk.began.acquire()
    disk.error = OSError(errno.EIO, "broken")
    disk.may_end.release()
    for each in later:
        each.join()
    assert first.error is None
    assert [each.error and each.error.errno for each in later] == [errno.EIO] * 3


def test_nobody_waits_longer_than_a_sender_would() -> None:
    disk = Disk()
    flusher = FolderFlusher(patience=0.05, flush=disk.flush)
    first = Waiter(flusher, "a")
    disk.began.acquire()
    with pytest.raises(FlushTimeoutError):
        flusher.flush(Path("a"))
    disk.may_end.release()
    first.join()
