"""What a batch is measured by: a DICOMDIR that came with it, or a file that somebody gives.

What the file is, its first bytes tell; its name is not asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ingester.dicom import part10
from ingester.dicom.sources import File
from ingester.errors import Reject
from ingester.receipt.lists import BadList, Expected, read_list
from ingester.sniff import sniff
from ingester.spool import shown
from ingester.unpack import read_dicomdir

_HEAD_BYTES = 4096
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"

#: A DICOMDIR names objects; a list names files, of whatever kind, or objects.
Kind = Literal["dicomdir", "list"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """A list of what ought to be there; `name` is what people know it by.

    `folder` is the folder of the DICOMDIR within its batch, "" for the top: its File IDs
    begin there.
    """

    kind: Kind
    name: str
    path: Path
    folder: str = ""

    def expected(self) -> Iterator[Expected]:
        """Yield what it names, in its order.

        Raises
        ------
        BadList
            It cannot be read as what it seems to be.
        OSError
            The file cannot be read.
        """
        if self.kind == "list":
            yield from read_list(self.path)
            return
        listing = read_dicomdir(str(self.path))
        if listing.refusal is not None:
            raise BadList(f"{self.name}: {listing.refusal.message}")
        for number, each in enumerate(listing.references, start=1):
            name = f"{self.folder}/{each.file_id}" if self.folder else each.file_id
            yield Expected(number, name, each.sop_instance_uid, what=each.what)


def given(path: Path) -> Expectation:
    """Return the expectation that a file holds, by its first bytes.

    Raises
    ------
    BadList
        It is an object or an archive file, no list of any.
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    name = shown(str(path))
    if _DIRECTORY_CLASS in head:
        _make_sure_it_is_whole(path, name)
        return Expectation("dicomdir", name, path)
    kind = sniff(head)
    if kind == "dicom":
        raise BadList(f"{name} is a DICOM object, not a DICOMDIR: it names no others")
    if kind in ("zip", "tar", "gzip"):
        raise BadList(f"{name} is an archive file: give the list or the DICOMDIR that is in it")
    return Expectation("list", name, path)


def _make_sure_it_is_whole(path: Path, name: str) -> None:
    """Walk a DICOMDIR to its last byte: half of one would expect half of the objects."""
    with path.open("rb") as file:
        try:
            part10.read(File(file.fileno(), os.fstat(file.fileno()).st_size), part10.Settings())
        except Reject as error:
            raise BadList(f"{name}: {error.refusal.message}") from None
