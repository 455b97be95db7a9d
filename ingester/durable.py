"""Every effect that must survive: the only module that renames, links, unlinks, flushes.

Each function does one thing to the file system and announces it first to an
observer, so that a test can kill the program before the n-th effect or make it
fail with a chosen errno (`observe`).  Nothing here retries: a failed flush means
that the bytes are not durable, and asking again would be told a lie
(docs/reliability.md, "a failed fsync").

    fd = open(claimed); ...           read and check
    seal(fd, 0o440, when)             mode, time, flush of the data
    make_folders(root, parent)        every new folder's parent flushed
    link(claimed, final)              no-clobber; the name exists
    flush_folder(final.parent)        the name is durable
    effect("commit", index); COMMIT   the row
    unlink(claimed)                   forget
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

Observer = Callable[[str, str], None]

_observer: Observer | None = None

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call *observer* with (effect, path) before each effect, for the fault tests."""
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def effect(name: str, path: Path | str) -> None:
    """Announce an effect that is about to happen.

    Called here before every system call, and by the index before COMMIT.
    """
    if _observer is not None:
        _observer(name, os.fspath(path))


def rename(old: Path | str, new: Path | str) -> None:
    """Rename without replacing: `FileExistsError` where *new* exists already."""
    effect("rename", new)
    result = _libc.renameat2(
        _AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE
    )
    if result == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), os.fspath(old), None, os.fspath(new))
    # File systems without RENAME_NOREPLACE (some FUSE, NFS): names are unique by
    # construction wherever we rename, so the look before the leap is a safety net.
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(new))
    os.rename(old, new)


def replace(old: Path, new: Path) -> None:
    """Rename, replacing *new*: for derivatives and our own small files only."""
    effect("replace", new)
    os.replace(old, new)


def link(old: Path | str, new: Path | str) -> None:
    """Give the file a second name; `FileExistsError` where *new* exists already."""
    effect("link", new)
    os.link(old, new, follow_symlinks=False)


def symlink(target: str, path: Path) -> None:
    """Make a symbolic link that must not exist yet; what it names is never looked at."""
    effect("symlink", path)
    os.symlink(target, path)


def unlink(path: Path) -> None:
    """Remove one name; a name that is gone already is fine (replay)."""
    effect("unlink", path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_folder(path: Path) -> bool:
    """Remove an empty folder; False where it is not empty or gone already."""
    effect("rmdir", path)
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
            return False
        raise
    return True


def make_folder(path: Path, mode: int) -> bool:
    """Make one folder; False where it was there already."""
    effect("mkdir", path)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return False
    return True


def make_folders(root: Path, folder: Path, mode: int) -> list[Path]:
    """Make *folder* and what is missing between it and *root*.

    Returns the folders whose listing changed (parents of new ones): flush them
    before anything is promised about what lies below.  *root* itself must exist:
    a mount point that is not mounted is never filled.
    """
    changed: list[Path] = []
    missing: list[Path] = []
    here = folder
    while here != root and not here.is_dir():
        missing.append(here)
        here = here.parent
    for each in reversed(missing):
        if make_folder(each, mode):
            changed.append(each.parent)
    return changed


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    effect("fsync-folder", path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def deepest_first(folders: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield folders to flush, those of one depth together, the deepest first.

    A folder's own name is durable when its parent is flushed, so its contents come first.
    """

    def height(folder: Path) -> int:
        return -len(folder.parts)

    for _, level in groupby(sorted(folders, key=height), key=height):
        yield list(level)


def flush_file(descriptor: int, path: Path) -> None:
    """Make a file's bytes and size durable.

    Mode and times alone would cost a commit of the file system's journal per file;
    they become durable with the folder's flush that always follows.
    """
    effect("fsync-file", path)
    os.fdatasync(descriptor)


def seal(descriptor: int, path: Path, *, mode: int, mtime_ns: int | None) -> None:
    """Set mode and modification time (ns since 1970) of an open file; no flush."""
    effect("seal", path)
    os.fchmod(descriptor, mode)
    if mtime_ns is not None:
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))


def create(path: Path, mode: int) -> int:
    """Create a file that must not exist yet; returns a descriptor to write to."""
    effect("create", path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode)


def write(descriptor: int, data: bytes | memoryview, path: Path) -> None:
    """Write all of *data*."""
    effect("write", path)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(path: Path, data: bytes | Iterable[bytes], mode: int) -> None:
    """Write a new file and flush its bytes; the name needs `flush_folder`."""
    descriptor = create(path, mode)
    try:
        for piece in [data] if isinstance(data, bytes) else data:
            write(descriptor, piece, path)
        flush_file(descriptor, path)
    finally:
        os.close(descriptor)


def unfinished(path: Path) -> Path:
    """Return where `replace_file` writes before the file gets its name."""
    return path.with_name(f".{path.name}.new")


def replace_file(path: Path, data: bytes | Iterable[bytes], mode: int) -> None:
    """Put *data* under *path* as a whole or not at all, durably.

    One writer per path: what an interrupted earlier call left beside it is removed.
    """
    aside = unfinished(path)
    unlink(aside)
    try:
        write_file(aside, data, mode)
        replace(aside, path)
    except BaseException:
        unlink(aside)
        raise
    flush_folder(path.parent)
