"""Why an archive file is not unpacked, in words that say what to do about it."""

from __future__ import annotations

from ingester.errors import Reject
from ingester.model import Reason
from ingester.unpack.request import UnpackLimits

_RAISE = (
    "If it is genuine, raise that limit in ingest.toml and retry it, or unpack it and drop the"
    " files."
)
_GIB = 2**30


def cut_short(kind: str, how: str) -> Reject:
    """Return the refusal of an archive file that ends too early; *kind* is zip or tar."""
    return Reject(
        Reason.INCOMPLETE,
        f"The {kind} archive is cut short: {how}. None of it was taken. Copy or send it again.",
        may_grow=True,
    )


def malformed(kind: str, why: str) -> Reject:
    """Return the refusal of an archive file that breaks its own rules."""
    return Reject(
        Reason.MALFORMED,
        f"The {kind} archive cannot be read: {why}. Copy or send it again; if it comes out the"
        " same, unpack what can be unpacked and drop the files.",
    )


def unreadable(kind: str, why: str) -> Reject:
    """Return the refusal of an archive file that only other programs can unpack."""
    return Reject(Reason.UNREADABLE, f"The {kind} archive {why}: unpack it and drop the files.")


def too_many(kind: str, limits: UnpackLimits) -> Reject:
    """Return the refusal of too many members."""
    return _bomb(
        kind, f"it has more than {limits.members:,} members ([limits] archive_members). {_RAISE}"
    )


def too_large(kind: str, limits: UnpackLimits) -> Reject:
    """Return the refusal of too many bytes."""
    most = f"{limits.total_bytes / _GIB:g} GiB"
    return _bomb(kind, f"it unpacks to more than {most} ([limits] archive_bytes). {_RAISE}")


def too_dense(kind: str, limits: UnpackLimits) -> Reject:
    """Return the refusal of what unpacks to far more than it takes."""
    why = f"it unpacks to more than {limits.ratio} times its size ([limits] archive_ratio)"
    return _bomb(kind, f"{why}. {_RAISE}")


def overlapping(kind: str) -> Reject:
    """Return the refusal of an archive file whose members share bytes."""
    return _bomb(kind, "its members overlap, as no honest program writes them.")


def _bomb(kind: str, why: str) -> Reject:
    return Reject(Reason.BOMB, f"The {kind} archive is not unpacked: {why}")
