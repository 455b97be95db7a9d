"""Taking files and letting go of them: what lies below `.claimed`.

A file is taken by renaming it below `.claimed`, together with its relative path,
which holds its source, its batch and its name: one step, so a crash loses nothing.
Making and removing folders costs far more than a rename, so files that are taken
together share a folder:

    .claimed/<id>/in/<relative path>                     one file
    .claimed/<id>/many/<relative folder>/<nnn>=<name>    several: <id>-<nnn> each

What needs a folder of its own (an archive file's members, a reason) is moved out of
the shared one first (`isolate`).  Members share a folder below their archive file's
claim, and are set apart there, so that a new start finds the archive file alone:

    .claimed/<id>/members/<number>=<name>                <id>.<number>
    .claimed/<id>/members/<number>/in/<name>             the same, set apart
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ingester import durable
from ingester.archive import remove_tree
from ingester.model import Arrival, Claim, moment, new_id

_logger = logging.getLogger(__name__)

CLAIMED = ".claimed"
REASON = "reason.json"

_ALONE, _TOGETHER = "in", "many"
_ID = re.compile(r"[0-9a-f]{24}(-[0-9]{3})?(\.[0-9]+)*", re.ASCII)
_NUMBERED = re.compile(r"([0-9]{3})=(.+)", re.ASCII | re.DOTALL)
_MOST_TOGETHER = 1000
_MOST_REMEMBERED = 8192
_LONGEST_NAME = 255
_OWNER = stat.S_IRWXU


class Provenance(NamedTuple):
    """What a path alone tells of a file."""

    source: str
    batch: str | None
    original_name: str
    is_received: bool
    arrival_id: str | None = None


#: Told of an arrival that it cannot be taken, and why; raises where the world is at fault.
Refused = Callable[[Arrival, OSError], None]


def is_arrival_id(text: str) -> bool:
    """Return whether *text* is an id of ours."""
    return _ID.fullmatch(text) is not None


def arrived_at(arrival_id: str) -> str:
    """Return the moment that an id was made at: it is the moment of the claim."""
    return moment(datetime.fromtimestamp(int(arrival_id[:16], 16) / 1_000_000, UTC))


class Claims:
    """Takes files of all roots; knows how many are left in each shared folder.

    Parameters
    ----------
    mode : of the folders made here
    refused : told of each file that is there and cannot be taken
    """

    def __init__(self, mode: int, refused: Refused) -> None:
        self._mode = mode & 0o777
        self._refused = refused
        self._left: dict[Path, set[Path]] = {}
        self._flushed: set[Path] = set()

    def take(self, arrivals: Sequence[Arrival], at: datetime) -> Iterator[tuple[Arrival, Claim]]:
        """Take files, in order; what has vanished or cannot be taken is left out."""
        shared: dict[Path, _Shared] = {}
        for number, arrival in enumerate(arrivals[:_MOST_TOGETHER]):
            name = arrival.relative.rsplit("/", 1)[-1]
            if len(arrivals) == 1 or len(os.fsencode(name)) + 4 > _LONGEST_NAME:
                claim = self._take_alone(arrival, at)
            else:
                if arrival.root not in shared:
                    shared[arrival.root] = _Shared(arrival.root, new_id(at), self._mode)
                claim = self._take_into(shared[arrival.root], arrival, number)
            if claim is not None:
                yield arrival, claim
        for each in shared.values():
            if each.folder not in self._left:
                _prune(each.folder)

    def _take_alone(self, arrival: Arrival, at: datetime) -> Claim | None:
        arrival_id = arrival.arrival_id or new_id(at)
        folder = arrival.root / CLAIMED / arrival_id
        path = folder / _ALONE / arrival.relative
        try:
            durable.make_folder(folder.parent, self._mode)
            durable.make_folders(folder.parent, path.parent, self._mode)
            _take(f"{arrival.root}/", arrival.relative, path)
        except OSError as error:
            _prune(folder)
            self._not_taken(arrival, error)
            return None
        return _claim(arrival, arrival_id, folder, path)

    def _take_into(self, shared: _Shared, arrival: Arrival, number: int) -> Claim | None:
        try:
            path = shared.take(arrival.relative, number)
        except OSError as error:
            self._not_taken(arrival, error)
            return None
        self._left.setdefault(shared.folder, set()).add(path)
        arrival_id = arrival.arrival_id or f"{shared.folder.name}-{number:03d}"
        return _claim(arrival, arrival_id, shared.folder, path, is_shared=True)

    def _not_taken(self, arrival: Arrival, error: OSError) -> None:
        if error.errno != errno.ENOENT:
            self._refused(arrival, error)

    def keep(self, claims: Iterable[Claim]) -> None:
        """Make the names of claims durable, before anything is promised of them.

        A claim whose name goes in a power cut lies at its old place again: nothing is lost,
        but it would count as another arrival.  Each folder is flushed once: nothing is put
        into it after its claim.  A member of an archive file is unpacked again instead.
        """
        if len(self._flushed) > _MOST_REMEMBERED:
            self._flushed.clear()
        folders = {claim.path.parent for claim in claims if claim.parent_id is None}
        for folder in sorted(folders - self._flushed):
            try:
                durable.flush_folder(folder)
            except FileNotFoundError:
                continue  # somebody took the file away: its row says what it was
            self._flushed.add(folder)

    # ------------------------------------------------------------- after a crash

    def again(self, root: Path, describe: Callable[[str], Provenance]) -> Iterator[Claim]:
        """Find what an earlier run had taken on this root.

        *describe* tells source, batch and name of a relative path.  Folders without a
        file (the rename never came, or the release was nearly done) are removed.
        """
        claims = root / CLAIMED
        if not claims.is_dir():
            return
        for name in sorted(os.listdir(claims)):
            folder = claims / name
            if name.startswith("."):
                remove_tree(folder)  # an unfinished copy of what still lies in its claim
                continue
            if (folder / REASON).exists():
                continue
            found = list(_files_below(folder / _ALONE)) + list(_files_below(folder / _TOGETHER))
            for path in found:
                claim = _found_again(folder, path, describe)
                if claim is not None:
                    if claim.is_shared:
                        self._left.setdefault(folder, set()).add(claim.path)
                    yield claim
            if not found:
                _clear(folder)

    # --------------------------------------------------------------- letting go

    def release(self, claim: Claim) -> None:
        """Forget a file: its bytes and its row are durable elsewhere."""
        durable.unlink(claim.path)
        if claim.is_shared:
            self._leave(claim)
        else:
            _clear(claim.folder)

    def isolate(self, claim: Claim) -> Claim:
        """Give a file a claim folder of its own, so that other things can lie beside it.

        May be repeated after an error; a file that has vanished gets the empty folder.
        """
        if not claim.is_shared:
            return claim
        if claim.parent_id is not None:
            number, _, name = claim.path.name.partition("=")
            folder = claim.folder / number
            path = folder / _ALONE / name
        else:
            inside = claim.path.relative_to(claim.folder / _TOGETHER)
            match = _NUMBERED.fullmatch(inside.name)
            assert match is not None
            folder = claim.folder.parent / claim.arrival_id
            path = folder / _ALONE / inside.with_name(match[2])
        durable.make_folders(folder.parent, path.parent, self._mode)
        try:
            durable.rename(claim.path, path)
        except FileNotFoundError:
            _logger.debug("%s was moved already, or has vanished", claim.arrival_id)
        self._leave(claim)
        return replace(claim, folder=folder, path=path, is_shared=False)

    def _leave(self, claim: Claim) -> None:
        left = self._left.get(claim.folder)
        if left is None:
            return
        left.discard(claim.path)
        if not left:
            _prune(claim.folder)
            del self._left[claim.folder]


class _Shared:
    """A claim folder for files that are taken together."""

    def __init__(self, root: Path, claim_id: str, mode: int) -> None:
        self.folder = root / CLAIMED / claim_id
        self._root = f"{root}/"
        self._base = f"{self.folder}/{_TOGETHER}/"
        self._mode = mode
        self._made: set[str] = set()

    def take(self, relative: str, number: int) -> Path:
        above, slash, name = relative.rpartition("/")
        if above not in self._made:
            durable.make_folder(self.folder.parent, self._mode)
            parent = Path(self._base + above)
            durable.make_folders(self.folder.parent, parent, self._mode)
            self._made.add(above)
        path = f"{self._base}{above}{slash}{number:03d}={name}"
        _take(self._root, relative, path)
        return Path(path)


def _take(root: str, relative: str, path: Path | str) -> None:
    try:
        durable.rename(root + relative, path)
    except PermissionError:
        if not _open_our_folders(root, relative):
            raise
        durable.rename(root + relative, path)


def _open_our_folders(root: str, relative: str) -> bool:
    """Make the folders above a file writable where they are ours and are not.

    A CD's folders are read-only, and `cp -r` copies that too: nobody could take
    anything out of such a copy, its owner included.  Returns whether one was changed.
    """
    above = relative.rpartition("/")[0]
    has_changed = False
    while above:
        told = os.stat(root + above, follow_symlinks=False)
        if told.st_uid == os.geteuid() and told.st_mode & _OWNER != _OWNER:
            os.chmod(root + above, stat.S_IMODE(told.st_mode) | _OWNER)
            has_changed = True
        above = above.rpartition("/")[0]
    return has_changed


def _claim(
    told: Arrival | Provenance,
    arrival_id: str,
    folder: Path,
    path: Path,
    *,
    is_shared: bool = False,
) -> Claim:
    return Claim(
        arrival_id=arrival_id,
        folder=folder,
        path=path,
        source=told.source,
        batch=told.batch,
        original_name=told.original_name,
        arrived_at=arrived_at(arrival_id),
        is_received=told.is_received,
        is_shared=is_shared,
    )


def _found_again(folder: Path, path: Path, describe: Callable[[str], Provenance]) -> Claim | None:
    if not is_arrival_id(folder.name):
        return None
    inside = path.relative_to(folder)
    if inside.parts[0] == _ALONE:
        return _claim(describe(str(inside.relative_to(_ALONE))), folder.name, folder, path)
    match = _NUMBERED.fullmatch(inside.name)
    if match is None:
        return None
    told = describe(str(inside.relative_to(_TOGETHER).with_name(match[2])))
    arrival_id = told.arrival_id or f"{folder.name}-{match[1]}"
    return _claim(told, arrival_id, folder, path, is_shared=True)


def is_reachable(claim: Claim) -> bool:
    """Return whether the folder of claims is there: a share may be gone, with all its files."""
    return os.path.isdir(folder_of(claim))


def folder_of(claim: Claim) -> Path:
    """Return the folder of all claims on the file system that this one lies on."""
    return next(each for each in claim.path.parents if each.name == CLAIMED)


def seen(root: Path, describe: Callable[[str], Provenance]) -> Iterator[Claim]:
    """Yield every file that is claimed on this root; nothing is changed.

    So this may be asked beside a running service; members of an archive file are left
    out, for it stands for them.
    """
    claims = root / CLAIMED
    for name in sorted(os.listdir(claims)) if claims.is_dir() else []:
        folder = claims / name
        for path in (*_files_below(folder / _ALONE), *_files_below(folder / _TOGETHER)):
            claim = _found_again(folder, path, describe)
            if claim is not None:
                yield claim


def count_claimed(root: Path) -> int:
    """Count the files that are claimed on this root, changing nothing."""
    claims = root / CLAIMED
    names = os.listdir(claims) if claims.is_dir() else []
    return sum(
        1
        for name in names
        for kind in (_ALONE, _TOGETHER)
        for _ in _files_below(claims / name / kind)
    )


def only_file_below(folder: Path) -> Path | None:
    """Return the one file (or link, or FIFO) below a claim, None where there is none."""
    return next(_files_below(folder), None)


def _files_below(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        for name in sorted(names):
            yield Path(here) / name
        for name in sorted(folders):
            if (Path(here) / name).is_symlink():
                yield Path(here) / name


def _prune(folder: Path) -> None:
    """Remove a folder and those below it, as far as they are empty."""
    for here, _, _ in os.walk(folder, topdown=False):
        durable.remove_folder(Path(here))


def _clear(folder: Path) -> None:
    """Remove a claim folder whose file is gone, with what we put beside it."""
    durable.unlink(durable.unfinished(folder / REASON))
    if (folder / "members").exists():
        remove_tree(folder / "members")
    _prune(folder)
