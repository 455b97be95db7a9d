"""What an object is to the archive: new, a duplicate, a variant or a conflict.

The index tells which versions of its UID are known; `comparing` says what the object is
to each of them, and of several verdicts the best counts.  The verdict decides the path
and the row.  Nothing is moved here: a duplicate that is to take the place of a lost
file only says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingester.archive import escape_source, instance_path
from ingester.index.writer import Writer
from ingester.ingest.comparing import Compared, Comparing
from ingester.ingest.values import Entry, IngestSettings
from ingester.model import (
    ArrivalRecord,
    Clock,
    Instance,
    KnownVersion,
    Outcome,
    Prepared,
    Stored,
    Verdict,
    Version,
    moment,
)

_VERSION = {
    Outcome.ARCHIVED: Version.CURRENT,
    Outcome.VARIANT: Version.VARIANT,
    Outcome.CONFLICT: Version.CONFLICT,
}


def _current_first(version: KnownVersion) -> bool:
    # A conflict is told against what people see.
    return version.version is not Version.CURRENT


class Judge:
    """Decides what each object of a batch is, and writes its record."""

    def __init__(
        self,
        writer: Writer,
        comparing: Comparing,
        settings: IngestSettings,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._comparing = comparing
        self._settings = settings
        self._clock = clock

    def judge(self, entries: Sequence[Entry]) -> None:
        """Give each object its record and, if it is to be stored, its path.

        Raises
        ------
        Touched : a file must be read again first
        BrokenProcessPool : judge again, with a new pool
        """
        uids = {entry.instance.sop_instance_uid for entry in entries if entry.instance}
        known = self._writer.versions(uids) if uids else {}
        wanted = [
            (entry, sorted(known.get(entry.instance.sop_instance_uid, []), key=_current_first))
            for entry in entries
            if entry.instance is not None
        ]
        for (entry, _), found in zip(wanted, self._comparing.compare(wanted), strict=True):
            assert entry.instance is not None
            assert entry.prepared is not None
            self._decide(entry, entry.instance, entry.prepared, found)

    def _decide(
        self, entry: Entry, instance: Instance, prepared: Prepared, found: Sequence[Compared]
    ) -> None:
        if not found:
            self._place(entry, instance, prepared, Verdict(Outcome.ARCHIVED), {})
            return
        best = min(found, key=lambda each: each.verdict.weight)
        if best.verdict.outcome is Outcome.DUPLICATE:
            self._stays(entry, prepared, best)
            return
        told: dict[str, object] = {"compared_with": best.version.path}
        if best.is_lost:
            told["stored_file"] = best.stored_file
        self._place(entry, instance, prepared, best.verdict, told)

    def _stays(self, entry: Entry, prepared: Prepared, same: Compared) -> None:
        """Keep what is stored; where that is lost, the new bytes take its place."""
        version = same.version
        told: dict[str, object] = {"duplicate_of": version.path}
        if same.is_lost:
            told["repaired"] = version.path
            entry.replaces = version
            entry.stored = Stored(
                path=version.path,
                sha256=prepared.sha256,
                data_set_sha256=prepared.data_set_sha256 or prepared.sha256,
                size_bytes=prepared.identity.size,
                archived_at=version.archived_at,
                version=version.version,
            )
        self._record(entry, Outcome.DUPLICATE, told, instance_id=version.instance_id)

    def _place(
        self,
        entry: Entry,
        instance: Instance,
        prepared: Prepared,
        verdict: Verdict,
        told: dict[str, object],
    ) -> None:
        source = self._source(entry, instance)
        digest = None if verdict.outcome is Outcome.ARCHIVED else prepared.sha256
        path = instance_path(
            source,
            instance.study.study_date,
            instance.study_instance_uid,
            instance.sop_instance_uid,
            digest,
        )
        entry.stored = Stored(
            path=path,
            sha256=prepared.sha256,
            data_set_sha256=prepared.data_set_sha256 or prepared.sha256,
            size_bytes=prepared.identity.size,
            archived_at=entry.archived_at,
            version=_VERSION[verdict.outcome],
        )
        if verdict.outcome is Outcome.CONFLICT:
            told |= verdict.evidence
        self._record(entry, verdict.outcome, told)

    def _source(self, entry: Entry, instance: Instance) -> str:
        source = entry.item.claim.source
        sender = instance.source_application_entity_title
        if source in self._settings.named_by_file and sender:
            return escape_source(sender)
        return source

    def _record(
        self,
        entry: Entry,
        outcome: Outcome,
        detail: dict[str, object],
        *,
        instance_id: int | None = None,
    ) -> None:
        claim, prepared, instance = entry.item.claim, entry.prepared, entry.instance
        if instance is not None and instance.notes:
            detail = {**detail, "notes": list(instance.notes)}
        if entry.item.must_copy or entry.item.is_overruled:
            detail = {**detail, "intake": "copy"}
        entry.record = ArrivalRecord(
            arrival_id=claim.arrival_id,
            source=claim.source if instance is None else self._source(entry, instance),
            batch=claim.batch,
            original_name=claim.original_name,
            arrived_at=claim.arrived_at,
            finished_at=moment(self._clock.now()),
            size_bytes=prepared.identity.size if prepared else entry.item.size,
            sha256=(prepared.sha256 or None) if prepared else None,
            outcome=outcome,
            detail=detail,
            instance_id=instance_id,
            instance=instance if entry.stored else None,
            stored=entry.stored,
        )
