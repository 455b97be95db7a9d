"""Doing what can be done about findings, without losing a byte.

Files without a row are taken in; derivatives that are gone lose their row, so that
they are made again; quarantined files without a row get theirs; half-made copies of
an interrupted run go.  What needs a person or another copy of the bytes stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingester.archive import remove_tree
from ingester.check.findings import Finding, FindingKind
from ingester.check.objects import Defaults, Found, ObjectReader, no_defaults
from ingester.index.counts import recount
from ingester.index.rows import NotRecorded
from ingester.index.writer import Writer
from ingester.model import ArrivalRecord, Outcome, Version
from ingester.prepare import Limits
from ingester.quarantine import Quarantined
from ingester.spool import QUARANTINE


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
        is_mended = _mend(finding, archive_root, writer, spool)
        (mended if is_mended else left).append(finding)
    return Repaired(tuple(mended), tuple(left))


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
    if finding.kind is FindingKind.DISCARDED_LEFT and spool is not None:
        name = Path(finding.path).name
        if writer.departed([name]):
            remove_tree(spool / QUARANTINE / name)
            return True
    return False
