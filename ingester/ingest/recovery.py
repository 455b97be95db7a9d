"""What an earlier run left half-done outside the line: quarantine, retries, decisions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ingester.errors import Retry
from ingester.index.writer import Writer
from ingester.ingest.returning import send_back
from ingester.model import ArrivalRecord, Clock
from ingester.quarantine import discard, finish_quarantine, quarantined
from ingester.spool import Spool


def finish_half_done(spool: Spool, writer: Writer, clock: Clock) -> Iterator[ArrivalRecord]:
    """Finish moves to and from quarantine, and out of the world, that a crash interrupted.

    Yields the rows that were missing, once each is committed: what lies in
    quarantine always has one.
    """
    for folder in spool.half_quarantined():
        finish_quarantine(spool, folder, folder.name)
    for arrival_id in sorted(writer.departed(os.listdir(spool.quarantine_folder))):
        discard(spool, arrival_id)
    found = list(quarantined(spool))
    known = writer.finished([told.arrival_id for _, told in found])
    for _, told in found:
        if told.arrival_id not in known:
            record = told.as_record()
            writer.record([record])
            yield record
    begun = [told.arrival_id for _, told in found if told.retried_as is not None]
    send_back(spool, writer, begun, clock)


def retry(spool: Spool, writer: Writer, arrival_id: str, clock: Clock) -> str:
    """Send a quarantined file back into the spool; returns the new arrival's id.

    Raises
    ------
    Retry : where no such file lies in quarantine
    """
    done = send_back(spool, writer, [arrival_id], clock)
    for text, why in done.failed:
        raise Retry(f"{text}: {why}")
    return done.retried[0][1]
