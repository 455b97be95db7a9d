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

import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

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
_NEXT_RECORD = 0x00041400
_RECORD_IN_USE_FLAG = 0x00041410
_LOWER_LEVEL_RECORD = 0x00041420
_RECORD_TYPE = 0x00041430
_MODALITY, _SERIES_NUMBER, _INSTANCE_NUMBER = 0x00080060, 0x00200011, 0x00200013
_REFERENCED_FILE_ID = 0x00041500
_REFERENCED_SOP_INSTANCE_UID_IN_FILE = 0x00041511
_INACTIVE = b"\0\0"
_LONGEST_UID = 64
_CODE = re.compile(rb"[A-Z0-9_][A-Z0-9_ ]{0,15}")
_NUMBER = re.compile(rb"[+-]?[0-9]{1,11}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One file that a DICOMDIR names.

    `file_id` is for people: its parts joined by `/`, made printable.  So is `what`, which
    names nobody: "IMAGE CT, series 3, number 17", as far as the directory says it.
    """

    file_id: str
    sop_instance_uid: str | None
    what: str = ""


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
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            # Some bear no preamble; what the file is was found out before.
            ds = dcmread(file, force=True, specific_tags=["DirectoryRecordSequence"])
            if "DirectoryRecordSequence" not in ds:
                return MediaListing(refusal=_no_records())
            references: dict[tuple[str, str | None], Reference] = {}
            for each in _references(ds):
                references.setdefault((each.file_id, each.sop_instance_uid), each)
    except _DAMAGE:
        return MediaListing(refusal=_no_records())
    return MediaListing(tuple(references.values()))


def _no_records() -> Refusal:
    return Refusal(
        Reason.MALFORMED,
        "The DICOMDIR's directory records cannot be read. The images beside it were taken all"
        " the same, but nobody can tell whether one is missing.",
    )


def _references(ds: Dataset) -> Iterator[Reference]:
    records: Sequence[Dataset] = ds.get("DirectoryRecordSequence") or ()
    series = _series_of(records, "little" if ds.original_encoding[1] else "big")
    for number, record in enumerate(records):
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
            what=_described(record, series.get(number)),
        )


def _series_of(
    records: Sequence[Dataset], byte_order: Literal["little", "big"]
) -> dict[int, Dataset]:
    """Return of each record (by its number) the SERIES record that it lies below.

    The offsets tell, in whatever order the records stand; those that lead nowhere are
    believed to mean nothing.
    """
    numbers = {getattr(record, "seq_item_tell", None): n for n, record in enumerate(records)}
    found: dict[int, Dataset] = {}
    for record in records:
        if _raw(record, _RECORD_TYPE).strip(b" \0") != b"SERIES":
            continue
        offset = _raw(record, _LOWER_LEVEL_RECORD)
        number = numbers.get(int.from_bytes(offset, byte_order)) if offset else None
        while number is not None and number not in found:
            found[number] = record
            following = _raw(records[number], _NEXT_RECORD)
            number = numbers.get(int.from_bytes(following, byte_order)) if following else None
    return found


def _described(record: Dataset, series: Dataset | None) -> str:
    """Return what kind of object a record names, without a word about the patient."""
    above = series if series is not None else Dataset()
    words = [_plain(record, _RECORD_TYPE, _CODE), _plain(above, _MODALITY, _CODE)]
    parts = [" ".join(word for word in words if word)]
    for name, ds, tag in (
        ("series", above, _SERIES_NUMBER),
        ("number", record, _INSTANCE_NUMBER),
    ):
        if number := _plain(ds, tag, _NUMBER):
            parts.append(f"{name} {number}")
    return ", ".join(part for part in parts if part)


def _plain(record: Dataset, tag: int, form: re.Pattern[bytes]) -> str:
    value = _raw(record, tag).strip(b" \0")
    return value.decode("ascii") if form.fullmatch(value) else ""


def _raw(record: Dataset, tag: int) -> bytes:
    """Return an element's bytes as they stand, so that odd values never matter."""
    value = record.get_item(tag).value if tag in record else None
    return value if isinstance(value, bytes) else b""
