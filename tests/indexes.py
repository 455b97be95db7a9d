"""Indexes compared: all of an index with its keys, or what the tree alone can tell.

before = whole(site.index)
rebuilt(site)
assert whole(site.index) == before
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

Rows = list[tuple[Any, ...]]


def whole(index: Path) -> dict[str, Rows]:
    """Return every row of every table, column by column, with all keys."""
    with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        found = {}
        for (table,) in tables.fetchall():
            rows = connection.execute(f'SELECT * FROM "{table}"')
            columns = tuple(column[0] for column in rows.description)
            found[table] = [columns, *sorted(rows.fetchall(), key=repr)]
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master")
        found["(schema)"] = sorted(schema.fetchall(), key=repr)
    return found


#: What must be the same again from the tree alone, keys mapped to what they stand for.
_PERSON = (
    "json_array(p.patient_id, p.issuer_of_patient_id, p.patient_name, p.patient_name_folded,"
    " p.patient_name_normalised, p.patient_birth_date, p.patient_sex)"
)
_BY_FILES = {
    "patients": f"SELECT {_PERSON} FROM patients AS p",
    "studies": f"SELECT s.*, {_PERSON} AS person FROM studies AS s JOIN patients AS p"
    " ON p.patient_key = s.patient_key",
    "series": "SELECT * FROM series",
    "instances": "SELECT * FROM instances",
    "headers": "SELECT i.path, h.attributes FROM headers AS h"
    " JOIN instances AS i ON i.instance_id = h.instance_id",
    "contradictions": "SELECT c.*, i.path FROM contradictions AS c"
    " JOIN instances AS i ON i.instance_id = c.instance_id",
    "arrivals": "SELECT a.source, i.path, a.sha256, a.size_bytes, a.outcome,"
    " json_extract(a.detail, '$.differs'), json_extract(a.detail, '$.pixels_differ')"
    " FROM arrivals AS a JOIN instances AS i ON i.instance_id = a.instance_id"
    " WHERE a.outcome IN ('archived', 'variant', 'conflict')",
    "quarantine": "SELECT arrival_id, source, batch, original_name, arrived_at, finished_at,"
    " size_bytes, sha256, outcome, reason, message FROM arrivals"
    " WHERE outcome IN ('quarantined', 'foreign') AND retried_as IS NULL"
    " AND resolved_at IS NULL",
}
#: What no file can tell: keys that are ours, and what a person decided.
_UNTOLD = {"instance_id", "patient_key", "resolved_at"}


def told_by_files(index: Path) -> dict[str, Rows]:
    """Return what a rebuild from the tree alone must make again, without our own keys."""
    with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
        found = {}
        for name, query in _BY_FILES.items():
            rows = connection.execute(query)
            kept = [i for i, column in enumerate(rows.description) if column[0] not in _UNTOLD]
            columns = tuple(rows.description[i][0] for i in kept)
            told = [tuple(row[i] for i in kept) for row in rows]
            found[name] = [columns, *sorted(told, key=json.dumps)]
    return found
