"""What there is to bring: listed once, in order, litter left out."""

from __future__ import annotations

import os
import pickle
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ingester.errors import IngesterError
from ingester.sniff import sniff
from ingester.spool import shown

T = TypeVar("T")

_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """A file to bring: where it is, what it is called there, its batch and its size."""

    path: Path
    name: str
    batch: str | None
    size_bytes: int = 0


class CannotRead(IngesterError):
    """One file cannot be brought, for a reason in a few words; the others can."""


class Scroll(Generic[T]):
    """A list that is too long for memory: kept in a file without a name, read in order.

    Parameters
    ----------
    folder : where that file lies; it is gone with this process
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - close() does
        self._count = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def append(self, record: T) -> None:
        """Put one at the end."""
        self._file.seek(0, os.SEEK_END)
        pickle.dump(record, self._file)
        self._count += 1

    def __iter__(self) -> Iterator[T]:
        """Iterate over them, in order."""
        self._file.seek(0)
        for _ in range(self._count):
            record: T = pickle.load(self._file)
            yield record

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def walk(
    paths: Iterable[Path],
    is_ignored: Callable[[str], bool],
    on_skipped: Callable[[Path, str], None],
) -> Iterator[Found]:
    """Yield the files at and below *paths*, in order; links and devices are told of.

    A folder that is named is a batch of its own name, as if it had been dropped.
    """
    for path in _once(paths, on_skipped):
        if path.is_dir():
            batch = shown(Path(os.path.abspath(path)).name) or None
            yield from _walk_folder(path, batch, is_ignored, on_skipped)
        elif path.is_file():
            yield Found(path, path.name, None, path.stat().st_size)
        else:
            on_skipped(path, "it is neither a file nor a folder")


def _once(paths: Iterable[Path], on_skipped: Callable[[Path, str], None]) -> Iterator[Path]:
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            on_skipped(path, "it was named twice")
        else:
            seen.add(real)
            yield path


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
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                on_skipped(Path(folder, name), "it is a link to a folder")
        for name in sorted(names):
            if is_ignored(name):
                continue
            path = Path(folder, name)
            try:
                status = path.lstat()
            except OSError as error:
                on_skipped(path, error.strerror or "it cannot be read")
                continue
            if not stat.S_ISREG(status.st_mode):
                on_skipped(path, "it is a link or a device, not a file")
                continue
            relative = os.path.relpath(path, top)
            called = f"{batch}/{relative}" if batch else relative
            yield Found(path, called, batch, status.st_size)


def is_foreign(path: Path) -> bool:
    """Return whether a file surely holds no DICOM, by its first bytes.

    Raises
    ------
    CannotRead : it cannot be read, or is gone
    """
    with reading(), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or sniff(head) == "foreign"


@contextmanager
def reading() -> Iterator[None]:
    """Tell errors of the file that is brought from those of the spool."""
    try:
        yield
    except FileNotFoundError:
        raise CannotRead("it is gone") from None
    except OSError as error:
        raise CannotRead(f"it cannot be read: {error.strerror}") from error
