"""Telling variants from conflicts among the versions that only a file name tells of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from ingester.check.objects import ObjectReader
from ingester.compare import CannotCompare, CompareRequest, compare
from ingester.index.words import explained
from ingester.index.writer import Writer
from ingester.model import Outcome, Verdict


def tell_variants(writer: Writer, reader: ObjectReader, paths: Sequence[str]) -> None:
    """Compare other versions (`~`) with the current one, and say which they are."""
    for path in paths:
        current = writer.run_in_transaction(partial(_current_of, path))
        if current is None:
            continue  # the current one is gone: a conflict is what asks for a person
        try:
            verdict = _compared(reader, path, current)
        except CannotCompare:
            continue  # it was damaged just now
        writer.run_in_transaction(partial(_write, path, verdict))


def _current_of(path: str, connection: sqlite3.Connection) -> str | None:
    row = connection.execute(
        "SELECT c.path FROM instances AS i JOIN instances AS c"
        " ON c.sop_instance_uid = i.sop_instance_uid AND c.version = 'current'"
        " WHERE i.path = ? AND i.version = 'conflict'",
        (path,),
    ).fetchone()
    return None if row is None else str(row[0])


def _compared(reader: ObjectReader, path: str, current: str) -> Verdict:
    request = CompareRequest(
        new_path=str(reader.root / path),
        old_path=str(reader.root / current),
        character_set=reader.defaults(path.split("/", 1)[0])[0],
        old_character_set=reader.defaults(current.split("/", 1)[0])[0],
    )
    try:
        return reader.pool.submit(compare, request)()
    except BrokenProcessPool:
        # Nobody can tell, so both count: which is what a conflict means.
        reader.pool.renew()
        return Verdict(Outcome.CONFLICT)


def _write(path: str, verdict: Verdict, connection: sqlite3.Connection) -> None:
    if verdict.outcome is Outcome.CONFLICT:
        detail = {"from_archive": True, **verdict.evidence}
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
