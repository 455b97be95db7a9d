"""Telling the world: events into the index, hooks to other programs.

The writer itself notes quarantined files and conflicts with their rows; here the
events that need time or the outside are made: a study or batch is complete, a disk is
low, a receiver is down.  An event that cannot be written now (the disk is full, which
may be the very news) waits and is written later.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from ingester.completion import BatchKey, Completion, Finished, Key, StudyKey
from ingester.errors import Retry
from ingester.hooks import Hooks
from ingester.index.rows import Event
from ingester.index.writer import Writer
from ingester.model import ArrivalRecord, Clock, Origin, Outcome, moment, type_json

log = logging.getLogger(__name__)

#: What ended so long ago is not told any more, should nobody have told it then.
_HORIZON = timedelta(days=7)
_MOST_WAITING = 100_000

_UNTOLD_STUDIES = """
    SELECT s.study_instance_uid FROM studies AS s WHERE s.last_archived_at > ?
    AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.study_instance_uid = s.study_instance_uid
        AND e.kind IN ('study.complete', 'study.updated') AND e.at >= s.last_archived_at)"""
_UNTOLD_BATCHES = """
    SELECT a.source, a.batch, max(a.finished_at) AS finished_at FROM arrivals AS a
    WHERE a.finished_at > ? AND a.batch IS NOT NULL GROUP BY a.source, a.batch"""
_TOLD_BATCHES = """
    SELECT json_extract(detail, '$.source'), json_extract(detail, '$.batch'), max(at)
    FROM events WHERE kind = 'batch.complete' AND at > ? GROUP BY 1, 2"""
_STUDY = """
    SELECT sources, folders, modalities, series_count, instance_count FROM study_list
    WHERE study_instance_uid = ?"""
_BATCH = """
    SELECT arrived, archived, duplicate, variant, conflict, quarantined, "foreign", unpacked,
        discarded, size_bytes, first_arrived_at, last_finished_at
    FROM batches WHERE source = ? AND batch = ?"""
_WAS_TOLD = "SELECT 1 FROM events WHERE study_instance_uid = ? AND kind = 'study.complete'"


class Announcer:
    """Makes events and starts hooks; stepped from the main loop.

    Parameters
    ----------
    is_waiting : whether files of an origin wait in the spool or may still be sent
    connect : opens a reading connection to the index
    """

    def __init__(
        self,
        writer: Callable[[], Writer | None],
        connect: Callable[[], sqlite3.Connection],
        archive: Path,
        completion: Completion,
        hooks: Hooks,
        clock: Clock,
        *,
        is_waiting: Callable[[Key, Origin], bool],
    ) -> None:
        self._writer = writer
        self._connect = connect
        self._archive = archive
        self._completion = completion
        self._hooks = hooks
        self._clock = clock
        self._is_waiting = is_waiting
        self._events: deque[Event] = deque(maxlen=_MOST_WAITING)

    def recall(self) -> None:
        """Take up what an earlier run saw arrive and did not live to announce."""
        since = moment(self._clock.now() - _HORIZON)
        now = self._clock.monotonic()
        connection = self._connect()
        try:
            for (uid,) in connection.execute(_UNTOLD_STUDIES, (since,)):
                self._completion.note(StudyKey(uid), None, now)
            told = {(row[0], row[1]): row[2] for row in connection.execute(_TOLD_BATCHES, (since,))}
            for source, batch, finished_at in connection.execute(_UNTOLD_BATCHES, (since,)):
                if told.get((source, batch), "") < finished_at:
                    self._completion.note(BatchKey(source, batch), (source, batch), now)
        finally:
            connection.close()

    def saw(self, records: Sequence[ArrivalRecord]) -> None:
        """Note arrivals whose rows are committed."""
        self._completion.saw(records, self._clock.monotonic())
        for record in records:
            if record.outcome is Outcome.QUARANTINED:
                self._tell_quarantined(record)

    def add(self, kind: str, detail: dict[str, type_json]) -> None:
        """Add an event that concerns no study, such as `disk.low`."""
        self._events.append(Event(moment(self._clock.now()), kind, None, detail))

    def next_due(self) -> float | None:
        """Return when `step` has something to do (monotonic)."""
        times = [self._completion.next_due(), self._hooks.next_deadline()]
        return min((time for time in times if time is not None), default=None)

    def step(self) -> None:
        """Announce what is complete by now, write events that wait, see to the hooks."""
        now = self._clock.monotonic()
        self._tell(self._completion.due(now, is_waiting=self._is_waiting))
        self._hooks.step(now)

    def conclude(self) -> None:
        """Announce all that nothing waits for, quiet or not: this run ends, and saw it all."""
        self._tell(self._completion.rest(is_waiting=self._is_waiting))
        self._hooks.step(self._clock.monotonic())

    def _tell(self, finished: Sequence[Finished]) -> None:
        if finished:
            connection = self._connect()
            try:
                for each in finished:
                    self._announce(connection, each)
            finally:
                connection.close()
        self._write()

    def _write(self) -> None:
        writer = self._writer()
        if not self._events or writer is None:
            return
        try:
            writer.add_events(tuple(self._events))
        except Retry as error:
            log.warning("events wait: %s", error)
            return
        self._events.clear()

    def _announce(self, connection: sqlite3.Connection, finished: Finished) -> None:
        if isinstance(finished.key, StudyKey):
            self._announce_study(connection, finished.key.study_instance_uid, finished)
        else:
            self._announce_batch(connection, finished.key, finished)

    def _announce_study(self, connection: sqlite3.Connection, uid: str, finished: Finished) -> None:
        row = connection.execute(_STUDY, (uid,)).fetchone()
        if row is None:
            return
        was_told = connection.execute(_WAS_TOLD, (uid,)).fetchone() is not None
        kind = "study.updated" if was_told else "study.complete"
        sources, folders = row["sources"].split(","), row["folders"].split(",")
        batches = sorted({batch for _, batch in finished.origins if batch is not None})
        detail: dict[str, type_json] = {
            "sources": sources,
            "folders": folders,
            "modalities": (row["modalities"] or "").split(","),
            "series_count": row["series_count"],
            "instance_count": row["instance_count"],
            "batches": batches,
        }
        if finished.is_forced:
            detail["something_waits"] = True
        at = moment(self._clock.now())
        self._events.append(Event(at, kind, uid, detail))
        source = finished.origins[0][0] if finished.origins else sources[0]
        folder = next((each for each in folders if each.startswith(f"{source}/")), folders[0])
        self._hooks.tell(
            "study.complete",
            {"kind": kind, "at": at, "study_instance_uid": uid, **detail},
            {
                "study_instance_uid": uid,
                "folder": str(self._archive / folder),
                "source": source,
                "batch": batches[0] if batches else "",
            },
        )

    def _announce_batch(
        self, connection: sqlite3.Connection, key: BatchKey, finished: Finished
    ) -> None:
        row = connection.execute(_BATCH, (key.source, key.batch)).fetchone()
        if row is None:
            return
        detail: dict[str, type_json] = {"source": key.source, "batch": key.batch, **dict(row)}
        if finished.is_forced:
            detail["something_waits"] = True
        at = moment(self._clock.now())
        self._events.append(Event(at, "batch.complete", None, detail))
        self._hooks.tell(
            "batch.complete",
            {"kind": "batch.complete", "at": at, **detail},
            {"source": key.source, "batch": key.batch, "folder": str(self._archive)},
        )

    def _tell_quarantined(self, record: ArrivalRecord) -> None:
        event = {
            "kind": "arrival.quarantined",
            "at": record.finished_at,
            "arrival_id": record.arrival_id,
            "source": record.source,
            "batch": record.batch,
            "reason": record.reason,
        }
        self._hooks.tell(
            "arrival.quarantined",
            event,
            {"source": record.source, "batch": record.batch or "", "folder": ""},
        )
