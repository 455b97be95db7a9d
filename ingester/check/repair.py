"""Doing what can be done about findings, without losing a byte.

Files without a row are taken in; derivatives that are gone lose their row, so that
they are made again, and those that their object is known not to have go; headers and
arrivals that are gone are read from their objects; times are set; quarantined files
and kept DICOMDIRs without a row get theirs; half-made copies of an interrupted run go.
What needs a person or another copy of the bytes stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingester import durable
from ingester.archive import OBJECT_MODE, Archive, remove_tree
from ingester.check.aside import take_in_media
from ingester.check.findings import Finding, FindingKind
from ingester.check.objects import Defaults, Found, ObjectReader, no_defaults
from ingester.index.counts import recount
from ingester.index.rows import NotRecorded
from ingester.index.writer import Writer
from ingester.model import ArrivalRecord, Kind, Outcome, Version
from ingester.moments import mtime_ns_of
from ingester.prepare import Limits
from ingester.quarantine import Quarantined
from ingester.spool import QUARANTINE

_KINDS = {"jpg": Kind.THUMBNAIL, "mp4": Kind.VIDEO}


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was mended, and what stays as it was found."""

    mended: tuple[Finding, ...]
    left: tuple[Finding, ...]


def repair(
    findings: Sequence[Finding],
    archive_root: Path,
    writer: Writer,
    *,
    spool: Path | None = None,
    defaults: Defaults = no_defaults,
    limits: Limits | None = None,
) -> Repaired:
    """Mend what can be mended; runs where the one writer is, and nobody else writes."""
    mended: list[Finding] = []
    left: list[Finding] = []
    homeless = {each.path: each for each in findings if _is(each, "OBJECT_WITHOUT_ROW")}
    reader = ObjectReader(archive_root, defaults, limits or Limits())
    for found in reader.read(sorted(homeless)):
        why = take_in(writer, [found])
        left += why
        if not why:
            mended.append(homeless[found.path])
    for finding in findings:
        if finding.path in homeless:
            continue
        if finding.kind in (FindingKind.MISSING_HEADER, FindingKind.MISSING_ARRIVAL):
            is_mended = _read_again(finding, reader, writer)
        else:
            is_mended = _mend(finding, archive_root, writer, spool)
        (mended if is_mended else left).append(finding)
    return Repaired(tuple(mended), tuple(left))


def _read_again(finding: Finding, reader: ObjectReader, writer: Writer) -> bool:
    """Take from the object itself what its row lacks beside it."""
    (found,) = reader.read([finding.path])
    record = found.record
    if record is None or record.instance is None or record.stored is None:
        return False
    known = writer.version_at(finding.path)
    if known is None or known.sha256 != record.stored.sha256:
        return False  # the bytes are no longer those that were archived
    if finding.kind is FindingKind.MISSING_HEADER:
        writer.put_header(known.instance_id, record.instance.attributes)
        return True
    by_version = {Version.CURRENT: Outcome.ARCHIVED, Version.VARIANT: Outcome.VARIANT}
    outcome = by_version.get(known.version, Outcome.CONFLICT)
    writer.record([replace(record, outcome=outcome)], announce=False)
    return True


def take_in(writer: Writer, found: Iterable[Found], *, announce: bool = True) -> list[Finding]:
    """Record objects of the tree in one transaction; returns those that could not be.

    A second object that would be current of its UID becomes a conflict of the first,
    and where it is the same byte for byte it gets no row.
    """
    findings = [each.finding for each in found if each.finding is not None]
    records = {each.record.arrival_id: each.record for each in found if each.record is not None}
    try:
        writer.record(list(records.values()), announce=announce)
    except NotRecorded as refused:
        for arrival_id in refused.failed:
            findings.append(_take_second(writer, records[arrival_id], announce=announce))
    return findings


def _take_second(writer: Writer, record: ArrivalRecord, *, announce: bool) -> Finding:
    """Record an object that the index refused: another is current of its UID."""
    assert record.instance is not None
    assert record.stored is not None
    path, uid = record.stored.path, record.instance.sop_instance_uid
    for version in writer.versions([uid]).get(uid, []):
        if version.sha256 == record.stored.sha256:
            return Finding.of(FindingKind.SECOND_COPY, path, f"The other one: {version.path}")
    try:
        writer.record([as_conflict(record)], announce=announce)
    except NotRecorded as error:
        why = error.failed[record.arrival_id]
        return Finding.of(FindingKind.NOT_AN_OBJECT, path, why)
    return Finding.of(FindingKind.SECOND_CURRENT, path)


def as_conflict(record: ArrivalRecord) -> ArrivalRecord:
    """Return the record of an object that another one of its UID came before."""
    assert record.stored is not None
    return replace(
        record,
        outcome=Outcome.CONFLICT,
        stored=replace(record.stored, version=Version.CONFLICT),
    )


def _is(finding: Finding, name: str) -> bool:
    return finding.kind is FindingKind[name]


def _mend(finding: Finding, root: Path, writer: Writer, spool: Path | None) -> bool:
    if finding.kind is FindingKind.WRONG_TIME:
        return _set_time(finding.path, root, writer)
    if finding.kind is FindingKind.DERIVATIVE_WITHOUT_ROW:
        return _remove_unwanted(finding.path, root, writer)
    if finding.kind is FindingKind.MISSING_DERIVATIVE:
        return writer.forget_derivative_at(finding.path)
    if finding.kind is FindingKind.INDEX_MISCOUNTED:
        writer.run_in_transaction(recount)
        return True
    if finding.kind is FindingKind.LEFTOVER:
        remove_tree(root / finding.path)
        return True
    if finding.kind is FindingKind.QUARANTINED_WITHOUT_ROW and spool is not None:
        told = Quarantined.read(spool / finding.path)
        if told is not None:
            writer.record([told.as_record()])
            return True
    if finding.kind is FindingKind.DICOMDIR_WITHOUT_ROW:
        return not take_in_media(root, writer, [Path(finding.path).parent.name])
    if finding.kind is FindingKind.DISCARDED_LEFT and spool is not None:
        name = Path(finding.path).name
        if writer.departed([name]):
            remove_tree(spool / QUARANTINE / name)
            return True
    return False


def _set_time(path: str, root: Path, writer: Writer) -> bool:
    """Give an object the time that its row says it was archived at."""
    known = writer.version_at(path)
    if known is None:
        return False
    place = Archive(root).absolute(path)
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        when = mtime_ns_of(known.archived_at)
        durable.seal(descriptor, place, mode=OBJECT_MODE, mtime_ns=when)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _remove_unwanted(path: str, root: Path, writer: Writer) -> bool:
    """Remove a picture that its object is known not to have (any more).

    Where its row is still to be made, making it takes the file's place; where nobody
    knows the object, a person decides.
    """
    stem, _, ending = path.rpartition(".")
    kind = _KINDS.get(ending)
    if kind is None or not writer.lacks_picture(f"{stem}.dcm", kind):
        return False
    durable.unlink(Archive(root).absolute(path))
    return True
