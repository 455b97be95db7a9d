"""A DICOMDIR as what it is: a list of files that ought to lie beside it.

Only its words are read: which File IDs it names, and which SOP Instance UIDs it says
they have.  A File ID is never turned into a path and never opened: what is there is decided
by the SOP Instance UIDs that arrived, for files are renamed and media are mounted in
many spellings.  pydicom's `FileSet` is not used, for it resolves File IDs on the disk.

References
----------
PS3.3 Annex F (Basic Directory), PS3.10 section 8.2 (File IDs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from ingester.model import Reason, Refusal
from ingester.unpack.names import shown

#: What pydicom raises on damaged or hostile bytes; it has no common base.
_DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    struct.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
_RECORD_IN_USE_FLAG = 0x00041410
_REFERENCED_FILE_ID = 0x00041500
_REFERENCED_SOP_INSTANCE_UID_IN_FILE = 0x00041511
_INACTIVE = b"\0\0"
_LONGEST_UID = 64


@dataclass(frozen=True, slots=True)
class Reference:
    """One file that a DICOMDIR names.

    `file_id` is for people: its parts joined by `/`, made printable.
    """

    file_id: str
    sop_instance_uid: str | None


@dataclass(frozen=True, slots=True)
class MediaListing:
    """What a DICOMDIR names, in its order, or why it cannot be read."""

    references: tuple[Reference, ...] = ()
    refusal: Refusal | None = None


def read_dicomdir(path: str) -> MediaListing:
    """List the files that a DICOMDIR names.

    Records that are no longer in use are left out, and so are files named twice.

    Raises
    ------
    OSError
        the file cannot be read: try again later
    """
    try:
        with open(path, "rb") as file:
            ds = dcmread(file, specific_tags=["DirectoryRecordSequence"])
        references = tuple(dict.fromkeys(_references(ds)))
    except _DAMAGE:
        return MediaListing(
            refusal=Refusal(Reason.MALFORMED, "The DICOMDIR's directory records cannot be read.")
        )
    return MediaListing(references)


def _references(ds: Dataset) -> Iterator[Reference]:
    for record in ds.get("DirectoryRecordSequence") or ():
        if _raw(record, _RECORD_IN_USE_FLAG) == _INACTIVE:
            continue
        file_id = _raw(record, _REFERENCED_FILE_ID).strip(b" \0")
        if not file_id:
            continue
        parts = (part.strip(b" ") for part in file_id.split(b"\\"))
        uid = _raw(record, _REFERENCED_SOP_INSTANCE_UID_IN_FILE)[:_LONGEST_UID].strip(b" \0")
        yield Reference(
            file_id=shown(b"/".join(parts).decode("utf-8", "surrogateescape")),
            sop_instance_uid=uid.decode("ascii", "backslashreplace") or None,
        )


def _raw(record: Dataset, tag: int) -> bytes:
    """Return an element's bytes as they stand, so that odd values never matter."""
    value = record.get_item(tag).value if tag in record else None
    return value if isinstance(value, bytes) else b""
