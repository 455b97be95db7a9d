"""May the service take what is dropped: folders, modes, and a trial drop.

The trial makes a file with a dot-name, which the service leaves alone, and takes it
through the steps of a claim: renamed to `.claimed`, leased, linked into the archive,
removed.  Tried as the service's user, and, by root, with a file that a stranger made
whose umask lets nobody else read.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingester import durable
from ingester.archive import CANNOT_LINK
from ingester.claims import CLAIMED
from ingester.doctor.apart import DiedError, Person, apart
from ingester.doctor.findings import Check
from ingester.model import WriterState, type_json
from ingester.settle import ignore_lease_breaks, probe

_STRANGER = 65_534  # nobody: no file of the service's is theirs
_PREFIX = ".ingester-doctor-"


def folder(place: str, path: Path, mode: int, person: Person) -> Check:
    """Say whether a folder is there, whose it is, and whether others may write to it.

    Parameters
    ----------
    mode : what the configuration asks for
    person : the service's user
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return Check.problem(
            "folders", f"the {place} {path} is not there", "ingester init, or mount its disk"
        )
    except OSError as error:
        return _shut("folders", f"the {place} {path}: {error.strerror}")
    if not stat.S_ISDIR(status.st_mode):
        return Check.problem("folders", f"the {place} {path} is no folder", f"mv {path} elsewhere")
    have = stat.S_IMODE(status.st_mode)
    if have & 0o002 and not have & stat.S_ISVTX:
        return Check.problem(
            "folders", f"the {place} {path}: everybody may write to it", f"chmod o-w {path}"
        )
    if have & stat.S_ISVTX and person.uid not in (0, status.st_uid):
        return Check.problem(
            "folders",
            f"the {place} {path} is sticky: the service may not take away what others drop",
            f"chmod -t {path}",
        )
    found = f"the {place} {path}, {status.st_uid}:{status.st_gid}, mode {have:04o}"
    if mode & stat.S_ISGID and not have & stat.S_ISGID and place == "spool":
        return Check.note(
            "folders",
            f"{found}: without setgid, folders in it get the group of whoever makes them",
            f"chmod {mode:o} {path}",
        )
    return Check.ok("folders", found)


def writable(paths: Sequence[Path], person: Person) -> Check:
    """Say whether the service's user may write to its own folders; those there are."""
    there = [path for path in paths if path.is_dir()]
    try:
        shut = apart(
            lambda: [str(path) for path in there if not os.access(path, os.W_OK | os.X_OK)],
            person=person,
        )
    except DiedError as error:
        return Check.note("permissions", f"it could not be tried as {person.name}: {error}")
    if shut:
        return Check.problem(
            "permissions",
            f"{person.name} may not write to {', '.join(shut)}",
            f"chown -R {person.name}: {' '.join(shut)}",
        )
    return Check.ok("permissions", f"{person.name} may write to {len(there)} folders")


@dataclass(frozen=True, slots=True)
class Roads:
    """Where a dropped file goes: claimed below *root*, then to the archive."""

    drop: Path
    root: Path
    archive: Path


@dataclass(frozen=True, slots=True)
class Tried:
    """What the trial met: the step that failed, and the kernel's answers."""

    failed: str | None
    code: int
    lease: WriterState
    link: int  # errno, 0 where the link was made

    def as_json(self) -> type_json:
        """Return it for the pipe."""
        return [self.failed, self.code, self.lease.value, self.link]

    @classmethod
    def of(cls, told: type_json) -> Tried:
        """Read what came through the pipe."""
        failed, code, lease, link = told
        return cls(failed, code, WriterState(lease), link)


def try_drop(roads: Roads, person: Person) -> Tried:
    """Drop a file, claim it, take it away again, all as *person*.

    Raises
    ------
    DiedError : it could not be tried
    """
    return Tried.of(apart(lambda: _drop_and_take(roads).as_json(), person=person))


def _drop_and_take(roads: Roads) -> Tried:
    ignore_lease_breaks()
    dropped = roads.drop / f"{_PREFIX}{secrets.token_hex(6)}"
    try:
        os.close(durable.create(dropped, 0o640))
    except OSError as error:
        return Tried("drop", error.errno or 0, WriterState.UNKNOWN, 0)
    return _take(dropped, roads)


def _take(dropped: Path, roads: Roads) -> Tried:
    """Claim, lease, link, remove; whatever happens, nothing is left."""
    claims, staging = roads.root / CLAIMED, roads.archive / ".staging"
    claimed = (claims if claims.is_dir() else roads.root) / dropped.name
    linked = (staging if staging.is_dir() else roads.archive) / dropped.name
    step, lease, link = "claim", WriterState.UNKNOWN, 0
    try:
        if claimed != dropped:
            durable.rename(dropped, claimed)
        step = "read"
        descriptor = os.open(claimed, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            lease = probe(descriptor)
        finally:
            os.close(descriptor)
        step = "link"
        try:
            durable.link(claimed, linked)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            link = error.errno
        step = "remove"
        for path in (linked, claimed):
            durable.unlink(path)
    except OSError as error:
        return Tried(step, error.errno or 0, lease, link)
    finally:
        for path in (dropped, claimed, linked):
            _forget(path)
    return Tried(None, 0, lease, link)


def _forget(path: Path) -> None:
    try:
        os.unlink(path)
    except OSError:
        return  # not there (any more), or not ours to remove: whoever made it does


def try_strangers_drop(roads: Roads, person: Person) -> Tried | None:
    """Let a stranger of the folder's group drop a private file, and *person* take it.

    None where a stranger may not drop anything there.  Only root can try this.
    """
    group = os.stat(roads.drop).st_gid
    stranger = Person("nobody", _STRANGER, _STRANGER, (group,))
    dropped = roads.drop / f"{_PREFIX}{secrets.token_hex(6)}"

    def drop() -> bool:
        os.umask(0o077)
        try:
            os.close(durable.create(dropped, 0o666))
        except PermissionError:
            return False
        return True

    if not apart(drop, person=stranger):
        return None
    try:
        return Tried.of(apart(lambda: _take(dropped, roads).as_json(), person=person))
    finally:
        _forget(dropped)


def trial(roads: Roads, person: Person, tried: Tried) -> Check:
    """Say what the trial of the service's own user showed."""
    if tried.failed == "drop" and not person.is_me and os.geteuid() != 0:
        return Check.note(
            "trial-drop",
            f"{roads.drop}: not tried, this user may not drop files there",
            f"run it as {person.name}, or as root",
        )
    if tried.failed is not None:
        why = os.strerror(tried.code)
        said = {
            "drop": f"{person.name} may not make files in {roads.drop}: {why}",
            "claim": f"a file in {roads.drop} cannot be renamed to {roads.root}/{CLAIMED}: {why}",
            "read": f"a file in {roads.drop} cannot be read: {why}",
            "link": f"a file of {roads.root} cannot be brought to {roads.archive}: {why}",
            "remove": f"a file taken from {roads.drop} cannot be removed: {why}",
        }[tried.failed]
        return Check.problem("trial-drop", said, _fix(tried, roads, person))
    return Check.ok("trial-drop", f"dropped into {roads.drop}, claimed and taken away again")


def _fix(tried: Tried, roads: Roads, person: Person) -> str:
    if tried.code == errno.ENOSPC:
        return f"make room on the disk of {roads.root}"
    if tried.code == errno.EROFS:
        return f"mount -o remount,rw the disk of {roads.drop}"
    where = roads.archive / ".staging" if tried.failed == "link" else roads.drop
    return f"chown {person.name}: {where} && chmod u+rwx {where}"


def strangers_trial(roads: Roads, person: Person, tried: Tried | None) -> Check | None:
    """Say what becomes of files that others drop; None where nobody else may."""
    if tried is None:
        return None
    if tried.failed is None:
        return Check.ok("trial-drop", f"{roads.drop}: what others drop can be taken")
    why = os.strerror(tried.code)
    if tried.failed == "read":
        return Check.note(
            "trial-drop",
            f"{roads.drop}: files that others keep to themselves (umask 077) cannot be read: {why}",
            f"setfacl -d -m u:{person.name}:rwX {roads.drop}",
        )
    return Check.problem(
        "trial-drop",
        f"{roads.drop}: what others drop cannot be taken away ({tried.failed}: {why})",
        f"chmod -t {roads.drop}" if tried.failed == "claim" else _fix(tried, roads, person),
    )


def intake(spool: Path, archive: Path, tried: Tried, wanted: str) -> Check:
    """Say whether files are linked or copied into the archive, and what tells that they are whole.

    Parameters
    ----------
    wanted : `[archive] intake`
    """
    if tried.link and wanted == "link":
        return Check.problem(
            "intake",
            f"[archive] intake is link, but {spool} and {archive} cannot share a file "
            f"({os.strerror(tried.link)})",
            'intake = "auto", or put both on one file system',
        )
    if tried.link:
        message = f"{spool} and {archive} cannot share a file: each one is copied"
        return Check.note("intake", message, "put both on one file system: a link costs nothing")
    if tried.lease is not WriterState.FREE:
        return Check.note(
            "intake",
            f"the kernel does not tell who writes in {spool} (no leases): a dropped file must be "
            "still for [spool] quiet before it is taken",
        )
    return Check.ok("intake", "hard links, and leases that tell when a file is whole")


def group(name: str, known: Sequence[str], person_groups: Sequence[str], person: Person) -> Check:
    """Say whether `[spool] group` exists and whether the service may give files to it."""
    if name not in known:
        return Check.problem(
            "group", f"[spool] group: there is no group {name}", f"groupadd {name}"
        )
    if person.uid != 0 and name not in person_groups:
        return Check.problem(
            "group",
            f"[spool] group: {person.name} is not in the group {name}",
            f"usermod -aG {name} {person.name}",
        )
    return Check.ok("group", name)


def _shut(name: str, message: str) -> Check:
    return Check.problem(name, message, "run it as the service's user, or as root")
