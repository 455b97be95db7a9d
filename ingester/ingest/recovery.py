"""What an earlier run left half-done outside the line: quarantine, retries, decisions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ingester.index.writer import Writer
from ingester.model import ArrivalRecord, Clock, moment, new_id
from ingester.quarantine import (
    discard,
    finish_quarantine,
    forget_sent_back,
    quarantined,
    send_back,
)
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
        if told.retried_as is not None:
            retry(spool, writer, told.arrival_id, clock)


def retry(spool: Spool, writer: Writer, arrival_id: str, clock: Clock) -> str:
    """Send a quarantined file back into the spool; returns the new arrival's id.

    Raises
    ------
    Retry : where no such file lies in quarantine
    """
    now = clock.now()
    retried_as = send_back(spool, arrival_id, new_id(now))
    writer.mark_retried(arrival_id, retried_as, moment(now))
    forget_sent_back(spool, arrival_id)
    return retried_as
