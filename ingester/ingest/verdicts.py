"""What an object is to the archive: new, a duplicate, a variant or a conflict.

The index tells which versions of its UID are known.  Equal data sets are a
duplicate by their hash alone; anything else is compared value by value in the pool.
The verdict decides the path and the row; nothing is moved here, except that a
duplicate whose stored file is missing or damaged puts its bytes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool

from ingester.archive import Archive, escape_source, instance_path
from ingester.compare import CannotCompare, CompareRequest, compare
from ingester.index.writer import Writer
from ingester.ingest.adoption import Adoption
from ingester.ingest.sealing import Sealing
from ingester.ingest.values import MOST_BREAKS, Entry, IngestSettings
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
#: Of several verdicts the first of these counts.
_ORDER = (Outcome.DUPLICATE, Outcome.VARIANT, Outcome.CONFLICT)


class Judge:
    """Decides what each object of a batch is, and writes its record."""

    def __init__(
        self,
        archive: Archive,
        writer: Writer,
        sealing: Sealing,
        adoption: Adoption,
        executor: Callable[[], Executor],
        settings: IngestSettings,
        clock: Clock,
    ) -> None:
        self._archive = archive
        self._writer = writer
        self._sealing = sealing
        self._adoption = adoption
        self._executor = executor
        self._settings = settings
        self._clock = clock

    def judge(self, entries: Sequence[Entry]) -> None:
        """Give each object its record and, if it is to be stored, its path.

        Raises
        ------
        Touched, CannotLink : a file must be read again first
        BrokenProcessPool : judge again, with a new pool
        """
        uids = {entry.instance.sop_instance_uid for entry in entries if entry.instance}
        known = self._writer.versions(uids) if uids else {}
        for entry in entries:
            if entry.instance is None or entry.prepared is None or entry.stored is not None:
                continue
            versions = known.get(entry.instance.sop_instance_uid, [])
            self._decide(entry, entry.instance, entry.prepared, versions)

    def _decide(
        self,
        entry: Entry,
        instance: Instance,
        prepared: Prepared,
        versions: Sequence[KnownVersion],
    ) -> None:
        if not versions:
            self._place(entry, instance, prepared, Verdict(Outcome.ARCHIVED), None)
            return
        verdict, other = self._compare(entry, instance, prepared, versions)
        if verdict.outcome is not Outcome.DUPLICATE:
            self._place(entry, instance, prepared, verdict, other)
            return
        detail: dict[str, object] = {"duplicate_of": other.path}
        if self._archive.size_of(other.path) != other.size_bytes:
            if prepared.sha256 != other.sha256:
                # The stored file is gone or damaged and these are other bytes with the
                # same values: kept beside it, so that nothing depends on the loss.
                lost = Verdict(Outcome.CONFLICT)
                self._place(entry, instance, prepared, lost, other, stored_file="damaged")
                return
            self._adoption.repair(entry, other)
            detail["repaired"] = other.path
        self._record(entry, Outcome.DUPLICATE, detail, instance_id=other.instance_id)

    def _compare(
        self,
        entry: Entry,
        instance: Instance,
        prepared: Prepared,
        versions: Sequence[KnownVersion],
    ) -> tuple[Verdict, KnownVersion]:
        for version in versions:
            if (version.data_set_sha256, version.transfer_syntax_uid) == (
                prepared.data_set_sha256,
                instance.transfer_syntax_uid,
            ):
                return Verdict(Outcome.DUPLICATE), version
        found: list[tuple[Verdict, KnownVersion]] = []
        for version in versions:
            verdict = self._compare_values(entry, version)
            found.append((verdict, version))
            if verdict.outcome is Outcome.DUPLICATE:
                break
        return min(found, key=lambda each: _ORDER.index(each[0].outcome))

    def _compare_values(self, entry: Entry, version: KnownVersion) -> Verdict:
        request = CompareRequest(
            new_path=str(self._sealing.bytes_of(entry)),
            old_path=str(self._archive.absolute(version.path)),
            limits=self._settings.limits,
            character_set=self._settings.defaults_of(entry.item.claim.source).character_set,
            old_character_set=self._settings.defaults_of(version.source).character_set,
            old_sha256=version.sha256,
        )
        try:
            return self._executor().submit(compare, request).result()
        except CannotCompare:
            # The stored file is gone or damaged: both are kept, and `verify` tells.
            return Verdict(Outcome.CONFLICT)
        except BrokenProcessPool:
            # Perhaps something else broke it.  Two files that no comparison
            # survives are both kept, which is what a conflict means.
            entry.breaks += 1
            if entry.breaks < MOST_BREAKS:
                raise
            return Verdict(Outcome.CONFLICT)

    def _place(
        self,
        entry: Entry,
        instance: Instance,
        prepared: Prepared,
        verdict: Verdict,
        other: KnownVersion | None,
        **detail: str,
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
        told: dict[str, object] = dict(detail)
        if other is not None:
            told["compared_with"] = other.path
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
