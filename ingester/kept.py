"""The DICOMDIRs that the archive keeps, each beside what its arrival's row says.

    archive/.media/<arrival id>/DICOMDIR
                               /arrival.json      so that the row can be made again

A DICOMDIR is no object of the tree, and nothing in it tells whence it came; so, as with
a quarantined file's `reason.json`, its row can be made again from a file beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ingester import durable
from ingester.archive import DERIVATIVE_MODE, Archive
from ingester.claims import is_arrival_id
from ingester.model import ArrivalRecord, Outcome

DIRECTORY = "DICOMDIR"
ARRIVAL = "arrival.json"

_FOLDER_MODE = 0o750
_TOLD = (
    "source", "batch", "original_name", "arrived_at", "finished_at", "size_bytes", "sha256",
)  # fmt: skip


def home_of(archive: Archive, arrival_id: str) -> Path:
    """Return the folder that an arrival's DICOMDIR is kept in."""
    return archive.media / arrival_id


def keep(archive: Archive, record: ArrivalRecord, contents: Iterable[bytes]) -> None:
    """Keep a DICOMDIR, durably, before its row is committed; may be repeated."""
    home = home_of(archive, record.arrival_id)
    durable.make_folder(home, _FOLDER_MODE)
    told = {name: getattr(record, name) for name in _TOLD}
    text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    durable.replace_file(home / ARRIVAL, text.encode("utf-8", "backslashreplace"), DERIVATIVE_MODE)
    if not (home / DIRECTORY).exists():
        durable.replace_file(home / DIRECTORY, contents, DERIVATIVE_MODE)
    durable.flush_folder(archive.media)


def kept(archive: Archive) -> Iterator[str]:
    """Yield the arrival ids of the DICOMDIRs that are kept, in their order."""
    names = sorted(os.listdir(archive.media)) if archive.media.is_dir() else []
    return (name for name in names if is_arrival_id(name) and _is_file(home_of(archive, name)))


def _is_file(home: Path) -> bool:
    path = home / DIRECTORY
    return path.is_file() and not path.is_symlink() and not home.is_symlink()


def as_record(archive: Archive, arrival_id: str) -> ArrivalRecord | None:
    """Return the row of a kept DICOMDIR as its file tells it, None where none can be read.

    What it names and is missing is left out: that was true when it was told.
    """
    try:
        told = json.loads((home_of(archive, arrival_id) / ARRIVAL).read_bytes())
        return ArrivalRecord(
            arrival_id=arrival_id,
            source=str(told["source"]),
            batch=None if told["batch"] is None else str(told["batch"]),
            original_name=str(told["original_name"]),
            arrived_at=str(told["arrived_at"]),
            finished_at=str(told["finished_at"]),
            size_bytes=int(told["size_bytes"]),
            sha256=str(told["sha256"]),
            outcome=Outcome.UNPACKED,
            detail={"kept_at": kept_at(arrival_id)},
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def kept_at(arrival_id: str) -> str:
    """Return where a DICOMDIR is kept, relative to the archive."""
    return f".media/{arrival_id}/{DIRECTORY}"
