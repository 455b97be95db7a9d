"""What is asked of the unpacking, and what it answers: small picklable values.

An archive file is unpacked in pages, so that neither the disk nor one call has to
hold the whole of it: each answer names the entry that the next page begins with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ingester.model import ContainerKind, Refusal

#: How much is read, inflated and written at a time (bytes).
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What no honest archive file exceeds.

    Parameters
    ----------
    members : entries, folders included
    total_bytes : of all members, unpacked
    ratio : unpacked to packed size, of a member and of the whole; it counts only for
        what unpacks to more than *ratio_floor_bytes* (an empty image packs well)
    """

    members: int = 100_000
    total_bytes: int = 64 * 2**30
    ratio: int = 200
    ratio_floor_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """One page of an archive file, to be unpacked into *folder*.

    Parameters
    ----------
    path : of the archive file
    folder : where `<number>/in/<name>` of each member is made; it must exist
    first : the entry to begin with (entries are numbered from 1; 0 is taken as 1)
    most_members, most_bytes : where the page ends; one member at least is in it
    """

    path: str
    kind: ContainerKind
    folder: str
    first: int = 1
    limits: UnpackLimits = field(default_factory=UnpackLimits)
    most_members: int = 2048
    most_bytes: int = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive file.

    `name` is the one in the archive, made printable; `path` is absolute, or None
    where the member has no bytes of its own (a link, a device).  With a `refusal`
    that is `malformed`, the file at `path` is the member's raw record, as it stands
    in the archive file, so that nothing is lost with that.
    """

    number: int
    name: str
    path: str | None
    size_bytes: int
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Extracted:
    """One page of members, in the archive file's order.

    `next` is what the next page begins with, None after the last.  `skipped` counts
    the folders and the litter of operating systems in this page.  With a `refusal`
    nothing was unpacked: the archive file stays whole.
    """

    members: tuple[Member, ...] = ()
    next: int | None = None
    refusal: Refusal | None = None
    skipped: int = 0
