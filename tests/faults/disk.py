"""A disk that forgets: every state that a power cut may leave behind.

`Recorder` stands between the program and the file system of one folder and writes down
every call that changes it, in order, while the calls themselves go through.  `Disk`
replays such a trace and knows at each moment what is durable and what the kernel still
only promised; from that it makes the states that a power cut at this moment may leave.

What is durable, and what a power cut may do to the rest (POSIX's promise, as strict as
journaling file systems keep it; ext4 and XFS promise more):

* a file's bytes and size: after a flush of that file.  Before, any of: as of the last
  flush, as written, zeros of that length, cut in the middle;
* a name (made, removed, renamed): after a flush of a folder that it changes.  Before,
  any subset of the changes is there, but those to one name keep their order, a rename is
  there as a whole or not at all, whatever folders it joins, and nothing is moved into a
  folder that is not there (it would have no name at all, which no file system allows);
* mode and time of a file: after a flush of the file or of any folder since;
* a commit of the index: at once, where the index has a name (SQLite flushes its log in
  every COMMIT, and is believed; what it does with a torn log is its own tests' business).
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from ingester import durable

ROOT = 0  # the number of the folder that is watched

DataLoss = Literal["none", "all", "zeros", "torn"]
LOSSES: tuple[DataLoss, ...] = ("none", "all", "zeros", "torn")


# -- what was done -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Names:
    """Names that change together: (folder, name, what it names now or None)."""

    changes: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A new file, folder or link comes into being, still without a name."""

    number: int
    kind: Literal["file", "folder", "link"]
    mode: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes are written to a file."""

    number: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file gets another mode or time."""

    number: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """A file or folder was flushed; `where` names the function that asked for it."""

    number: int
    where: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The index holds this now."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Promised:
    """Somebody was told that something is safe."""

    what: str


Step = Names | Made | Written | Sealed | Flushed | Committed | Promised


@dataclass(slots=True)
class Base:
    """What lay in the folder before, all of it durable."""

    made: list[Made]
    names: list[Names]
    contents: dict[int, bytes]
    sealed: list[Sealed]
    index: bytes = b""


@dataclass(slots=True)
class Trace:
    """A folder as it was, and every step since."""

    base: Base
    steps: list[Step] = field(default_factory=list)

    def flushes(self) -> set[str]:
        """Return every place in the program that flushed something."""
        return {step.where for step in self.steps if isinstance(step, Flushed)}


class Recorder:
    """Writes down what happens below *root*; everything that lies there now is durable.

    *index* is left to SQLite: only its commits are noted.
    """

    def __init__(self, root: Path, index: Path) -> None:
        self._root = os.fspath(root)
        self._index = os.fspath(index)
        self._lock = threading.RLock()
        self._listing: dict[int, dict[str, int]] = {ROOT: {}}
        self._descriptors: dict[int, tuple[int, list[int]]] = {}
        self._next = ROOT
        self._committing: int | None = None
        self._content = b""
        self.trace = Trace(Base([], [], {}, []))
        self._read_base(ROOT, self._root)
        self.trace.base.index = self._content = self._read_index()

    def promise(self, what: str) -> None:
        """Note that somebody was told so, at this moment."""
        with self._lock:
            self._note_commit()
            self.trace.steps.append(Promised(what))

    @contextmanager
    def watching(self) -> Iterator[Recorder]:
        """Record, until the block ends."""
        calls: dict[str, Callable[..., Any]] = {
            "open": self._open, "close": self._close, "write": self._write,
            "fsync": self._flush, "fdatasync": self._flush, "link": self._link,
            "rename": self._rename, "replace": self._rename, "unlink": self._unlink,
            "remove": self._unlink, "rmdir": self._unlink, "mkdir": self._mkdir,
            "symlink": self._symlink, "fchmod": self._seal, "chmod": self._seal,
            "utime": self._seal,
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
            for name, call in calls.items():
                patch.setattr(os, name, _wrapped(call, getattr(os, name)))
            patch.setattr(durable, "_libc", _Libc(self, durable._libc))
            stack.enter_context(durable.observe(self._observe))
            yield self
        with self._lock:
            self._note_commit()

    # ------------------------------------------------------------- what is there already

    def _read_base(self, number: int, folder: str) -> None:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if entry.path.startswith(self._index + "-"):
                continue  # SQLite's own
            status = entry.stat(follow_symlinks=False)
            each = self._new()
            kind, target = _kind(status.st_mode), ""
            if kind == "link":
                target = os.readlink(entry.path)
            base = self.trace.base
            base.made.append(Made(each, kind, stat.S_IMODE(status.st_mode), target))
            base.names.append(Names(((number, entry.name, each),)))
            self._listing[number][entry.name] = each
            if kind == "folder":
                self._listing[each] = {}
                self._read_base(each, entry.path)
            elif kind == "file":
                if entry.path != self._index:
                    base.contents[each] = Path(entry.path).read_bytes()
                base.sealed.append(Sealed(each, stat.S_IMODE(status.st_mode), status.st_mtime_ns))

    def _new(self) -> int:
        self._next += 1
        return self._next

    # ----------------------------------------------------------------------- the index

    def _observe(self, effect: str, path: str) -> None:
        with self._lock:
            self._note_commit()
            if effect == "commit" and path == self._index:
                self._committing = threading.get_ident()

    def _note_commit(self) -> None:
        """Look at the index, once the thread that committed has come to its next step."""
        if self._committing != threading.get_ident():
            return
        self._committing = None
        content = self._read_index()
        if content != self._content:
            self._content = content
            self.trace.steps.append(Committed(content))

    def _read_index(self) -> bytes:
        if not os.path.exists(self._index) or not os.path.getsize(self._index):
            return b""
        with closing(sqlite3.connect(f"file:{self._index}?mode=ro", uri=True)) as connection:
            return connection.serialize()

    # ------------------------------------------------------------------------ the calls

    def _place(self, path: Any) -> tuple[int, str] | None:
        """Return (folder, name) of a path below the root, None of any other."""
        if isinstance(path, int):
            return None
        text = os.fsdecode(path)
        if not text.startswith(self._root + "/") or text.startswith(self._index + "-"):
            return None
        *above, name = text[len(self._root) + 1 :].split("/")
        here = ROOT
        for part in above:
            if part not in self._listing[here]:
                return None
            here = self._listing[here][part]
        return here, name

    def _number(self, path: Any) -> int | None:
        if isinstance(path, int):
            return self._descriptors[path][0] if path in self._descriptors else None
        if os.fsdecode(path) == self._root:
            return ROOT
        place = self._place(path)
        return None if place is None else self._listing[place[0]].get(place[1])

    def _add(self, *steps: Step) -> None:
        self._note_commit()
        self.trace.steps.extend(steps)

    def _open(
        self, real: Callable[..., int], path: Any, flags: int, *rest: Any, **named: Any
    ) -> int:
        with self._lock:
            number = self._number(path)
            descriptor = real(path, flags, *rest, **named)
            place = self._place(path)
            if number is None and place is not None and flags & os.O_CREAT:
                number = self._new()
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                self._listing[place[0]][place[1]] = number
                self._add(Made(number, "file", mode), Names(((*place, number),)))
            if number is not None:
                assert not flags & (os.O_APPEND | os.O_TRUNC), "not modelled"
                self._descriptors[descriptor] = (number, [0])
            return descriptor

    def _close(self, real: Callable[..., None], descriptor: int) -> None:
        with self._lock:
            self._descriptors.pop(descriptor, None)
            real(descriptor)

    def _write(self, real: Callable[..., int], descriptor: int, data: Any) -> int:
        with self._lock:
            count = real(descriptor, data)
            if descriptor in self._descriptors:
                number, at = self._descriptors[descriptor]
                self._add(Written(number, at[0], bytes(data[:count])))
                at[0] += count
            return count

    def _flush(self, real: Callable[..., None], descriptor: int) -> None:
        with self._lock:
            real(descriptor)
            if descriptor in self._descriptors:
                self._add(Flushed(self._descriptors[descriptor][0], _caller()))

    def _link(self, real: Callable[..., None], old: Any, new: Any, **named: Any) -> None:
        with self._lock:
            number, place = self._number(old), self._place(new)
            real(old, new, **named)
            if place is not None:
                assert number is not None, "a link from outside is not modelled"
                self._listing[place[0]][place[1]] = number
                self._add(Names(((*place, number),)))

    def _rename(self, real: Callable[..., Any], old: Any, new: Any, **named: Any) -> Any:
        with self._lock:
            was, number, will = self._place(old), self._number(old), self._place(new)
            result = real(old, new, **named)
            if result is None or result == 0:
                self._renamed(was, number, will)
            return result

    def _renamed(
        self, was: tuple[int, str] | None, number: int | None, will: tuple[int, str] | None
    ) -> None:
        if was is None and will is None:
            return
        assert was is not None
        assert will is not None, "a rename across the border is not modelled"
        del self._listing[was[0]][was[1]]
        assert number is not None
        self._listing[will[0]][will[1]] = number
        self._add(Names(((*will, number), (*was, None))))

    def _unlink(self, real: Callable[..., None], path: Any, **named: Any) -> None:
        with self._lock:
            place = self._place(path)
            real(path, **named)
            if place is not None:
                assert not named, "a removal through a folder's descriptor is not modelled"
                del self._listing[place[0]][place[1]]
                self._add(Names(((*place, None),)))

    def _mkdir(self, real: Callable[..., None], path: Any, *rest: Any, **named: Any) -> None:
        with self._lock:
            place = self._place(path)
            real(path, *rest, **named)
            if place is not None:
                number = self._new()
                self._listing[place[0]][place[1]] = number
                self._listing[number] = {}
                mode = stat.S_IMODE(os.lstat(path).st_mode)
                self._add(Made(number, "folder", mode), Names(((*place, number),)))

    def _symlink(self, real: Callable[..., None], target: Any, path: Any) -> None:
        with self._lock:
            place = self._place(path)
            real(target, path)
            if place is not None:
                number = self._new()
                self._listing[place[0]][place[1]] = number
                made = Made(number, "link", 0o777, os.fsdecode(target))
                self._add(made, Names(((*place, number),)))

    def _seal(self, real: Callable[..., None], path: Any, *rest: Any, **named: Any) -> None:
        with self._lock:
            real(path, *rest, **named)
            number = self._number(path)
            if number is not None:
                status = os.stat(path)
                self._add(Sealed(number, stat.S_IMODE(status.st_mode), status.st_mtime_ns))


class _Libc:
    """The C library, its `renameat2` recorded."""

    def __init__(self, recorder: Recorder, real: Any) -> None:
        self._recorder = recorder
        self._real = real

    def renameat2(self, _old: int, old: bytes, _new: int, new: bytes, flags: int) -> int:
        """Rename without replacing, as the program asks for it."""

        def real(one: bytes, other: bytes) -> int:
            return int(self._real.renameat2(_old, one, _new, other, flags))

        return int(self._recorder._rename(real, old, new))


def _wrapped(call: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
    def recorded(*arguments: Any, **named: Any) -> Any:
        return call(real, *arguments, **named)

    return recorded


def _kind(mode: int) -> Literal["file", "folder", "link"]:
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "file"


def _caller() -> str:
    """Return which function of the program asks for a flush."""
    frame = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("ingester.") and module != "ingester.durable":
            return f"{module.removeprefix('ingester.')}:{frame.f_code.co_name}"
        assert frame.f_back is not None, "nobody of ours asks for this flush"
        frame = frame.f_back
    raise AssertionError("unreachable")


# -- what is left of it --------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    kind: str
    target: str
    mode: int
    saved_mode: int
    mtime_ns: int = 0
    saved_mtime_ns: int = 0
    written: bytes = b""
    saved: bytes = b""
    listing: dict[str, int] = field(default_factory=dict)  # durable

    @property
    def is_dirty(self) -> bool:
        return self.written != self.saved


@dataclass(frozen=True, slots=True)
class State:
    """One thing that a power cut may leave: which pending names came through, and bytes."""

    kept: frozenset[int]  # positions in the pending names
    loss: DataLoss
    keeps_seals: bool


class Disk:
    """What is durable after the first n steps of a trace, and what is only promised.

    Parameters
    ----------
    forgotten : a place in the program whose flushes do nothing: to see whether they are needed
    is_fresh : what lay there before has durable names, but its bytes were just written by
        somebody who flushed nothing
    """

    def __init__(
        self, trace: Trace, index: str, *, forgotten: str | None = None, is_fresh: bool = False
    ) -> None:
        self._steps = trace.steps
        self._index = index.split("/")
        self._forgotten = forgotten
        self._nodes = {ROOT: _Node("folder", "", 0o755, 0o755)}
        self._pending: list[Names] = []
        self.content = trace.base.index  # of the index, as last committed
        self.promises: list[str] = []
        self.at = 0
        for made in trace.base.made:
            self._make(made)
        for names in trace.base.names:
            self._apply(names, {number: node.listing for number, node in self._nodes.items()})
        for number, content in trace.base.contents.items():
            self._nodes[number].written = content
            self._nodes[number].saved = b"" if is_fresh else content
        for sealed in trace.base.sealed:
            self._seal(sealed)
        self._save_seals()

    def step(self) -> Step | None:
        """Take one step; returns it, None at the end of the trace."""
        if self.at == len(self._steps):
            return None
        step = self._steps[self.at]
        self.at += 1
        if isinstance(step, Made):
            self._make(step)
        elif isinstance(step, Names):
            self._pending.append(step)
        elif isinstance(step, Written):
            node = self._nodes[step.number]
            head = node.written[: step.offset].ljust(step.offset, b"\0")
            node.written = head + step.data + node.written[step.offset + len(step.data) :]
        elif isinstance(step, Sealed):
            self._seal(step)
        elif isinstance(step, Flushed):
            if step.where != self._forgotten:
                self._flush(step.number)
        elif isinstance(step, Committed):
            self.content = step.content
        else:
            self.promises.append(step.what)
        return step

    def _make(self, made: Made) -> None:
        self._nodes[made.number] = _Node(made.kind, made.target, made.mode, made.mode)

    def _seal(self, sealed: Sealed) -> None:
        node = self._nodes[sealed.number]
        node.mode, node.mtime_ns = sealed.mode, sealed.mtime_ns

    def _save_seals(self) -> None:
        for node in self._nodes.values():
            node.saved_mode, node.saved_mtime_ns = node.mode, node.mtime_ns

    @staticmethod
    def _apply(names: Names, listings: dict[int, dict[str, int]]) -> None:
        for folder, name, number in names.changes:
            if number is None:
                listings[folder].pop(name, None)
            else:
                listings[folder][name] = number

    def _flush(self, number: int) -> None:
        node = self._nodes[number]
        if node.kind == "file":
            node.saved = node.written
            node.saved_mode, node.saved_mtime_ns = node.mode, node.mtime_ns
            return
        touching = [
            position
            for position, names in enumerate(self._pending)
            if any(folder == number for folder, _, _ in names.changes)
        ]
        durable_now = self.closed(touching)
        listings = {each: found.listing for each, found in self._nodes.items()}
        for position in sorted(durable_now):
            self._apply(self._pending[position], listings)
        self._pending = [
            names for position, names in enumerate(self._pending) if position not in durable_now
        ]
        self._save_seals()

    def closed(self, kept: Collection[int]) -> frozenset[int]:
        """Add what must have come through before.

        That is earlier changes to the same names, and the folders that things were moved into.
        """
        closed = set(kept)
        names: set[tuple[int, str]] = set()
        homes: set[int] = set()
        for position in range(len(self._pending) - 1, -1, -1):
            changes = self._pending[position].changes
            touched = {(folder, name) for folder, name, _ in changes}
            is_home = any(number in homes for _, _, number in changes)
            if position in closed or touched & names or is_home:
                closed.add(position)
                names |= touched
                if len(changes) > 1 or is_home:
                    homes |= {folder for folder, _, number in changes if number is not None}
        return frozenset(closed)

    # ------------------------------------------------------------------- what may be left

    def states(
        self, chance: random.Random, most: int, is_wanted: Callable[[State], bool]
    ) -> Iterator[State]:
        """Yield wanted states that a power cut now may leave: the telling ones first."""
        everything = range(len(self._pending))
        losses = LOSSES if any(node.is_dirty for node in self._nodes.values()) else ("none",)
        wanted: list[Sequence[int]] = [[], everything]
        wanted += [everything[:length] for length in everything[1:]]
        wanted += [[position] for position in everything]
        wanted += [[each for each in everything if each != left] for left in everything]
        seen: set[State] = set()
        for number in range(4 * most):
            if number < len(wanted):
                kept = wanted[number]
            else:
                kept = [
                    each for each in everything if chance.random() < chance.choice((0.2, 0.5, 0.8))
                ]
            for loss in losses if number < 2 else (chance.choice(losses),):
                state = State(self.closed(kept), loss, chance.random() < 0.5)
                if state not in seen and is_wanted(state):
                    seen.add(state)
                    yield state
                if len(seen) >= most:
                    return

    def is_possible(self, state: State, elsewhere: Disk) -> bool:
        """Return whether this disk too could be left as *elsewhere*, which forgot flushes.

        Both have taken the same steps.
        """
        pending = {id(names) for names in self._pending}
        for position, names in enumerate(elsewhere._pending):
            if position not in state.kept and id(names) not in pending:
                return False  # undone there, durable here
        for number, node in elsewhere._nodes.items():
            mine = self._nodes[number]
            if not mine.is_dirty and elsewhere._bytes(node, state) != node.written:
                return False
            saved = (node.saved_mode, node.saved_mtime_ns)
            if not state.keeps_seals and saved != (mine.saved_mode, mine.saved_mtime_ns):
                return False
        return True

    def _listings(self, state: State) -> dict[int, dict[str, int]]:
        listings = {number: dict(node.listing) for number, node in self._nodes.items()}
        for position in sorted(state.kept):
            self._apply(self._pending[position], listings)
        return listings

    def _bytes(self, node: _Node, state: State) -> bytes:
        if not node.is_dirty or state.loss == "none":
            return node.written
        if state.loss == "all":
            return node.saved
        if state.loss == "zeros":
            return bytes(len(node.written))
        return node.written[: len(node.written) // 2]

    def fingerprint(self, state: State) -> bytes:
        """Return what tells two states apart."""
        digest = hashlib.sha256(self.content)
        listings = self._listings(state)

        def add(number: int, path: str) -> None:
            node = self._nodes[number]
            mode = node.mode if state.keeps_seals else node.saved_mode
            digest.update(f"{path}\0{number}\0{mode}\0".encode("utf-8", "surrogateescape"))
            if node.kind == "file":
                digest.update(self._bytes(node, state))
            for name, each in sorted(listings[number].items()):
                add(each, f"{path}/{name}")

        add(ROOT, "")
        return digest.digest()

    def write(self, state: State, root: Path) -> None:
        """Make the state below *root*, a folder that does not exist yet."""
        listings = self._listings(state)
        made: dict[int, Path] = {}
        os.mkdir(root)
        waiting = [(ROOT, root)]
        while waiting:
            number, here = waiting.pop()
            for name, each in listings[number].items():
                path = here / name
                node = self._nodes[each]
                mode = node.mode if state.keeps_seals else node.saved_mode
                if node.kind == "folder":
                    assert each not in made, "a folder under two names"
                    os.mkdir(path)
                    waiting.append((each, path))
                elif each in made:
                    os.link(made[each], path)
                elif node.kind == "link":
                    os.symlink(node.target, path)
                else:
                    path.write_bytes(self._bytes(node, state))
                    mtime_ns = node.mtime_ns if state.keeps_seals else node.saved_mtime_ns
                    os.utime(path, ns=(mtime_ns, mtime_ns))
                if node.kind != "link":
                    os.chmod(path, mode)
                made[each] = path
        index = root.joinpath(*self._index)
        if index.exists():
            index.write_bytes(self.content)
