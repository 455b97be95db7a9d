"""Where tree and index disagree about one object: met, adopted, repaired.

Normally every file of the archive has a row and every row its file.  A crash between
the link and the commit leaves a file whose row is still to come; a lost index or a
person's hand leaves one that has none; a bad disk damages one that has.  Whoever
comes upon such a file on the way to its name sees to it here, and nothing is ever
overwritten: what is no object is renamed to a dot-name beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from ingester import durable
from ingester.archive import Archive
from ingester.index.writer import Writer
from ingester.ingest.sealing import Sealing, Touched
from ingester.ingest.values import MOST_BREAKS, Entry, IngestSettings
from ingester.model import (
    ArrivalRecord,
    Clock,
    Instance,
    Outcome,
    Prepared,
    Stored,
    StoredFile,
    Version,
    moment,
    new_id,
)
from ingester.moments import moment_of
from ingester.pool import prepare_many
from ingester.prepare import PrepareRequest
from ingester.quarantine import FILE_ERRORS


class Adoption:
    """Sees to files of the archive that the index does not know, or that are damaged."""

    def __init__(
        self,
        archive: Archive,
        writer: Writer,
        sealing: Sealing,
        executor: Callable[[], Executor],
        settings: IngestSettings,
        clock: Clock,
    ) -> None:
        self._archive = archive
        self._writer = writer
        self._sealing = sealing
        self._executor = executor
        self._settings = settings
        self._clock = clock

    def meet(self, entry: Entry, path: str) -> None:
        """Deal with a file that has this name but no row: equal bytes are adopted.

        Raises
        ------
        Touched : other bytes have this name, and have a row by now: judge again
        """
        assert entry.stored is not None
        assert entry.record is not None
        final = self._archive.absolute(path)
        if self._archive.sha256_of(path) != entry.stored.sha256:
            if entry.replaces is None:
                self._adopt(entry, path)
            raise Touched(entry)
        descriptor = os.open(final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            durable.flush_file(descriptor, final)
            archived_at = moment_of(os.fstat(descriptor).st_mtime_ns)
        finally:
            os.close(descriptor)
        entry.stored = replace(entry.stored, archived_at=archived_at)
        entry.record = replace(entry.record, stored=entry.stored)

    def make_way(self, entry: Entry) -> None:
        """See that the name of a lost file is free for the bytes that take its place.

        Where they have it already (a crash came before the row) it is left alone.
        """
        assert entry.replaces is not None
        assert entry.stored is not None
        path = entry.replaces.path
        if self._archive.lost(path) is StoredFile.MISSING:
            return
        if not self._holds(path, entry.stored):
            self._archive.set_aside(path, new_id(self._clock.now()))

    def _holds(self, path: str, stored: Stored) -> bool:
        """Return whether these bytes lie at *path*; what cannot be read is not them."""
        status = self._archive.status_of(path)
        if status is None or status.st_size != stored.size_bytes:
            return False
        try:
            return self._archive.sha256_of(path) == stored.sha256
        except OSError as error:
            if error.errno not in FILE_ERRORS:
                raise
            return False

    def _adopt(self, entry: Entry, path: str) -> None:
        """Give an archived file that has no row its row; what is no object is set aside.

        Only a lost index can leave such a file, or a person who put it there.
        """
        arrival_id = new_id(self._clock.now())
        try:
            prepared = self._read(path)
        except BrokenProcessPool:
            entry.breaks += 1
            if entry.breaks < MOST_BREAKS:
                raise
            self._archive.set_aside(path, arrival_id)
            return
        found = prepared.found
        if not isinstance(found, Instance) or f"/{found.sop_instance_uid}." not in path:
            self._archive.set_aside(path, arrival_id)
            return
        self._writer.record([self._adopted(arrival_id, path, prepared, found)])

    def _read(self, path: str) -> Prepared:
        defaults = self._settings.defaults_of(path.split("/", 1)[0])
        request = PrepareRequest(
            path=str(self._archive.absolute(path)),
            intake="read",
            staging="",
            is_received=True,
            character_set=defaults.character_set,
            issuer_of_patient_id=defaults.issuer_of_patient_id,
            limits=self._settings.limits,
        )
        (prepared,) = self._executor().submit(prepare_many, [request]).result()
        if not isinstance(prepared, Prepared):
            raise prepared
        return prepared

    def _adopted(
        self, arrival_id: str, path: str, prepared: Prepared, found: Instance
    ) -> ArrivalRecord:
        stored = Stored(
            path=path,
            sha256=prepared.sha256,
            data_set_sha256=prepared.data_set_sha256 or prepared.sha256,
            size_bytes=prepared.identity.size,
            archived_at=moment_of(prepared.identity.mtime_ns),
            version=Version.CURRENT,
        )
        now = moment(self._clock.now())
        return ArrivalRecord(
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
