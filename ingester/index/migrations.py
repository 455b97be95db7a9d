"""The index's schema through time: ordered steps, one transaction each.

`PRAGMA user_version` counts the steps taken.  Step 1 is `schema.sql`; each later one
is a function of its own.  Before an index that holds something is changed, a copy is
kept beside it (`index.db.v<N>`).  Our views hold no data: they are made anew when their
text changed.  What people have added to the index is kept (`additions.py`).

A step finds no views, and no triggers but ours, and foreign keys are not enforced while it
runs: it may rename, drop and make tables anew.  A view of ours that is given up is
dropped by a step, because all that nobody knows as ours is somebody's own.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

from ingester import durable
from ingester.errors import Fatal
from ingester.index.additions import names_in, put_back, quoted, set_aside
from ingester.index.columns import index_by_series, index_name
from ingester.index.connection import APPLICATION_ID
from ingester.index.counts import recount
from ingester.index.names import folded
from ingester.index.persons import compare_all

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


def _add_decided_by(connection: sqlite3.Connection) -> None:
    """Remember who decided (a login name)."""
    connection.execute("ALTER TABLE resolutions ADD COLUMN decided_by TEXT")


def _fold_names_anew(connection: sqlite3.Connection) -> None:
    """Half-width letters and letters with quotes are folded otherwise than before."""
    rows = connection.execute("SELECT patient_key, patient_name FROM patients").fetchall()
    connection.executemany(
        "UPDATE patients SET patient_name_folded = ? WHERE patient_key = ?",
        ((folded(name) or None, key) for key, name in rows),
    )


def _count_as_rows_come(connection: sqlite3.Connection) -> None:
    """Keep counts by triggers, add indexes, and tell SQLite how large tables become."""
    for statement in statements(sql_file("counts.sql")):
        connection.execute(statement)
    recount(connection, "series_folders", "arrival_counts")


def _count_derivatives(connection: sqlite3.Connection) -> None:
    """Count derivatives as they are made."""
    for statement in statements(sql_file("derivative_counts.sql")):
        connection.execute(statement)
    recount(connection, "derivative_counts")


def _compare_patients_across_studies(connection: sqlite3.Connection) -> None:
    """Name the other study of one patient ID; descriptions are not compared any more."""
    connection.execute("ALTER TABLE contradictions ADD COLUMN other_uid TEXT")
    connection.execute(
        "DELETE FROM contradictions WHERE attribute IN ('study_time', 'study_id',"
        " 'institution_name', 'series_date', 'series_time', 'series_description',"
        " 'body_part_examined', 'protocol_name')"
    )
    compare_all(connection)


def _place_decisions_among_objects(connection: sqlite3.Connection) -> None:
    """Remember behind which object each decision was taken, for a rebuild to take it there."""
    connection.execute("ALTER TABLE resolutions ADD COLUMN last_instance_id INTEGER")


def _index_by_series(connection: sqlite3.Connection) -> None:
    """Let most questions about the whole archive read an index in place of the table."""
    index_by_series(connection)


def _find_unpacked(connection: sqlite3.Connection) -> None:
    """Find archive files and DICOMDIRs: few rows, and asked for at each start."""
    connection.execute(
        "CREATE INDEX arrivals_unpacked ON arrivals (arrival_id) WHERE outcome = 'unpacked'"
    )


def _count_what_is_put_back(connection: sqlite3.Connection) -> None:
    """Keep the counts of folders true where a lost object comes back in another encoding."""
    for statement in statements(sql_file("put_back_counts.sql")):
        connection.execute(statement)


#: Index 0 leads to `user_version` 1, and so on.
MIGRATIONS: tuple[Migration, ...] = (
    _make_first_schema,
    _add_decided_by,
    _fold_names_anew,
    _count_as_rows_come,
    _compare_patients_across_studies,
    _count_derivatives,
    _place_decisions_among_objects,
    _index_by_series,
    _find_unpacked,
    _count_what_is_put_back,
)


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    migrations: Sequence[Migration] = MIGRATIONS,
    *,
    keep: bool = True,
) -> None:
    """Bring the index to the newest schema, with a copy of the old one *kept* beside it.

    Raises
    ------
    Fatal
        A newer program wrote this index: this one must not touch it.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise _newer(path, version, len(migrations))
    if keep and 0 < version < len(migrations):
        keep_copy(connection, path.with_name(f"{path.name}.v{version}"))
    # Inside a transaction this pragma would change nothing.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        for number in range(version, len(migrations)):
            log.info("index: migrating to schema %d", number + 1)
            _change(connection, path, migrations[:number], migrations[number])
    finally:
        connection.execute("PRAGMA foreign_keys = ON")
    have = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
    if any(have.get(name) != text for name, text in _views().items()):
        _change(connection, path, migrations, None)


def refuse_other_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse to read an index whose tables are not those that this program knows.

    Raises
    ------
    Fatal
        It is older and can be brought up to date, or newer and cannot.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise _newer(path, version, len(MIGRATIONS))
    if version < len(MIGRATIONS):
        raise Fatal(
            f"{path} was written by an older ingester (schema {version}; this one knows "
            f"{len(MIGRATIONS)}). Restart the service, or `ingester run --once`: it brings the "
            "index up to date; a backup's: `ingester rebuild`."
        )


def _newer(path: Path, version: int, known: int) -> Fatal:
    return Fatal(
        f"{path} was written by a newer ingester (schema {version}; this one knows {known}). "
        "Install that version, or rebuild the index."
    )


@contextmanager
def empty_index(migrations: Sequence[Migration] = MIGRATIONS) -> Iterator[sqlite3.Connection]:
    """Make the tables that these steps make, in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for step in migrations:
            step(connection)
        yield connection


def ours_in(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> frozenset[str]:
    """Return what is ours, in lower case, in an index that these steps have made.

    Among it are the views that bear the names of ours, and the indexes of promoted
    columns.
    """
    with empty_index(migrations) as empty:
        ours = set(names_in(empty))
    views = connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")
    ours |= {row[0].lower() for row in views.fetchall()} & {name.lower() for name in _views()}
    if "promoted_columns" in names_in(connection):
        rows = connection.execute("SELECT column_name FROM promoted_columns").fetchall()
        ours |= {index_name(row[0]).lower() for row in rows}
    return frozenset(ours)


def _change(
    connection: sqlite3.Connection,
    path: Path,
    before: Sequence[Migration],
    step: Migration | None,
) -> None:
    """Take a step, or only renew our views, in one transaction with its record."""
    after = (*before, step) if step is not None else tuple(before)
    connection.execute("BEGIN IMMEDIATE")
    try:
        ours = ours_in(connection, before)
        wanted = ours_in(connection, after) | {name.lower() for name in _views()}
        kept = set_aside(connection, ours, wanted - ours, with_indexes=step is not None)
        for name in _views():
            connection.execute(f"DROP VIEW IF EXISTS {quoted(name)}")
        if step is not None:
            step(connection)
        for text in _views().values():
            connection.execute(text)
        lost = put_back(connection, kept)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(after)}")
        durable.effect("commit", path)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    for addition in lost:
        log.warning("index: %s, which was added to it, does not fit it any more", addition)


def keep_copy(connection: sqlite3.Connection, target: Path, mode: int = 0o640) -> None:
    """Write a consistent copy of the index to *target*, whole or not at all.

    The copy is an ordinary database (no WAL), so that it can be read from a share.
    """
    aside = target.with_name(f"{target.name}.part")
    write_copy(connection, aside, mode)
    durable.replace(aside, target)
    durable.flush_folder(target.parent)


def write_copy(
    connection: sqlite3.Connection, path: Path, mode: int, *, has_locks: bool = True
) -> None:
    """Write a consistent copy of the index to *path*, its bytes flushed, its name not.

    What is there is replaced.  Without *has_locks* (a network disk may have none) the
    connection must take URIs, and nobody else may know the file.
    """
    durable.unlink(path)
    os.close(durable.create(path, mode))  # VACUUM INTO would make it readable by all
    name = os.fspath(path) if has_locks else f"{path.absolute().as_uri()}?nolock=1"
    connection.execute("VACUUM INTO ?", (name,))
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        durable.flush_file(descriptor, path)
    finally:
        os.close(descriptor)


def _views() -> dict[str, str]:
    """Return the text of our views by name, as SQLite keeps it."""
    found = {}
    for statement in statements(sql_file("views.sql")):
        text = statement[statement.index("CREATE VIEW") :].strip().rstrip(";")
        found[text.split()[2]] = text
    return found
