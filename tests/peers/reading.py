"""A reader that comes and goes: `python -m tests.peers.reading duckdb archive/index.db`.

Opens the index with somebody else's library, asks, closes, and prints what it found, a
line each time, until its standard input ends.  Each library has a process of its own:
two copies of SQLite in one process would drop each other's POSIX locks.
"""

from __future__ import annotations

import os
import select
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

#: Joins, aggregates and a view: what people ask.
QUERY = (
    "SELECT count(*) AS objects, count(DISTINCT modality) AS modalities, sum(size_bytes) AS bytes"
    " FROM {schema}instances JOIN {schema}series USING (series_instance_uid)"
)
LISTED = "SELECT count(*) FROM {schema}study_list WHERE instance_count > 0"


def with_duckdb(path: str) -> int:
    import duckdb

    with duckdb.connect() as connection:
        load_sqlite(connection)
        connection.execute(f"ATTACH '{path}' AS pacs (TYPE sqlite, READ_ONLY)")
        connection.execute(LISTED.format(schema="pacs.")).fetchall()
        (row,) = connection.execute(QUERY.format(schema="pacs.")).fetchall()
        connection.execute("DETACH pacs")
    return int(row[0])


def load_sqlite(connection: duckdb.DuckDBPyConnection) -> None:
    """Load DuckDB's SQLite extension from its package, where others say INSTALL sqlite."""
    (versions,) = (resources.files("duckdb_extension_sqlite_scanner") / "extensions").iterdir()
    connection.execute(f"LOAD '{versions / 'sqlite_scanner.duckdb_extension'}'")


def with_pandas(path: str) -> int:
    import pandas

    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        pandas.read_sql(LISTED.format(schema=""), connection)
        frame = pandas.read_sql(QUERY.format(schema=""), connection)
    return int(frame["objects"][0])


LIBRARIES: dict[str, Callable[[str], int]] = {"duckdb": with_duckdb, "pandas": with_pandas}


def main() -> None:
    ask, path = LIBRARIES[sys.argv[1]], os.fspath(Path(sys.argv[2]).absolute())
    while not select.select([sys.stdin], [], [], 0)[0]:
        sys.stdout.write(f"{ask(path)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
