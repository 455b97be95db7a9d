"""Setting files aside for people, with a reason they can read.

A quarantined file lies in `spool/quarantine/<arrival id>/` beside its
`reason.json`.  Getting there is a few durable steps, each of which a crash may
follow: the reason is written into the claim first, so a claim with a reason is
finished at the next start and never read again; the row comes last.

    reason.json flushed in the claim -> file moved beside it -> claim renamed to
    quarantine/<id> -> both folders flushed -> the arrival's row

From a share there is no renaming into the spool: the folder is copied and the claim
removed.  A file that cannot be read stays in its claim then, and `kept_at` in both
reasons says so; only the reason is carried to where people look.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import FileIO
from pathlib import Path

from ingester import durable
from ingester.archive import remove_tree
from ingester.claims import CLAIMED, REASON, folder_of, only_file_below
from ingester.model import ArrivalRecord, Claim, Reason, Refusal
from ingester.spool import Spool, shown

_logger = logging.getLogger(__name__)

_FILE_MODE = 0o640
_LONGEST_NAME = 200
#: What lies beside the file on its way: it must not bear such a name itself.
_OURS = frozenset({REASON, "in", "members"})
#: Errors of one file alone; every other `OSError` is the world's.
FILE_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.EIO})

_STAYS = (
    "The file itself could not be copied here and stays in {folder}: "
    "once it can be read, put it into a drop folder again."
)
_NO_BYTES = "It has no contents that could be copied here; only this note is left."


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What `reason.json` says: the contract, section 7; no header value is in it."""

    arrival_id: str
    reason: Reason
    message: str
    source: str
    batch: str | None
    original_name: str
    size_bytes: int
    sha256: str | None
    arrived_at: str
    quarantined_at: str
    attempts: int
    retried_as: str | None = None
    kept_at: str | None = None  # the claim that the file stays in, where it cannot be read

    def as_json(self) -> bytes:
        """Return the text of `reason.json`."""
        fields = asdict(self)
        for name in ("retried_as", "kept_at"):
            if fields[name] is None:
                del fields[name]
        return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()

    def as_record(self) -> ArrivalRecord:
        """Return the arrival's row, for where only `reason.json` is left to tell it."""
        return ArrivalRecord(
            arrival_id=self.arrival_id,
            source=self.source,
            batch=self.batch,
            original_name=self.original_name,
            arrived_at=self.arrived_at,
            finished_at=self.quarantined_at,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            outcome=self.reason.outcome,
            reason=self.reason,
            detail={"message": self.message},
        )

    @classmethod
    def read(cls, folder: Path) -> Quarantined | None:
        """Read a folder's `reason.json`; None where there is none that can be read."""
        try:
            fields = json.loads((folder / REASON).read_bytes())
            return cls(**{**fields, "reason": Reason(fields["reason"])})
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
            return None


def quarantine(
    spool: Spool,
    claim: Claim,
    refusal: Refusal,
    *,
    sha256: str | None,
    attempts: int,
    quarantined_at: str,
) -> Quarantined:
    """Set a claimed file aside; the caller commits its row afterwards.

    A member of an archive file that has no bytes of its own (a link, a device)
    leaves a reason without a file.
    """
    home = spool.quarantine_folder / claim.arrival_id
    done = Quarantined.read(home)
    folders = (claim.folder, folder_of(claim) / claim.arrival_id)
    begun = next((each for each in folders if (each / REASON).is_file()), None)
    if done is not None:
        if begun is not None:
            finish_quarantine(spool, begun, claim.arrival_id)
        durable.flush_folder(spool.quarantine_folder)
        return done
    if begun is not None and (told := Quarantined.read(begun)) is not None:
        finish_quarantine(spool, begun, claim.arrival_id)
        return Quarantined.read(home) or told
    claim = spool.isolate(claim)
    size = _make_durable(claim)
    told = Quarantined(
        arrival_id=claim.arrival_id,
        reason=refusal.reason,
        message=refusal.message,
        source=claim.source,
        batch=claim.batch,
        original_name=claim.original_name,
        size_bytes=size,
        sha256=sha256,
        arrived_at=claim.arrived_at,
        quarantined_at=quarantined_at,
        attempts=attempts,
    )
    durable.make_folders(claim.folder.parent.parent, claim.folder, spool.mode & 0o777)
    durable.replace_file(claim.folder / REASON, told.as_json(), _FILE_MODE)
    finish_quarantine(spool, claim.folder, claim.arrival_id)
    return Quarantined.read(home) or told


def _make_durable(claim: Claim) -> int:
    """Make a claimed file and its name durable, before a reason says that it lies there.

    Without that a power cut could leave the reason and take the file.  Returns its size in
    bytes, 0 where it is no regular file or has vanished.
    """
    try:
        status = os.lstat(claim.path)
    except FileNotFoundError:
        return 0
    is_regular = stat.S_ISREG(status.st_mode)
    if is_regular:
        try:
            descriptor = os.open(claim.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except PermissionError:
            _logger.debug("%s cannot be read, so its bytes are not flushed", claim.arrival_id)
        else:
            try:
                durable.flush_file(descriptor, claim.path)
            finally:
                os.close(descriptor)
    for folder in claim.path.parents:
        durable.flush_folder(folder)
        if folder == claim.folder:
            break
    return status.st_size if is_regular else 0


def finish_quarantine(spool: Spool, folder: Path, arrival_id: str) -> None:
    """Take a claim with a reason the rest of the way; every step may be repeated."""
    told = Quarantined.read(folder)
    if told is not None and told.kept_at is not None:
        if file_in(folder) is None:
            remove_tree(folder)  # somebody has seen to the file
        return
    path = only_file_below(folder / "in")
    if path is not None:
        _open_to_group(path)
        durable.rename(path, folder / _aside_name(path.name))
    for leftover in ("in", "members"):
        if (folder / leftover).exists():
            remove_tree(folder / leftover)
    durable.flush_folder(folder)
    if _same_file_system(folder, spool.quarantine_folder):
        durable.rename(folder, spool.quarantine_folder / arrival_id)
    else:
        _carry_over(spool, folder, arrival_id)
    durable.flush_folder(folder.parent)
    durable.flush_folder(spool.quarantine_folder)


def _aside_name(name: str) -> str:
    cut = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
    if cut.startswith(f".{REASON}"):
        return f"original{cut}"
    return f"{cut}.original" if cut in _OURS else cut


def _open_to_group(path: Path) -> None:
    """Let the group read a quarantined file; links and other people's inodes stay."""
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid():
        try:
            os.chmod(path, _FILE_MODE)
        except PermissionError as error:
            # A share whose files have no modes of their own: what it grants must do.
            _logger.debug("a quarantined file keeps its mode: %s", error.strerror)


def _same_file_system(one: Path, other: Path) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


# ----------------------------------------------------------------- from a share


class _CannotCarryError(Exception):
    """The file cannot be read, or not be made in the spool: it stays where it is."""


def _carry_over(spool: Spool, folder: Path, arrival_id: str) -> None:
    """Bring a quarantined folder from a share to the spool: a copy, then its name.

    The claim goes once the copy has its name.  Where the file had to stay, the claim
    is told last (`kept_at`), so that the next start leaves it alone.
    """
    home = spool.quarantine_folder / arrival_id
    aside = spool.root / CLAIMED / f".{arrival_id}"
    if aside.exists():
        remove_tree(aside)
    if not home.exists():
        durable.make_folder(aside, 0o770)
        folder = _copy_folder(folder, aside, arrival_id)
        durable.flush_folder(aside)
        durable.rename(aside, home)
        durable.flush_folder(home.parent)
    path = file_in(folder)
    if path is None or file_in(home) is not None or not _has_contents(path):
        if path is not None:
            durable.unlink(path)  # before its reason: without one nobody would come back for it
        remove_tree(folder)
        return
    told = Quarantined.read(home)
    if told is not None:
        durable.replace_file(folder / REASON, told.as_json(), _FILE_MODE)


def _copy_folder(folder: Path, aside: Path, arrival_id: str) -> Path:
    """Copy a claim's file and its reason; returns the claim's folder, which may move."""
    note, kept_at = "", None
    path = file_in(folder)
    if path is not None and not _has_contents(path):
        note = f" {_NO_BYTES}"
    elif path is not None:
        target = aside / path.name
        try:
            _copy_file(path, target)
        except _CannotCarryError:
            durable.unlink(target)
            folder = _hoist(folder, arrival_id)
            kept_at = shown(str(folder))
            note = f" {_STAYS.format(folder=kept_at)}"
    told = Quarantined.read(folder)
    if told is None:  # meddled with: as it is
        reason = (folder / REASON).read_bytes()
    else:
        reason = replace(told, message=told.message + note, kept_at=kept_at).as_json()
    durable.write_file(aside / REASON, reason, _FILE_MODE)
    return folder


def _has_contents(path: Path) -> bool:
    """Return whether this is a file or a link, no pipe, socket or device."""
    mode = os.lstat(path).st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _hoist(folder: Path, arrival_id: str) -> Path:
    """Take a member's folder out of its archive file's claim, which will be removed."""
    claims = next(each for each in folder.parents if each.name == CLAIMED)
    stays = claims / arrival_id
    if folder != stays:
        durable.rename(folder, stays)
        durable.flush_folder(claims)
    return stays


def _copy_file(source: Path, target: Path) -> None:
    if source.is_symlink():
        with _errors_of_the_file():
            durable.symlink(os.readlink(source), target)
        return
    with _errors_of_the_file():
        durable.effect("read", source)
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        copy = durable.create(target, _FILE_MODE)
        try:
            while data := _read(file):
                durable.write(copy, data, target)
            durable.flush_file(copy, target)
        finally:
            os.close(copy)


def _read(file: FileIO) -> bytes:
    with _errors_of_the_file():
        return file.read(1 << 20)


@contextmanager
def _errors_of_the_file() -> Iterator[None]:
    """Tell errors of this one file from those of the world."""
    try:
        yield
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        raise _CannotCarryError from error


# ---------------------------------------------------------------- what lies there


def quarantined(spool: Spool) -> Iterator[tuple[Path, Quarantined]]:
    """List the quarantine with its reasons, in order of arrival."""
    for name in sorted(os.listdir(spool.quarantine_folder)):
        folder = spool.quarantine_folder / name
        told = Quarantined.read(folder)
        if told is not None:
            yield folder, told


def file_in(folder: Path) -> Path | None:
    """Return the quarantined file itself, None where only its reason is left."""
    for name in sorted(os.listdir(folder)):
        if name != REASON and not name.startswith(f".{REASON}"):
            return folder / name
    return None


def discard(spool: Spool, arrival_id: str) -> list[str]:
    """Remove a quarantined file for good: a person's decision, recorded beforehand.

    Returns where the file itself still lies, should it never have come here: on a share,
    it could not be read.  What is gone already is fine (replay).
    """
    folder = spool.quarantine_folder / arrival_id
    told = Quarantined.read(folder)
    remove_tree(folder)
    return [told.kept_at] if told is not None and told.kept_at is not None else []
