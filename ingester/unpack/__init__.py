"""One arrival becomes many: zip, tar and tar.gz within limits, and DICOMDIR.

An archive file is untrusted in every respect.  Its members' names never decide where
anything is written, its sizes are never believed, and what it may cost in disk, memory
and time is bounded before it is paid:

    page = extract(ExtractRequest(path, kind, folder))
    while page.next is not None:
        page = extract(ExtractRequest(path, kind, folder, first=page.next))

Either an archive file as a whole is refused, and then nothing of it was unpacked, or
every member is there, in the archive file's order, each with a path or a refusal.

A DICOMDIR is read by `read_dicomdir(path)`: which files it names, and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

from ingester import durable
from ingester.errors import Reject
from ingester.model import ContainerKind
from ingester.unpack.dicomdir import (
    MediaListing,
    Reference,
    read_dicomdir,
)
from ingester.unpack.gzips import extract_gzip
from ingester.unpack.request import (
    START,
    Extracted,
    ExtractRequest,
    Member,
    Place,
    Survey,
    UnpackLimits,
)
from ingester.unpack.tars import extract_tar
from ingester.unpack.zips import extract_zip

__all__ = [
    "START",
    "ExtractRequest",
    "Extracted",
    "MediaListing",
    "Member",
    "Place",
    "Reference",
    "Survey",
    "UnpackLimits",
    "extract",
    "read_dicomdir",
]


def extract(request: ExtractRequest) -> Extracted:
    """Unpack one page of an archive file into *request.folder*.

    The archive file itself is flushed, its members are not: it must stay until every
    member's fate is durable.  Calling it again with the same request makes the same page
    again.

    Raises
    ------
    OSError
        the disk is at fault (full, unreadable): try again later
    """
    descriptor = os.open(request.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if request.first.number <= 1:
            # Its writer may have flushed nothing: without its bytes a power cut would leave
            # members in the archive that nobody comes back for.
            durable.flush_file(file.fileno(), Path(request.path))
        try:
            if request.kind is ContainerKind.ZIP:
                return extract_zip(file, request)
            if request.kind is ContainerKind.GZIP:
                return extract_gzip(file, request)
            return extract_tar(file, request)
        except Reject as reject:
            return Extracted(refusal=reject.refusal)
