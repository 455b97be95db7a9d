"""What a DICOMDIR names that is not there: what it says, compared with the index.

An object is there when the index has its SOP Instance UID, whoever brought it.  Old
directories name files without UIDs: such a file is there when one of that name came
with the DICOMDIR and is archived, in whatever spelling its medium was read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from ingester.index.writer import Writer
from ingester.kept import kept_at
from ingester.model import Origin, moment, type_json
from ingester.unpack import MediaListing, Reference

#: How many missing files of a DICOMDIR its arrival names one by one.
NAMED_MISSING = 1000

_VERSION = re.compile(r";[0-9]+$")


def missing_from(
    listing: MediaListing, original_name: str, origin: Origin, writer: Writer
) -> list[Reference]:
    """Return what a DICOMDIR names and what is neither archived nor came beside it.

    Parameters
    ----------
    original_name : the DICOMDIR's; its File IDs begin in the same folder
    origin : source and batch of what lies around it; the batch None where that lies in
        the drop folder itself, and so in a batch for each folder
    """
    uids = {each.sop_instance_uid for each in listing.references if each.sop_instance_uid}
    known = writer.versions(uids)
    missing = [each for each in listing.references if each.sop_instance_uid not in known]
    nameless = [each for each in missing if each.sop_instance_uid is None]
    if not nameless:
        return missing
    folder = original_name.rpartition("/")[0]
    there = {_spelt(name) for name in writer.stored_names(*_batches(nameless, origin))}
    return [
        each
        for each in missing
        if each.sop_instance_uid is not None or _spelt(f"{folder}/{each.file_id}") not in there
    ]


def _batches(references: Sequence[Reference], origin: Origin) -> tuple[str, set[str]]:
    source, batch = origin
    if batch is not None:
        return source, {batch}
    first = {each.file_id.partition("/")[0] for each in references}
    return source, first | {each.lower() for each in first} | {each.upper() for each in first}


def _spelt(name: str) -> str:
    """Return a name as all systems spell it: ISO 9660 adds `;1` or a dot, some small letters."""
    parts = [_VERSION.sub("", part).rstrip(".").casefold() for part in name.split("/")]
    return "/".join(part for part in parts if part)


def as_detail(
    arrival_id: str, listing: MediaListing, missing: Sequence[Reference], now: datetime
) -> dict[str, type_json]:
    """Return what the arrival of a DICOMDIR tells of it."""
    return {
        "kept_at": kept_at(arrival_id),
        "checked_at": moment(now),
        "referenced": len(listing.references),
        "missing": len(missing),
        "missing_files": [
            {"file_id": each.file_id, "sop_instance_uid": each.sop_instance_uid}
            for each in missing[:NAMED_MISSING]
        ],
    }
