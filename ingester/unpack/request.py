"""What is asked of the unpacking, and what it answers: small picklable values.

An archive file is unpacked in pages, so that neither the disk nor one call has to
hold the whole of it: each answer names the place that the next page begins at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ingester.model import ContainerKind, Refusal

#: How much is read, inflated and written at a time (bytes).
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What no honest archive file exceeds (contract, section 6, `[limits] archive_…`).

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
class Place:
    """Where a page begins: an entry, by its number (from 1) and by where it is found.

    `offset` is in bytes: into the file, of a zip's directory entry; into the unpacked
    stream, of a tar's header; 0 where it is to be found by counting.
    """

    number: int = 1
    offset: int = 0


START = Place()


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """One page of an archive file, to be unpacked into *folder*.

    Parameters
    ----------
    path : of the archive file
    folder : where `<number>=<name>` of each member is made; it must exist
    first : where to begin
    done : numbers of members that are not wanted: an earlier run has seen to them
    most_members, most_bytes : a page is full with so many, or once it is so large
    """

    path: str
    kind: ContainerKind
    folder: str
    first: Place = START
    done: frozenset[int] = frozenset()
    limits: UnpackLimits = field(default_factory=UnpackLimits)
    most_members: int = 512
    most_bytes: int = 256 * 2**20


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
class Survey:
    """What an archive file holds in all, folders and the litter of systems aside."""

    members: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """One page of members, in the archive file's order.

    `next` is where the next page begins, None after the last; that page may turn out
    to be empty.  `survey` comes with the page that begins at the start.  `skipped`
    counts the folders and the litter of operating systems in this page.  With a
    `refusal` on the first page nothing was unpacked: the archive file stays whole.
    """

    members: tuple[Member, ...] = ()
    next: Place | None = None
    refusal: Refusal | None = None
    survey: Survey | None = None
    skipped: int = 0
