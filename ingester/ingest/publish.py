"""The durable steps of a batch: the order of these lines is the guarantee.

    seal, flush  mode, time and bytes of each object, begun as soon as it was read
    verdict      what the index and the stored versions say of each UID
    folders      each new one durable in its parent
    link         the final name, never replacing
    flush        the names, each folder once
    quarantine   what was refused
    keep         the claims' own names, so that no file counts twice
    COMMIT       all rows
    release      only now the spool forgets

Every step may be repeated: after a crash or a transient fault the same lines run
again and find what is done already.  `Publisher.commit` is this list; how each step
is done stands in `sealing`, `verdicts` and `adoption`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from ingester import durable
from ingester.archive import Archive, Published
from ingester.index.rows import NotRecorded
from ingester.index.writer import Writer
from ingester.ingest.adoption import Adoption
from ingester.ingest.comparing import Comparing
from ingester.ingest.sealing import Sealing
from ingester.ingest.values import Entry, IngestSettings
from ingester.ingest.verdicts import Judge
from ingester.model import ArrivalRecord, Clock, Reason, Refusal, moment
from ingester.moments import Moments
from ingester.quarantine import quarantine
from ingester.spool import Spool

_REFUSED = Refusal(
    Reason.POISON, "The index could not take this object; the file was set aside. Please report it."
)

_logger = logging.getLogger(__name__)


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
        self._clock = clock
        self._sealing = Sealing(archive, Moments(clock))
        self._adoption = Adoption(archive, writer, self._sealing, executor, settings, clock)
        comparing = Comparing(archive, writer, self._sealing, executor, settings, clock)
        self._judge = Judge(writer, comparing, settings, clock)

    def close(self) -> None:
        """End the threads that flush."""
        self._sealing.close()

    def begin(self, entry: Entry) -> None:
        """Begin to make an object's bytes durable, while others are still being read.

        An object whose UID is known has to wait: the bytes of a duplicate will go.
        """
        if entry.instance is not None:
            entry.is_known = self._writer.knows(entry.instance.sop_instance_uid)
        self._begin(entry)

    def _begin(self, entry: Entry) -> None:
        self._sealing.date(entry)
        if not entry.is_known:
            self._sealing.begin(entry)

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
        undecided = [entry for entry in batch if entry.record is None]
        for entry in undecided:
            self._begin(entry)
        try:
            self._judge.judge(undecided)
            self._publish([entry for entry in undecided if entry.stored is not None])
        except BaseException:
            # The records were made in the belief that all of these steps succeed.
            for entry in undecided:
                self._begin_anew(entry)
            raise
        for entry in undecided:
            if entry.refusal is not None:
                self._set_aside(entry)
        self._spool.keep(entry.item.claim for entry in batch if entry.refusal is None)
        records = [_decided(entry) for entry in batch]
        failed: Collection[str] = ()
        try:
            ids = self._writer.record(records)
        except NotRecorded as error:
            failed, ids = error.failed, error.instance_ids
        rest = [entry for entry in batch if entry.item.claim.arrival_id in failed]
        for entry in rest:
            _refuse(entry)
        self._let_go([each for each in batch if each.refusal is None])
        done = [
            replace(record, instance_id=instance_id)
            for record, instance_id in zip(records, ids, strict=True)
            if record.arrival_id not in failed
        ]
        return done, rest

    def _publish(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        for entry in entries:
            if entry.replaces is not None:
                # The object's moment, also for a rebuild.
                self._sealing.date_back(entry, entry.replaces.archived_at)
            self._sealing.begin(entry)
        for entry in entries:
            self._sealing.finish(entry)
        paths = [entry.stored.path for entry in entries if entry.stored is not None]
        self._archive.make_homes(paths)
        for entry, path in zip(entries, paths, strict=True):
            if entry.replaces is not None:
                self._adoption.make_way(entry)
            if self._sealing.give_name(entry, path) is Published.OCCUPIED:
                self._adoption.meet(entry, path)
        self._archive.flush_homes(paths)

    def _begin_anew(self, entry: Entry) -> None:
        """Forget what was decided; a flush under way is waited for, lest two meet."""
        entry.record = entry.stored = entry.replaces = None
        entry.archived_at = ""
        entry.item.is_repeated = True
        self._sealing.end(entry)
        entry.flushing = None

    def _let_go(self, entries: Sequence[Entry]) -> None:
        """Release what is recorded.

        A name that takes its bytes with it can cost milliseconds on a disk that is told
        of every block that is freed, so those go several at once.
        """
        for entry in entries:
            self._sealing.end(entry)
        last_names = [each for each in entries if each.stored is None or _is_staged(each)]
        self._sealing.remove([each.item.claim.path for each in last_names])
        for entry in entries:
            self._spool.release(entry.item.claim)
            if _is_staged(entry):
                durable.unlink(self._sealing.staged(entry))

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
        durable.unlink(self._sealing.staged(entry))
        detail = {"message": told.message, **entry.refusal.detail}
        entry.record = replace(told.as_record(), detail=detail)


def _is_staged(entry: Entry) -> bool:
    return entry.prepared is not None and entry.prepared.staged


def _decided(entry: Entry) -> ArrivalRecord:
    if entry.record is None:
        raise AssertionError("every entry has been decided")
    return entry.record


def _refuse(entry: Entry) -> None:
    """Turn an object whose row the index cannot take into a file to be set aside."""
    _logger.error("the index refuses the row of %s", entry.item.claim.arrival_id)
    entry.refusal = _REFUSED
    entry.instance = entry.stored = entry.record = None
