"""The status of a site as one document: what `status --json` prints.

The service tells it of itself; beside a stopped service the same document is made
from the folders and the index, with `service` null.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingester import __version__
from ingester.claims import count_claimed
from ingester.config import Settings
from ingester.control import Document
from ingester.errors import Fatal
from ingester.index.connection import connect_reader, is_missing, translated
from ingester.index.migrations import refuse_other_schema
from ingester.ingest import Counts
from ingester.model import Clock, moment
from ingester.service.rooms import make_spool
from ingester.site import Space, why_apart

if TYPE_CHECKING:
    from ingester.service.intake import Intake
    from ingester.service.loop import Service

_RATE_SECONDS = 60.0


class Rates:
    """Objects and bytes a second, over the last minute."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, int]] = deque()

    def add(self, now: float, files: int, size_bytes: int) -> None:
        """Note the counters at a moment, about once a second."""
        if not self._points or now - self._points[-1][0] >= 1.0:
            self._points.append((now, files, size_bytes))
        while now - self._points[0][0] > _RATE_SECONDS:
            self._points.popleft()

    def as_document(self, now: float, files: int, size_bytes: int) -> Document:
        """Return the rates as of now."""
        begin = self._points[0] if self._points else (now, files, size_bytes)
        seconds = max(now - begin[0], 1.0)
        return {
            "files_per_second": round((files - begin[1]) / seconds, 1),
            "bytes_per_second": round((size_bytes - begin[2]) / seconds),
        }


#: So many problems are named with the command to use next; `problems` has them all.
_MOST_NAMED = 3
_UNKNOWN = ("archived_today", "arrived_today", "instances", "unresolved_problems")


def of_service(service: Service) -> Document:
    """Return the status of a running service, told by itself."""
    now = service.clock.monotonic()
    ingest = service.intake.ingest
    watcher = service.watcher
    has_index = service.intake.writer is not None
    of_index, _ = _of_index(service.settings, service.clock, is_there=has_index)
    return {
        "service": {
            "process": os.getpid(),
            "version": __version__,
            "started_at": moment(service.started_at),
        },
        "waiting": ingest.waiting if ingest is not None else None,
        "claimed": ingest.claimed if ingest is not None else None,
        "unpacking": [asdict(each) for each in ingest.archives] if ingest is not None else [],
        **of_index,
        "receivers": service.receivers.as_document(),
        "free_space": free_space(_places(service.settings)),
        "rates": service.rates.as_document(now, *service.counts),
        "watched": [
            {
                "path": str(each.path),
                "how": each.how,
                "file_system": each.file_system,
                "note": each.note,
            }
            for each in (watcher.watched if watcher is not None else ())
        ],
        "troubles": service.troubles,
    }


def summary_of(intake: Intake) -> dict[str, int | float]:
    """Return the keys of the contract's summary, without `seconds`."""
    ingest = intake.ingest
    made = intake.deriving.counts if intake.deriving is not None else None
    outcomes = ("archived", "duplicate", "variant", "conflict", "quarantined", "foreign")
    counts = ingest.counts if ingest is not None else Counts()
    return {
        "arrived": counts.arrived,
        **{name: counts.outcomes[name] for name in (*outcomes, "unpacked")},
        "thumbnails": made.thumbnails if made is not None else 0,
        "videos": made.videos if made is not None else 0,
        "derivative_failures": made.failures if made is not None else 0,
        "bytes": counts.bytes,
    }


def of_folders(settings: Settings, clock: Clock) -> Document:
    """Return the status of a site on which no service runs."""
    spool = make_spool(settings)
    waiting = sum(1 for _ in spool.look()) if spool.root.is_dir() else 0
    claimed = count_claimed(spool.root)
    has_index = not is_missing(settings.index.path)
    apart = why_apart(spool.root, settings.archive.path)
    of_index, trouble = _of_index(settings, clock, is_there=has_index)
    return {
        "service": None,
        "waiting": waiting,
        "claimed": claimed,
        "unpacking": [],
        **of_index,
        "receivers": [],
        "free_space": free_space(_places(settings)),
        "rates": {"files_per_second": 0.0, "bytes_per_second": 0},
        "watched": [],
        "troubles": [
            *(why for why in (apart, trouble) if why is not None),
            *(f"{path}: {why}" for path, why in sorted(spool.troubles.items())),
        ],
    }


def _of_index(settings: Settings, clock: Clock, *, is_there: bool) -> tuple[Document, str | None]:
    """Return what the index knows, and why it could not be asked."""
    trouble = None
    if is_there:
        with (
            translated(settings.index.path),
            closing(connect_reader(settings.index.path)) as connection,
        ):
            try:
                refuse_other_schema(connection, settings.index.path)
            except Fatal as error:
                trouble = str(error)
            else:
                return from_index(connection, clock), None
    nothing: Document = {"pending_derivatives": None, "latest_problems": []}
    return {**dict.fromkeys(_UNKNOWN), **nothing}, trouble


def _places(settings: Settings) -> dict[str, Path]:
    return {
        "spool": settings.spool.path,
        "archive": settings.archive.path,
        "index": settings.index.path.parent,
    }


def free_space(places: dict[str, Path]) -> Document:
    """Return the free space of each place; null where it cannot be asked."""
    document: Document = {}
    for name, path in places.items():
        try:
            space = Space.of(path)
        except OSError:
            document[name] = None
        else:
            document[name] = {
                "path": str(path),
                "free_bytes": space.free_bytes,
                "total_bytes": space.total_bytes,
            }
    return document


def from_index(connection: sqlite3.Connection, clock: Clock) -> Document:
    """Return what the index knows: today's work, what is unresolved, what is lacking."""
    local = clock.now().astimezone()
    midnight = moment(datetime(local.year, local.month, local.day).astimezone())

    def one(query: str, *values: object) -> int:
        return int(connection.execute(query, values).fetchone()[0])

    instances = one("SELECT coalesce(sum(instance_count), 0) FROM series_folders")
    derivatives = "SELECT coalesce(sum(derivatives), 0) FROM derivative_counts WHERE kind = ?"
    return {
        "archived_today": one("SELECT count(*) FROM instances WHERE archived_at >= ?", midnight),
        "arrived_today": one("SELECT count(*) FROM arrivals WHERE finished_at >= ?", midnight),
        "instances": instances,
        "unresolved_problems": one("SELECT count(*) FROM problems"),
        "latest_problems": [
            {"kind": kind, "message": message, "arrival_id": arrival_id}
            for kind, message, arrival_id in connection.execute(
                "SELECT kind, message, arrival_id FROM problems ORDER BY at DESC LIMIT ?",
                (_MOST_NAMED,),
            )
        ],
        "pending_derivatives": sum(
            max(0, instances - one(derivatives, kind)) for kind in ("thumbnail", "video")
        ),
    }
