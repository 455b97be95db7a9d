"""The durable steps of a batch: the order of these lines is the guarantee.

    seal, flush  mode, time and bytes of each object, begun as soon as it was read
    verdict      what the index and the stored versions say of each UID
    folders      each new one durable in its parent
    link         the final name, never replacing
    flush        the names, each folder once
    quarantine   what was refused
    COMMIT       all rows
    release      only now the spool forgets

Every step may be repeated: after a crash or a transient fault the same lines run
again and find what is done already.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ingester import durable
from ingester.archive import (
    CANNOT_LINK,
    NEVER_LINKS,
    OBJECT_MODE,
    Archive,
    Published,
    escape_source,
    instance_path,
)
from ingester.compare import CompareRequest, compare
from ingester.errors import Reject
from ingester.index.rows import NotRecorded
from ingester.index.writer import Writer
from ingester.ingest.values import Entry, IngestSettings
from ingester.model import (
    ArrivalRecord,
    Clock,
    FileIdentity,
    Instance,
    KnownVersion,
    Outcome,
    Prepared,
    Reason,
    Refusal,
    Stored,
    Verdict,
    Version,
    moment,
    new_id,
)
from ingester.pool import prepare_many
from ingester.prepare import PrepareRequest
from ingester.quarantine import quarantine
from ingester.spool import Spool

_VERSION = {
    Outcome.ARCHIVED: Version.CURRENT,
    Outcome.VARIANT: Version.VARIANT,
    Outcome.CONFLICT: Version.CONFLICT,
}


_REFUSED = Refusal(
    Reason.POISON, "The index could not take this object; the file was set aside. Please report it."
)

_logger = logging.getLogger(__name__)

#: After so many reading processes that a comparison broke, it is given up.
_MOST_BREAKS = 3


class Touched(Exception):
    """The file is not the one that was read: read it again."""

    def __init__(self, entry: Entry) -> None:
        super().__init__("the file changed after it was read")
        self.entry = entry


class CannotLink(Exception):
    """These bytes cannot get a final name by a link, or not be made durable: copy."""

    def __init__(self, entry: Entry, *, is_general: bool = False) -> None:
        super().__init__("the file must be copied")
        self.entry = entry
        self.is_general = is_general  # its neighbours on the same file system must be, too


class Publisher:
    """Takes batches of decided files through the durable steps."""

    def __init__(
        self,
        spool: Spool,
        archive: Archive,
        writer: Writer,
        executor: Callable[[], Executor],
        settings: IngestSettings,
        clock: Clock,
    ) -> None:
        self._spool = spool
        self._archive = archive
        self._writer = writer
        self._executor = executor
        self._settings = settings
        self._clock = clock
        self._last_us = 0
        self._flushers = ThreadPoolExecutor(8, thread_name_prefix="flush")

    def close(self) -> None:
        """End the threads that flush."""
        self._flushers.shutdown()

    def begin(self, entry: Entry) -> None:
        """Begin to make an object's bytes durable, while others are still being read."""
        if entry.instance is not None and entry.flushing is None:
            entry.archived_at = self._next_moment()
            entry.flushing = self._flushers.submit(self._seal_and_flush, entry)

    def commit(self, batch: Sequence[Entry]) -> tuple[list[ArrivalRecord], list[Entry]]:
        """Take a batch all the way; returns the rows that were committed, and the rest.

        The rest are files whose rows the index refuses, which only a fault of ours can
        bring about: they are to be set aside, which the next call does.

        Raises
        ------
        Touched, CannotLink : one file must be read again before the rest can go on
        OSError, sqlite3.Error : the world's fault; call again with the same batch
        BrokenProcessPool : call again with the same batch, and a new pool
        """
        open_entries = [entry for entry in batch if entry.record is None]
        for entry in open_entries:
            self.begin(entry)
        try:
            self._judge(open_entries)
            self._publish([entry for entry in open_entries if entry.stored is not None])
        except BaseException:
            # The records were made in the belief that all of these steps succeed.
            for entry in open_entries:
                self._begin_anew(entry)
            raise
        for entry in open_entries:
            if entry.refusal is not None:
                self._set_aside(entry)
            elif entry.record is None:
                raise AssertionError("every entry has been decided")
        records = [entry.record for entry in batch if entry.record is not None]
        failed: dict[str, str] = {}
        try:
            ids = self._writer.record(records)
        except NotRecorded as error:
            failed, ids = error.failed, error.instance_ids
        for entry in batch:
            if entry.item.claim.arrival_id in failed:
                _logger.error("the index refuses the row of %s", entry.item.claim.arrival_id)
                entry.refusal, entry.instance, entry.stored, entry.record = (
                    _REFUSED,
                    None,
                    None,
                    None,
                )
            elif entry.refusal is None:
                if entry.flushing is not None:
                    wait([entry.flushing])
                self._spool.release(entry.item.claim)
                if entry.prepared is not None and entry.prepared.staged:
                    durable.unlink(self._staged(entry))
        done = [
            replace(record, instance_id=instance_id)
            for record, instance_id in zip(records, ids, strict=True)
            if record.arrival_id not in failed
        ]
        return done, [entry for entry in batch if entry.item.claim.arrival_id in failed]

    # ---------------------------------------------------------------- verdicts

    def _judge(self, entries: Sequence[Entry]) -> None:
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
            self._repair(entry, other)
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
            request = CompareRequest(
                new_path=str(self._bytes_of(entry)),
                old_path=str(self._archive.absolute(version.path)),
                limits=self._settings.limits,
                character_set=self._settings.defaults_of(entry.item.claim.source).character_set,
            )
            try:
                verdict = self._executor().submit(compare, request).result()
            except (FileNotFoundError, Reject):
                # The stored file is gone or damaged: both are kept, and `verify` tells.
                verdict = Verdict(Outcome.CONFLICT)
            except BrokenProcessPool:
                # Perhaps something else broke it.  Two files that no comparison
                # survives are both kept, which is what a conflict means.
                entry.breaks += 1
                if entry.breaks < _MOST_BREAKS:
                    raise
                verdict = Verdict(Outcome.CONFLICT)
            found.append((verdict, version))
            if verdict.outcome is Outcome.DUPLICATE:
                break
        order = [Outcome.DUPLICATE, Outcome.VARIANT, Outcome.CONFLICT]
        return min(found, key=lambda each: order.index(each[0].outcome))

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
            told["differs"] = list(verdict.differs)
            told["pixels_differ"] = verdict.pixels_differ
        self._record(entry, verdict.outcome, told)

    def _source(self, entry: Entry, instance: Instance) -> str:
        source = entry.item.claim.source
        sender = instance.source_application_entity_title
        if source in self._settings.named_by_file and sender:
            return escape_source(sender)
        return source

    def _next_moment(self) -> str:
        """Return the moment of archiving: later than every one before, to the µs.

        A rebuild takes the objects in the order of these moments, so no two may be
        equal.
        """
        now = int(self._clock.now().timestamp() * 1_000_000)
        self._last_us = max(self._last_us + 1, now)
        return _moment_of(self._last_us)

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

    # ------------------------------------------------------------------- bytes

    def _staged(self, entry: Entry) -> Path:
        return self._archive.staging / entry.item.claim.arrival_id

    def _bytes_of(self, entry: Entry) -> Path:
        if entry.prepared is not None and entry.prepared.staged:
            return self._staged(entry)
        return entry.item.claim.path

    def _publish(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        for entry in entries:
            if entry.flushing is not None:
                entry.flushing.result()
        stored = [entry.stored for entry in entries if entry.stored is not None]
        paths = [each.path for each in stored]
        self._archive.make_homes(paths)
        for entry in entries:
            self._link(entry)
        self._archive.flush_homes(paths)

    def _begin_anew(self, entry: Entry) -> None:
        """Forget what was decided; a flush under way is waited for, lest two meet."""
        entry.record = entry.stored = None
        if entry.flushing is not None:
            wait([entry.flushing])
            entry.flushing = None

    def _seal_and_flush(self, entry: Entry) -> None:
        """Give the bytes their mode and time and flush them, sure that they were read."""
        assert entry.prepared is not None
        if entry.has_failed:
            raise CannotLink(entry)
        path = self._bytes_of(entry)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError as error:
            raise Touched(entry) from error
        try:
            status = FileIdentity.of(os.fstat(descriptor))
            read = entry.sealed or entry.prepared.identity
            if not entry.prepared.staged and not _is_untouched(status, read):
                raise Touched(entry)
            when = _ns_of(entry.archived_at)
            durable.seal(descriptor, path, mode=OBJECT_MODE, mtime_ns=when)
            entry.sealed = FileIdentity.of(os.fstat(descriptor))
            try:
                durable.flush_file(descriptor, path)
            except OSError as error:
                # Asking again would be told a lie: the bytes are copied once more.
                entry.has_failed = True
                raise CannotLink(entry) from error
        finally:
            os.close(descriptor)

    def _link(self, entry: Entry) -> None:
        assert entry.stored is not None
        assert entry.record is not None
        if self._give_name(entry, entry.stored.path) is Published.OCCUPIED:
            self._meet(entry, entry.stored.path)

    def _give_name(self, entry: Entry, path: str) -> Published:
        try:
            return self._archive.publish(self._bytes_of(entry), path)
        except FileNotFoundError as error:
            raise Touched(entry) from error
        except OSError as error:
            if entry.item.must_copy or error.errno not in CANNOT_LINK:
                raise
            raise CannotLink(entry, is_general=error.errno in NEVER_LINKS) from error

    def _meet(self, entry: Entry, path: str) -> None:
        """Deal with a file that has this name but no row: equal bytes are adopted."""
        assert entry.stored is not None
        assert entry.record is not None
        final = self._archive.absolute(path)
        if self._archive.sha256_of(path) != entry.stored.sha256:
            self._adopt(entry, path)
            raise Touched(entry)
        descriptor = os.open(final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            durable.flush_file(descriptor, final)
            archived_at = _moment_of(os.fstat(descriptor).st_mtime_ns // 1000)
        finally:
            os.close(descriptor)
        entry.stored = replace(entry.stored, archived_at=archived_at)
        entry.record = replace(entry.record, stored=entry.stored)

    def _adopt(self, entry: Entry, path: str) -> None:
        """Give an archived file that has no row its row; what is no object is set aside.

        Only a lost index can leave such a file, or a person who put it there.
        """
        final = self._archive.absolute(path)
        arrival_id = new_id(self._clock.now())
        request = PrepareRequest(
            path=str(final),
            intake="read",
            staging="",
            is_received=True,
            character_set="",
            issuer_of_patient_id="",
            limits=self._settings.limits,
        )
        try:
            (prepared,) = self._executor().submit(prepare_many, [request]).result()
        except BrokenProcessPool:
            entry.breaks += 1
            if entry.breaks < _MOST_BREAKS:
                raise
            self._archive.set_aside(path, arrival_id)
            return
        if not isinstance(prepared, Prepared):
            raise prepared
        found = prepared.found
        if not isinstance(found, Instance) or f"/{found.sop_instance_uid}." not in path:
            self._archive.set_aside(path, arrival_id)
            return
        stored = Stored(
            path=path,
            sha256=prepared.sha256,
            data_set_sha256=prepared.data_set_sha256 or prepared.sha256,
            size_bytes=prepared.identity.size,
            archived_at=_moment_of(prepared.identity.mtime_ns // 1000),
            version=Version.CURRENT,
        )
        now = moment(self._clock.now())
        self._writer.record(
            [
                ArrivalRecord(
                    arrival_id=arrival_id,
                    source=path.split("/")[0],
                    batch=None,
                    original_name=path,
                    arrived_at=now,
                    finished_at=now,
                    size_bytes=prepared.identity.size,
                    sha256=prepared.sha256,
                    outcome=Outcome.ARCHIVED,
                    detail={"adopted": True},
                    instance=found,
                    stored=stored,
                )
            ]
        )

    def _repair(self, entry: Entry, other: KnownVersion) -> None:
        """Put identical bytes back under the name of a missing or damaged object."""
        if entry.flushing is not None:
            entry.flushing.result()
            entry.archived_at = other.archived_at  # the object's, also for a rebuild
            entry.flushing = self._flushers.submit(self._seal_and_flush, entry)
            entry.flushing.result()
        if self._archive.size_of(other.path) is not None:
            self._archive.set_aside(other.path, entry.item.claim.arrival_id)
        self._archive.make_homes([other.path])
        self._give_name(entry, other.path)
        self._archive.flush_homes([other.path])

    def _set_aside(self, entry: Entry) -> None:
        assert entry.refusal is not None
        entry.item.claim = self._spool.isolate(entry.item.claim)
        claim, prepared = entry.item.claim, entry.prepared
        told = quarantine(
            self._spool,
            claim,
            entry.refusal,
            sha256=(prepared.sha256 or None) if prepared else None,
            attempts=max(1, self._writer.attempts(claim.arrival_id)),
            quarantined_at=moment(self._clock.now()),
        )
        durable.unlink(self._staged(entry))
        detail: dict[str, object] = {"message": entry.refusal.message, **entry.refusal.detail}
        entry.record = ArrivalRecord(
            arrival_id=claim.arrival_id,
            source=claim.source,
            batch=claim.batch,
            original_name=claim.original_name,
            arrived_at=claim.arrived_at,
            finished_at=told.quarantined_at,
            size_bytes=told.size_bytes,
            sha256=told.sha256,
            outcome=entry.refusal.reason.outcome,
            reason=entry.refusal.reason,
            detail=detail,
        )


def _is_untouched(now: FileIdentity, then: FileIdentity) -> bool:
    """Compare what the contents depend on; a second name of ours changes the rest."""
    return (now.dev, now.ino, now.size, now.mtime_ns) == (
        then.dev,
        then.ino,
        then.size,
        then.mtime_ns,
    )


def _moment_of(microseconds: int) -> str:
    seconds, rest = divmod(microseconds, 1_000_000)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _ns_of(archived_at: str) -> int:
    at = datetime.fromisoformat(archived_at)
    whole = int(at.replace(microsecond=0).timestamp())
    return (whole * 1_000_000 + at.microsecond) * 1000
