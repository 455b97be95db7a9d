"""The counts that triggers keep: what they must say, made anew and compared.

`series_folders`, `arrival_counts` (`counts.sql`) and `derivative_counts` hold nothing that
the rows themselves do not say: these queries are what the triggers keep up to date.
"""

from __future__ import annotations

import sqlite3
from itertools import zip_longest

_OUTCOMES = (
    "archived", "duplicate", "variant", "conflict", "quarantined", "foreign", "unpacked",
    "discarded",
)  # fmt: skip
_QUERIES = {
    "series_folders": """
        SELECT study_instance_uid, series_instance_uid,
            rtrim(rtrim(path, replace(path, '/', '')), '/'), source, count(*), sum(size_bytes)
        FROM instances GROUP BY 1, 2, 3""",
    "arrival_counts": f"""
        SELECT source, coalesce(batch, ''),
            substr(arrived_at, 1, 14) || printf('%02d', substr(arrived_at, 15, 2) / 15 * 15),
            min(arrived_at), max(finished_at), sum(retried_as IS NULL),
            {", ".join(f"sum(retried_as IS NULL AND outcome = '{each}')" for each in _OUTCOMES)},
            sum(size_bytes * (retried_as IS NULL))
        FROM arrivals GROUP BY 1, 2, 3""",
    "derivative_counts": """
        SELECT kind, status, pipeline_version, count(*) FROM derivatives GROUP BY 1, 2, 3""",
}
COUNTED = frozenset(_QUERIES)


def recount(connection: sqlite3.Connection, *tables: str) -> None:
    """Make counts (all, unless some are named) anew, within the caller's transaction."""
    for table in tables or _QUERIES:
        connection.execute(f"DELETE FROM {table}")
        connection.execute(f"INSERT INTO {table} {_QUERIES[table]}")


def miscounted(connection: sqlite3.Connection) -> list[str]:
    """Return the tables of counts that do not say what they must.

    An index of an earlier version has none.  What is compared must stand still.
    """
    found = []
    have = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    for table, query in _QUERIES.items():
        if table not in have:
            continue
        told = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
        must = connection.execute(f"{query} ORDER BY 1, 2, 3")
        pairs = zip_longest(map(tuple, told), map(tuple, must))
        if any(one != other for one, other in pairs):
            found.append(table)
    return found
