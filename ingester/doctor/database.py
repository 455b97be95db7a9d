"""Is SQLite fit, and is the index one that this program may use."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from datetime import datetime
from pathlib import Path

from ingester.doctor.findings import Check
from ingester.errors import Fatal, IngesterError
from ingester.index.connection import connect_reader, is_missing, translated
from ingester.index.migrations import MIGRATIONS

_OLDEST = (3, 38, 0)
#: The version in which the WAL-reset bug was mended.
_MENDED = (3, 51, 3)


def library(version: tuple[int, int, int], options: Collection[str]) -> Check:
    """Judge the SQLite library by its version and how it was compiled."""
    shown = ".".join(map(str, version))
    fix = "use a Python with a newer SQLite (python.org's, conda's, a newer distribution's)"
    if version < _OLDEST:
        return Check.problem("sqlite", f"{shown}: 3.38 or newer is needed", fix)
    if "THREADSAFE=0" in options:
        return Check.problem("sqlite", f"{shown}, built without threads", fix)
    if {"OMIT_JSON", "OMIT_WAL"} & set(options):
        return Check.problem("sqlite", f"{shown}, built without JSON or write-ahead log", fix)
    if version < _MENDED:
        return Check.note(
            "sqlite",
            f"{shown}: before 3.51.3 two writers can damage a database in WAL mode; the service "
            "is the only one, so open index.db with other programs for reading only",
            "sqlite3 -readonly archive/index.db; a newer SQLite when your Python brings one",
        )
    return Check.ok("sqlite", shown)


def compile_options() -> list[str]:
    """Return how the SQLite library was compiled; JSON is tried."""
    with closing(sqlite3.connect(":memory:")) as connection:
        options = [row[0] for row in connection.execute("PRAGMA compile_options")]
        try:
            connection.execute("SELECT json_extract('{\"a\": 1}', '$.a')").fetchone()
        except sqlite3.OperationalError:
            options.append("OMIT_JSON")
    return options


def index(path: Path) -> tuple[Check, datetime | None]:
    """Judge the index file; returns also the last moment of archiving in it."""
    if path.is_symlink():
        return (
            Check.problem(
                "index",
                f"{path} is a symbolic link",
                f'[index] path = "{path.resolve()}"',
            ),
            None,
        )
    if not path.parent.is_dir():
        return (
            Check.problem("index", f"its folder {path.parent} is not there", "mount its disk"),
            None,
        )
    if is_missing(path):
        return Check.ok("index", f"none yet at {path}: `ingester run` makes it"), None
    try:
        with translated(path), closing(connect_reader(path)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                return (
                    Check.problem(
                        "index",
                        f"{path} was written by a newer ingester (schema {version})",
                        "install that version",
                    ),
                    None,
                )
            count, last = connection.execute(
                "SELECT count(*), max(archived_at) FROM instances"
            ).fetchone()
    except Fatal as error:
        return Check.problem("index", str(error), "[index] path: name another file"), None
    except (IngesterError, sqlite3.DatabaseError, OSError) as error:
        return Check.problem("index", str(error), "ingester verify; ingester rebuild"), None
    moment = datetime.fromisoformat(last) if last else None
    return Check.ok("index", f"{count:,} objects in {path}"), moment
