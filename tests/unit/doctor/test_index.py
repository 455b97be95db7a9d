"""The index as the doctor sees it: none, good, damaged, somebody else's, a newer one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ingester.doctor import State, database
from tests.factory import drop, instance
from tests.site import Site


def state(path: Path) -> tuple[State, str]:
    check, _ = database.index(path)
    assert (check.state is State.PROBLEM) == bool(check.fix)
    return check.state, check.message


def test_an_index_that_is_not_there_yet(tmp_path: Path) -> None:
    assert state(tmp_path / "index.db")[0] is State.OK
    found, message = state(tmp_path / "gone" / "index.db")
    assert (found, "is not there" in message) == (State.PROBLEM, True)


def test_a_good_index_tells_when_the_last_object_came(site: Site) -> None:
    drop(site.spool.root / "a", instance())
    site.ingest_all()
    check, last = database.index(site.index)
    assert (check.state, "1 objects" in check.message) == (State.OK, True)
    assert last is not None
    site.check()


def test_an_index_behind_a_link(site: Site, tmp_path: Path) -> None:
    site.ingest_all()
    (tmp_path / "link.db").symlink_to(site.index)
    found, message = state(tmp_path / "link.db")
    assert (found, "symbolic link" in message) == (State.PROBLEM, True)


def test_a_newer_or_foreign_or_damaged_index(site: Site, tmp_path: Path) -> None:
    site.ingest_all()
    with closing(sqlite3.connect(site.index)) as connection:
        connection.execute("PRAGMA user_version = 99")
    found, message = state(site.index)
    assert (found, "newer ingester" in message) == (State.PROBLEM, True)

    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE films (name TEXT)")
    found, message = state(tmp_path / "foreign.db")
    assert (found, "not an index of ingester" in message) == (State.PROBLEM, True)

    found, message = state(drop(tmp_path / "damaged.db", b"SQLite format 3\0" + bytes(5000)))
    assert (found, "damaged" in message) == (State.PROBLEM, True)
