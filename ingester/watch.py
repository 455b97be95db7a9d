"""Noticing that something was dropped: events wake, the look decides.

A watch never says *what* arrived; it rings the main loop, which lists the folders.
A lost event, an overflow or a mount without events is thus only a little latency,
bounded by the periodic look.  Folders on local file systems are watched by inotify
(watchdog); on network mounts, whose servers tell nobody, the folders' modification
times are asked every few seconds.  Which it is, is decided for each mount.

    watcher = Watcher([Folder(spool, 5.0)], choice="auto", on_event=wake.set)
    watcher.refresh()                 watches first, then the first look
    loop: wake or watcher.poll(now) -> look;  watcher.needs_refresh -> refresh()

Our own folders (`.claimed`, `.receiving`, `quarantine`) are not watched, and of the
events only those are asked for that mean new content: our own reading would
otherwise wake us for ever.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
)
from watchdog.observers import Observer

from ingester.polling import PolledTree, is_watched

log = logging.getLogger(__name__)

Choice = Literal["auto", "native", "poll"]
How = Literal["native", "poll"]

#: File systems whose changes may be made by another machine, unseen by this kernel.
_NETWORK = {"afs", "ceph", "cifs", "davfs", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs"}
_CLUSTER = {"beegfs", "gpfs", "lustre", "orangefs"}
_FROM_A_HOST = {"9p", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"}
_REMOTE = _NETWORK | _CLUSTER | _FROM_A_HOST

#: One thread each is spent on so many folders below a drop folder; the rest are polled.
_MOST_NATIVE_CHILDREN = 64

_NEW_CONTENT: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
]


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system, as /proc/self/mountinfo names it."""

    path: Path
    file_system: str
    options: frozenset[str] = frozenset()  # of the mount, and of the file system

    @property
    def is_remote(self) -> bool:
        """Return whether others may change it without this kernel's knowledge."""
        # fuseblk is a local disk (NTFS); every other FUSE may be anything.
        return self.file_system in _REMOTE or (
            self.file_system.split(".")[0] == "fuse" and self.file_system != "fuseblk"
        )


def read_mounts(mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Mount]:
    """List the mounts of this process, the later over the earlier."""
    mounts = []
    for line in mountinfo.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        fields, (kind, *rest) = before.split(b" "), after.split(b" ")
        path = fields[4].decode("unicode_escape").encode("latin-1")
        options = os.fsdecode(b",".join([fields[5], *rest[1:]])).split(",")
        mounts.append(Mount(Path(os.fsdecode(path)), os.fsdecode(kind), frozenset(options)))
    return mounts


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount:
    """Return the mount that *path* (without symbolic links) lies on."""
    found = Mount(Path("/"), "unknown")
    for mount in mounts:
        if path.is_relative_to(mount.path) and len(mount.path.parts) >= len(found.path.parts):
            found = mount
    return found


@dataclass(frozen=True, slots=True)
class Folder:
    """A drop folder to watch: the spool, or a share, and how often to ask if polled."""

    path: Path
    poll_seconds: float


@dataclass(frozen=True, slots=True)
class Watched:
    """How one folder is watched, for people."""

    path: Path
    how: How
    file_system: str
    note: str = ""


class Watcher:
    """Watches drop folders and says "look"; see the module's own words."""

    def __init__(
        self, folders: Sequence[Folder], *, choice: Choice, on_event: Callable[[], None]
    ) -> None:
        self._folders = [
            Folder(Path(os.path.realpath(each.path)), each.poll_seconds) for each in folders
        ]
        self._choice = choice
        self._on_event = on_event
        self._native = _Native(self._heard)
        self._polled: dict[Path, PolledTree] = {}
        self._watched: list[Watched] = []
        self._said: set[str] = set()
        self.needs_refresh = True

    @property
    def watched(self) -> Sequence[Watched]:
        """Return how each folder is watched, as of the last refresh."""
        return tuple(self._watched)

    def refresh(self) -> None:
        """Watch what is there now: new folders, other mounts, watches that died.

        Call it before the first look, when `needs_refresh`, and before every
        periodic look.  A folder that cannot be watched by events is polled, and why
        is said once.
        """
        self.needs_refresh = False
        mounts = read_mounts()
        wanted: dict[Path, bool] = {}  # path -> recursive
        polled: dict[Path, PolledTree] = {}
        self._watched = []
        for folder in self._folders:
            below = {
                mount.path
                for mount in mounts
                if folder.path in mount.path.parents
                and is_watched(mount.path.relative_to(folder.path).parts[0])
            }
            for point in (folder.path, *sorted(below)):
                mount = mount_of(point, mounts)
                if self._is_polled(mount):
                    polled[point] = self._tree(point, folder.poll_seconds)
                    self._watched.append(Watched(point, "poll", mount.file_system))
                else:
                    self._add_native(point, folder, mount, below, wanted, polled)
        for path, trouble in self._native.reconcile(wanted).items():
            polled[path] = self._tree(path, self._folders[0].poll_seconds)
            self._say(f"{path} cannot be watched by events and is polled: {trouble}")
        self._polled = polled
        if wanted and not watches_left(self._folders[0].path):
            self._fall_back(wanted)

    def _is_polled(self, mount: Mount) -> bool:
        return self._choice == "poll" or (self._choice == "auto" and mount.is_remote)

    def _add_native(
        self,
        point: Path,
        folder: Folder,
        mount: Mount,
        below: set[Path],
        wanted: dict[Path, bool],
        polled: dict[Path, PolledTree],
    ) -> None:
        """Watch a folder's own entries, and each folder in it with all below it.

        One recursive watch of the whole would also watch our own folders, whose
        thousands of renames would then be the kernel's and Python's main work.
        """
        wanted[point] = False
        children = [child for child in _folders_in(point) if child not in below]
        for child in children[:_MOST_NATIVE_CHILDREN]:
            wanted[child] = True
        for child in children[_MOST_NATIVE_CHILDREN:]:
            polled[child] = self._tree(child, folder.poll_seconds)
        self._watched.append(Watched(point, "native", mount.file_system))

    def _fall_back(self, wanted: Iterable[Path]) -> None:
        """Poll beside the watches: the kernel gives out no more of them.

        watchdog says nothing where a folder below the first could not be watched
        (7.1.0, `InotifyWatchGroup._add_callback`), so the limit itself is asked.
        """
        note = (
            "no inotify watches are left, so folders are polled as well; to mend: "
            "sysctl fs.inotify.max_user_watches=524288"
        )
        self._say(note)
        for path in wanted:
            self._polled.setdefault(path, self._tree(path, self._folders[0].poll_seconds))
        self._watched = [
            each if each.how == "poll" else Watched(each.path, "poll", each.file_system, note)
            for each in self._watched
        ]

    def poll(self, now: float) -> bool:
        """Ask the polled folders that are due; True where a look is worth it."""
        answers = [tree.look(now) for tree in self._polled.values()]
        return any(answers) or self._native.take_overflow()

    def next_poll(self) -> float | None:
        """Return when `poll` is due next (monotonic), None where nothing is polled."""
        return min((tree.due_at for tree in self._polled.values()), default=None)

    def close(self) -> None:
        """Stop watching."""
        self._native.close()
        self._polled.clear()

    def _tree(self, path: Path, seconds: float) -> PolledTree:
        known = self._polled.get(path)
        return known if known is not None else PolledTree(path, seconds)

    def _heard(self, *, is_new_folder: bool) -> None:
        self.needs_refresh = self.needs_refresh or is_new_folder
        self._on_event()

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning("%s", sentence)


def _folders_in(point: Path) -> list[Path]:
    try:
        with os.scandir(point) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and is_watched(entry.name)
            )
    except OSError:
        return []  # not there or not readable: the look says so in `troubles`


class _Handler:
    """Turns watchdog's events into "look"; watchdog asks for `dispatch` alone."""

    def __init__(self, heard: Callable[..., None], top: Path | None) -> None:
        self._heard = heard
        self._top = None if top is None else os.fspath(top)

    def dispatch(self, event: FileSystemEvent) -> None:
        """Ring, unless one of our own names at the top of a drop folder changed."""
        path = os.fsdecode(event.dest_path or event.src_path)
        if self._top is not None:
            name = os.path.relpath(path, self._top).split(os.sep)[0]
            if not is_watched(name):
                return
        self._heard(is_new_folder=self._top is not None and event.is_directory)


class _Overflow(logging.Handler):
    """Hears watchdog's one word about lost events: its warning.

    7.1.0 logs IN_Q_OVERFLOW, rebuilds its watches, drops what it had not yet passed
    on, and tells the handler of none of it (`InotifyFD.handle_event`).
    """

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_overflow = on_overflow

    def emit(self, record: logging.LogRecord) -> None:
        """Ring where the warning is about an overflow."""
        if "overflow" in record.getMessage().lower():
            self._on_overflow()


class _Native:
    """The watchdog observer, started with the first folder that wants it."""

    def __init__(self, heard: Callable[..., None]) -> None:
        self._heard = heard
        self._observer: Any = None  # watchdog's; started with the first watch
        self._watches: dict[Path, _Watch] = {}
        self._was_lost = False
        self._overflow = _Overflow(self._lost)
        logging.getLogger("watchdog").addHandler(self._overflow)

    def _lost(self) -> None:
        # The watches are rebuilt after the warning, so one more look follows later.
        self._was_lost = True
        self._heard(is_new_folder=True)

    def take_overflow(self) -> bool:
        """Return, once, whether events were lost since the last question."""
        was_lost, self._was_lost = self._was_lost, False
        return was_lost

    def reconcile(self, wanted: dict[Path, bool]) -> dict[Path, str]:
        """Watch exactly *wanted* (path → recursive); return what cannot be, and why."""
        for path, watch in list(self._watches.items()):
            if wanted.get(path) is not watch.is_recursive or not watch.is_alive():
                self._observer.unschedule(watch.observed)
                del self._watches[path]
        troubles: dict[Path, str] = {}
        for path, is_recursive in wanted.items():
            if path not in self._watches:
                try:
                    self._watches[path] = self._watch(path, is_recursive=is_recursive)
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        troubles[path] = str(error.strerror or error)
        return troubles

    def _watch(self, path: Path, *, is_recursive: bool) -> _Watch:
        if self._observer is None:
            _take_moves_apart()
            self._observer = Observer()
            self._observer.start()
        status = os.stat(path)
        observed = self._observer.schedule(
            _Handler(self._heard, None if is_recursive else path),
            os.fspath(path),
            recursive=is_recursive,
            event_filter=_NEW_CONTENT,
        )
        emitter = next(each for each in self._observer.emitters if each.watch == observed)
        return _Watch(path, is_recursive, observed, emitter, (status.st_dev, status.st_ino))

    def close(self) -> None:
        """Stop the observer's threads."""
        logging.getLogger("watchdog").removeHandler(self._overflow)
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None
        self._watches.clear()


def _take_moves_apart() -> None:
    """Let watchdog pass events on at once.

    It holds back whatever follows the first half of a move for half a second, in case
    the other half comes; each of our own claims is such a first half.  Pairs are
    nothing to us.
    """
    try:
        from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper as Held
    except ImportError:  # watchdog before 7
        from watchdog.observers.inotify_buffer import InotifyBuffer as Held
    Held.delay = 0.0
    # A folder renamed within the tree is then watched twice by one watch: no matter.
    warnings.filterwarnings("ignore", r"Callback with id", RuntimeWarning, r"watchdog\.")


@dataclass(frozen=True, slots=True)
class _Watch:
    path: Path
    is_recursive: bool
    observed: Any  # watchdog's handle of the watch
    emitter: Any  # watchdog's thread that serves it
    identity: tuple[int, int]

    def is_alive(self) -> bool:
        """Return whether the watch still watches the folder that bears its name."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return bool(self.emitter.is_alive()) and self.identity == (status.st_dev, status.st_ino)


def watches_left(folder: Path) -> bool:
    """Try whether the kernel gives out another inotify watch to this user."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        # EMFILE: the instances are used up, not the watches; ours exists already.
        return True
    try:
        in_create = 0x100
        watch = libc.inotify_add_watch(descriptor, os.fsencode(folder), in_create)
        return bool(watch >= 0 or ctypes.get_errno() != errno.ENOSPC)
    finally:
        os.close(descriptor)
