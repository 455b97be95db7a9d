"""Telling variants from conflicts among the versions that only a file name tells of."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from ingester.check.objects import ObjectReader
from ingester.compare import (
    MOST_COMPARED,
    NOBODY_CAN_TELL,
    CannotCompare,
    CompareRequest,
    compare,
)
from ingester.errors import Reject
from ingester.index.words import explained
from ingester.index.writer import Writer
from ingester.model import Outcome, Verdict

log = logging.getLogger(__name__)


def tell_variants(writer: Writer, reader: ObjectReader, paths: Sequence[str]) -> None:
    """Compare other versions (`~`) with those before them, and say which they are.

    As at their arrival: the best verdict counts, and a conflict is told against the
    version that is current.
    """
    for path in paths:
        before = writer.run_in_transaction(partial(_before, path))
        found = [(_compared(reader, path, other), other) for other in before]
        if found:  # else a conflict is what asks for a person
            verdict, other = min(found, key=lambda each: each[0].weight)
            writer.run_in_transaction(partial(_write, path, verdict, other))


def _before(path: str, connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT o.path FROM instances AS i JOIN instances AS o"
        " ON o.sop_instance_uid = i.sop_instance_uid AND o.instance_id <> i.instance_id"
        " WHERE i.path = ? AND i.version = 'conflict'"
        " AND (o.version = 'current' OR o.archived_at < i.archived_at)"
        " ORDER BY o.version <> 'current', o.archived_at",
        (path,),
    )
    paths = [str(row[0]) for row in rows]
    return [*paths[:1], *paths[1:][-MOST_COMPARED:]]


def _compared(reader: ObjectReader, path: str, other: str) -> Verdict:
    request = CompareRequest(
        new_path=str(reader.root / path),
        old_path=str(reader.root / other),
        limits=reader.limits,
        character_set=reader.defaults(path.split("/", 1)[0])[0],
        old_character_set=reader.defaults(other.split("/", 1)[0])[0],
    )
    try:
        return reader.pool.submit(compare, request)()
    except BrokenProcessPool:
        reader.pool.renew()
    except (CannotCompare, Reject, OSError) as error:
        log.warning("two versions could not be compared: %s", type(error).__name__)
    # Nobody can tell, so both count: which is what a conflict means.
    return NOBODY_CAN_TELL


def _write(path: str, verdict: Verdict, other: str, connection: sqlite3.Connection) -> None:
    if verdict.outcome is Outcome.CONFLICT:
        detail = {"from_archive": True, "compared_with": other, **verdict.evidence}
        message = explained({"outcome": "conflict", "detail": detail})
        connection.execute(
            "UPDATE arrivals SET detail = ?, message = ? WHERE outcome = 'conflict'"
            " AND instance_id = (SELECT instance_id FROM instances WHERE path = ?)",
            (json.dumps(detail, sort_keys=True), message, path),
        )
        return
    connection.execute("UPDATE instances SET version = 'variant' WHERE path = ?", (path,))
    connection.execute(
        "UPDATE arrivals SET outcome = 'variant', message = NULL WHERE outcome = 'conflict'"
        " AND instance_id = (SELECT instance_id FROM instances WHERE path = ?)",
        (path,),
    )
