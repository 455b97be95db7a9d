"""The spool: what lies in it, taking it, and letting go of it.

A state is a folder and a step is a rename, as in a maildir.  `look` lists what
lies in the drop folders and in `.received`; `claim` takes one file by renaming it
to below `.claimed` (`claims.py`), which keeps source, batch and name
in one step, so that a crash loses nothing and needs no marker; `release` forgets a
file whose bytes and row are durable elsewhere.

    for arrival, claim in spool.claim(list(spool.look()), clock.now()):
        ...                                   read, publish, commit
        spool.release(claim)
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from heapq import heapify, heappop, heappush
from pathlib import Path
from urllib.parse import unquote

from ingester import durable
from ingester.archive import escape_source, remove_tree
from ingester.claims import CLAIMED, REASON, Claims, Provenance, is_arrival_id, seen
from ingester.ignore import Ignore
from ingester.model import Arrival, Claim, FileIdentity

_logger = logging.getLogger(__name__)

RECEIVING = ".receiving"
RECEIVED = ".received"
QUARANTINE = "quarantine"

#: Files that our own SCP finished: `<association id>.<number>.dcm`.
_RECEIVED_NAME = re.compile(r"([0-9a-f]{24})\.[0-9]+\.dcm", re.ASCII)

#: A name too long to be kept below a claim is shortened to so many bytes.
_LONGEST_NAME = 200
#: Of a path so many bytes are kept: the last parts.  There must be room for ours before it.
_LONGEST_PATH = 1000
#: A batch may be called as a folder may.
_LONGEST_LABEL = 254
_HALF = re.compile(r"%2?$", re.ASCII)


def shown(name: str) -> str:
    """Return a file name as text that can be stored and printed.

    Bytes that are no UTF-8 and control characters are written as escapes.
    """
    if name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def handed_over(source: str, batch: str | None, arrival_id: str, name: str) -> str:
    """Return where a file with a known source and batch is put, below the spool.

    `import` and `retry` use it: everything that the arrival's row will say of it is
    in the path, so a crash in between loses nothing.
    """
    parts = [_cut(part, _LONGEST_NAME) for part in name.split("/") if part not in ("", ".", "..")]
    while len("/".join(parts).encode()) > _LONGEST_PATH:
        parts.pop(0)
    label = "@" + _cut((batch or "").replace("%", "%25").replace("/", "%2F"), _LONGEST_LABEL)
    return "/".join([RECEIVED, source, label, arrival_id, *(parts or ["unnamed"])])


def _cut(text: str, most: int) -> str:
    """Return as much of *text* as fits into so many bytes, no character or escape halved."""
    raw = text.encode()
    return text if len(raw) <= most else _HALF.sub("", raw[:most].decode(errors="ignore"))


@dataclass(frozen=True, slots=True)
class Share:
    """A drop folder elsewhere, usually a mount, with its source."""

    path: Path
    source: str


@dataclass(frozen=True, slots=True)
class _Root:
    """A file system that files are claimed on: `.claimed` lies at its root."""

    path: Path
    source: str | None  # of a share
    prefix: str  # of a mounted drop folder: its path relative to the spool


@dataclass(slots=True)
class Spool:
    """The drop folders below *root*, and the shares.

    Parameters
    ----------
    sources : declared sources; each has a folder of its name
    default_source : the source of everything else
    ignore : further patterns of names to leave alone
    mode : of the folders made here; group : their group's name, "" = leave it
    """

    root: Path
    sources: Sequence[str] = ()
    default_source: str = "MANUAL"
    ignore: Sequence[str] = ()
    mode: int = 0o2770
    group: str = ""
    shares: Sequence[Share] = ()
    #: What cannot be taken, by path relative to its drop folder: the sentence that says so.
    troubles: dict[str, str] = field(default_factory=dict)
    _is_ignored: Ignore = field(init=False)
    #: Folders that files were taken from: when one of our own removals below changed each,
    #: and when it had changed before that (ns); None where nothing below was removed.
    _emptied: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    _claims: Claims = field(init=False)
    _missing: set[Path] = field(default_factory=set)  # roots not there when we looked for claims

    def __post_init__(self) -> None:
        """Compile the patterns."""
        self._is_ignored = Ignore(self.ignore)
        self._claims = Claims(self.mode, self._cannot_take)

    @property
    def quarantine_folder(self) -> Path:
        """Return the folder for people."""
        return self.root / QUARANTINE

    def make_folders(self) -> None:
        """Make our own folders and the declared sources'; wipe `.receiving`.

        Call it at start only, before any receiver runs.
        """
        folders = [RECEIVING, RECEIVED, CLAIMED, QUARANTINE, *self.sources]
        made = [name for name in folders if durable.make_folder(self.root / name, 0o700)]
        for name in made:
            self._open_to_group(self.root / name)
        if made:
            durable.flush_folder(self.root)
        for leftover in sorted(os.scandir(self.root / RECEIVING), key=lambda entry: entry.name):
            remove_tree(Path(leftover.path))

    def _open_to_group(self, folder: Path) -> None:
        if self.group:
            shutil.chown(folder, group=self.group)
        try:
            os.chmod(folder, self.mode)
        except PermissionError:
            # A hardened service may not set the setgid bit; it is inherited then.
            os.chmod(folder, self.mode & 0o777)

    def _roots(self) -> Iterator[_Root]:
        yield _Root(self.root, None, "")
        here = os.stat(self.root).st_dev
        for source in self.sources:
            folder = self.root / source
            try:
                is_mount = os.stat(folder).st_dev != here
            except OSError as error:
                self.troubles[source] = f"the drop folder cannot be read: {error.strerror}"
                continue
            if is_mount:
                yield _Root(folder, None, source + "/")
        for share in self.shares:
            yield _Root(share.path, share.source, "")

    # ------------------------------------------------------------------ looking

    def look(self) -> Iterator[Arrival]:
        """List what lies in `.received` and in all drop folders, in path order.

        Nothing is opened.  A folder that cannot be listed is noted in `troubles`; its
        files are simply not seen this time, so a share that vanishes for a second
        makes nothing new and nothing lost.
        """
        self.troubles.clear()
        for root in self._roots():
            mounted = {each.path for each in self._roots() if each.prefix} - {root.path}
            if root.path == self.root:
                yield from self._walk(root, RECEIVED + "/", mounted)
            yield from self._walk(root, "", mounted)

    def _walk(self, root: _Root, start: str, mounted: set[Path]) -> Iterator[Arrival]:
        ours = {QUARANTINE} if root.path == self.root and not start else set()
        waiting = [start]
        while waiting:
            relative = waiting.pop()
            if relative and not relative.endswith("/"):
                yield from self._arrival(root, relative)
                continue
            try:
                with os.scandir(root.path / relative) as entries:
                    found = self._worth_a_look(entries, is_ours=start != "", ours=ours)
            except FileNotFoundError:
                if not relative:
                    self.troubles[str(root.path)] = "the drop folder is not there"
                continue
            except OSError as error:
                self.troubles[shown(relative or str(root.path))] = (
                    f"the folder cannot be listed: {error.strerror}"
                )
                continue
            ours = set()
            names = [relative + name for name in found]
            waiting.extend(
                name for name in sorted(names, reverse=True) if root.path / name not in mounted
            )

    def _worth_a_look(
        self, entries: Iterator[os.DirEntry[str]], *, is_ours: bool, ours: set[str]
    ) -> list[str]:
        found = []
        for entry in entries:
            if entry.name in ours or (not is_ours and self._is_ignored(entry.name)):
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            found.append(entry.name + ("/" if is_folder else ""))
        return found

    def _arrival(self, root: _Root, relative: str) -> Iterator[Arrival]:
        try:
            status = os.lstat(root.path / relative)
        except OSError:
            # Gone between the listing and the look: taken away again by its owner.
            return
        told = self._describe(root, relative)
        yield Arrival(
            root=root.path,
            relative=relative,
            identity=FileIdentity.of(status),
            source=told.source,
            batch=told.batch,
            original_name=told.original_name,
            is_received=told.is_received,
            arrival_id=told.arrival_id,
        )

    def _describe(self, root: _Root, relative: str) -> Provenance:
        """Tell source, batch and name from the path alone (contract, section 2)."""
        parts = (root.prefix + relative).split("/")
        if parts[0] == RECEIVED and root.source is None:
            return self._describe_received(parts)
        if root.source is not None:
            source = root.source
        elif parts[0] in self.sources:
            source = parts.pop(0)
        else:
            source = self.default_source
        batch = shown(parts[0]) if len(parts) > 1 else None
        return Provenance(source, batch, shown("/".join(parts)), is_received=False)

    def _describe_received(self, parts: list[str]) -> Provenance:
        source = escape_source(parts[1]) if len(parts) > 2 else self.default_source
        batch: str | None = None
        arrival_id: str | None = None
        name = parts[2:] or parts[1:]
        if len(parts) > 4 and parts[2].startswith("@") and is_arrival_id(parts[3]):
            batch, arrival_id, name = unquote(parts[2][1:]) or None, parts[3], parts[4:]
        elif match := _RECEIVED_NAME.fullmatch(name[-1]):
            batch = match[1]
        return Provenance(source, batch, shown("/".join(name)), True, arrival_id)

    # ----------------------------------------------------------------- claiming

    def claim(self, arrivals: Sequence[Arrival], at: datetime) -> Iterator[tuple[Arrival, Claim]]:
        """Take files: after the rename nobody else can reach them by their paths.

        What has vanished is left out, and so is what cannot be taken; the latter is in
        `troubles` with the way to mend it.
        """
        # A share that has just come with claims of an earlier run: those go first.
        here = [each for each in arrivals if not self._is_back(each.root)]
        for arrival, claim in self._claims.take(here, at):
            self._missing.discard(arrival.root)
            self._emptied[os.path.dirname(f"{arrival.root}/{arrival.relative}")] = None
            yield arrival, claim

    def claimed(self) -> list[Claim]:
        """List what an earlier run had claimed, in the order of claiming.

        A share that is not there is remembered: see `claimed_late`.
        """
        return self._claimed_on(self._roots())

    def claimed_late(self) -> list[Claim]:
        """List what was claimed on shares that were not there at the start and are now."""
        if not self._missing:
            return []
        return self._claimed_on(root for root in self._roots() if self._is_back(root.path))

    def _is_back(self, root: Path) -> bool:
        return root in self._missing and os.path.isdir(root / CLAIMED)

    def _claimed_on(self, roots: Iterable[_Root]) -> list[Claim]:
        found: list[Claim] = []
        for root in roots:
            try:
                there = list(self._claims.again(root.path, partial(self._describe, root)))
            except OSError as error:
                if root.path == self.root:
                    raise
                self._missing.add(root.path)
                self.troubles[str(root.path)] = f"the drop folder cannot be read: {error.strerror}"
                continue
            if there or root.path == self.root or os.path.isdir(root.path / CLAIMED):
                self._missing.discard(root.path)
            else:
                self._missing.add(root.path)
            found += there
        return sorted(found, key=lambda claim: claim.arrival_id)

    def claims_seen(self, troubles: list[str]) -> Iterator[Claim]:
        """Yield what is claimed now, by whomever; nothing is changed.

        Folders that cannot be read are told in *troubles*.
        """
        try:
            for root in self._roots():
                yield from seen(root.path, partial(self._describe, root))
        except OSError as error:
            troubles.append(f"{shown(str(error.filename or self.root))}: {error.strerror}")

    def half_quarantined(self) -> list[Path]:
        """List claims whose reason was written already: to be finished, not read again."""
        folders = []
        for root in self._roots():
            claims = root.path / CLAIMED
            if os.path.isdir(claims):
                # A dot-name is an unfinished copy of what still lies in its claim.
                names = [name for name in os.listdir(claims) if not name.startswith(".")]
                folders += [claims / name for name in sorted(names)]
        return [folder for folder in folders if (folder / REASON).is_file()]

    def isolate(self, claim: Claim) -> Claim:
        """Give a claimed file a folder of its own."""
        return self._claims.isolate(claim)

    def keep(self, claims: Iterable[Claim]) -> None:
        """Make the names of claims durable, before their rows are committed."""
        self._claims.keep(claims)

    def release(self, claim: Claim) -> None:
        """Forget a claimed file: its bytes and its row are durable elsewhere."""
        self._claims.release(claim)

    def _cannot_take(self, arrival: Arrival, error: OSError) -> None:
        if arrival.root == self.root and error.errno not in _NOT_OURS_TO_TAKE:
            raise error  # elsewhere (a share that is full, read-only, gone) the rest goes on
        self.troubles[shown(arrival.relative)] = _why_not_taken(error, arrival)

    def _folders_that_stay(self) -> set[str]:
        stay = {str(self.root), *(str(self.root / name) for name in (*self.sources, RECEIVED))}
        return stay | {str(share.path) for share in self.shares}

    @property
    def is_tidy(self) -> bool:
        """Return whether no folder that we emptied is left to be removed."""
        return self._emptied.keys() <= self._folders_that_stay()

    def tidy(self, *, older_than_ns: int) -> None:
        """Remove folders that we emptied, declared sources' and our own excepted.

        A folder that somebody else changed at or after *older_than_ns* (ns since 1970)
        stays for now: they may still be copying into it.
        """
        stay = self._folders_that_stay()
        # What lies deeper has the longer path, so a parent's turn comes after all its children's.
        waiting = [(-len(folder), folder) for folder in self._emptied]
        heapify(waiting)
        while waiting:
            _, folder = heappop(waiting)
            if folder in stay:
                self._emptied.pop(folder, None)
            elif self._tidy_one(folder, older_than_ns):
                parent = os.path.dirname(folder)
                heappush(waiting, (-len(parent), parent))

    def _tidy_one(self, folder: str, older_than_ns: int) -> bool:
        """Remove one folder if that is due; True if its parent is to be looked at."""
        parent = os.path.dirname(folder)
        try:
            if self._changed_at(folder) >= older_than_ns:
                self._emptied.setdefault(folder, None)  # also a parent that was looked at
                return False
            parent_changed_at = self._changed_at(parent)
            if durable.remove_folder(Path(folder)):
                removed_at = os.stat(parent).st_mtime_ns
                self._emptied.pop(folder, None)
                self._emptied[parent] = (removed_at, parent_changed_at)
                return True
        except FileNotFoundError:
            self._emptied.pop(folder, None)
            return True
        except OSError as error:
            # Not ours to remove (permissions): an empty folder harms nobody.
            _logger.debug("an emptied folder stays: %s", error.strerror)
        self._emptied.pop(folder, None)
        return False

    def _changed_at(self, folder: str) -> int:
        """Return when a folder was changed (ns), our own removal of a folder in it aside."""
        changed_at = os.stat(folder).st_mtime_ns
        ours = self._emptied.get(folder)
        return ours[1] if ours is not None and ours[0] == changed_at else changed_at


#: What these errors say of a file, it cannot be taken just now; all others are the world's.
_NOT_OURS_TO_TAKE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENAMETOOLONG, errno.EXDEV, errno.ENOTDIR}
)


def _why_not_taken(error: OSError, arrival: Arrival) -> str:
    folder = shown(str((arrival.root / arrival.relative).parent))
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"the service may not take it away; to mend: chmod g+rwxs '{folder}'"
    if error.errno == errno.EXDEV:
        return "it lies on a mounted file system; declare its folder as a source or a share"
    return f"it cannot be taken away: {error.strerror}"
