"""The index's schema through time: ordered steps, one transaction each.

`PRAGMA user_version` counts the steps taken.  Step 1 is `schema.sql`; each later one
is a function of its own.  Before an index that holds something is changed, a copy is
kept beside it (`index.db.v<N>`).  Views hold no data: they are made anew whenever
their text changed.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from ingester import durable
from ingester.errors import Fatal
from ingester.index.connection import APPLICATION_ID

log = logging.getLogger(__name__)

Migration = Callable[[sqlite3.Connection], None]


def sql_file(name: str) -> str:
    """Return the text of an SQL file of this package."""
    return resources.files("ingester.index").joinpath(name).read_text(encoding="utf-8")


def statements(script: str) -> Iterator[str]:
    """Part a script into statements (`executescript` would commit our transaction)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _make_first_schema(connection: sqlite3.Connection) -> None:
    for statement in statements(sql_file("schema.sql")):
        connection.execute(statement)


#: Index 0 leads to `user_version` 1, and so on.
MIGRATIONS: tuple[Migration, ...] = (_make_first_schema,)


def migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS
) -> None:
    """Bring the index to the newest schema.

    Raises
    ------
    Fatal
        A newer program wrote this index: this one must not touch it.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise Fatal(
            f"{path} was written by a newer ingester (schema {version}; this one knows "
            f"{len(migrations)}). Install that version, or rebuild the index."
        )
    if 0 < version < len(migrations):
        keep_copy(connection, path.with_name(f"{path.name}.v{version}"))
    for number, step in enumerate(migrations[version:], start=version + 1):
        log.info("index: migrating to schema %d", number)
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            durable.effect("commit", path)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    _renew_views(connection, path)


def keep_copy(connection: sqlite3.Connection, target: Path, mode: int = 0o640) -> None:
    """Write a consistent copy of the index to *target*, whole or not at all.

    The copy is an ordinary database (no WAL), so that it can be read from a share.
    """
    aside = target.with_name(f"{target.name}.part")
    durable.unlink(aside)
    os.close(durable.create(aside, mode))  # VACUUM INTO would make it readable by all
    connection.execute("VACUUM INTO ?", (os.fspath(aside),))
    descriptor = os.open(aside, os.O_RDWR | os.O_CLOEXEC)
    try:
        durable.flush_file(descriptor, aside)
    finally:
        os.close(descriptor)
    durable.replace(aside, target)
    durable.flush_folder(target.parent)


def _renew_views(connection: sqlite3.Connection, path: Path) -> None:
    wanted = {_name(text): text.strip().rstrip(";") for text in statements(sql_file("views.sql"))}
    have = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
    if {name: _from_create(text) for name, text in wanted.items()} == have:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name in have:
            connection.execute(f'DROP VIEW "{name}"')
        for text in wanted.values():
            connection.execute(text)
        durable.effect("commit", path)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _from_create(statement: str) -> str:
    return statement[statement.index("CREATE VIEW") :]


def _name(statement: str) -> str:
    return _from_create(statement).split()[2]
