"""Other people's programs hold the index: one reads for hours, one locks it for a while."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.factory import drop, instance
from tests.stories.conftest import Command
from tests.waiting import until

OBJECTS = 40


def fill(folder: Path, patient: int) -> Path:
    for number in range(OBJECTS):
        drop(folder / f"{number}", instance(patient, 1, 1, number + 1))
    return folder


def log_of(command: Command) -> int:
    return (command.archive / "index.db-wal").stat().st_size


def test_a_program_that_reads_for_hours_holds_up_nothing(command: Command, tmp_path: Path) -> None:
    with command.service() as service:
        address = f"file:{command.archive / 'index.db'}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=0)) as notebook:
            notebook.execute("BEGIN")
            assert notebook.execute("SELECT count(*) FROM instances").fetchone() == (0,)
            os.rename(fill(tmp_path / "a", 1), command.spool / "a")
            service.await_outcomes({"archived": OBJECTS})
            until(lambda: (service.status() or {}).get("pending_derivatives") == 0)
            # The copy for shares is made when all is quiet, right after the log's turn.
            until(lambda: (command.archive / "index-snapshot.db").exists())
            assert log_of(command) > 0
            assert notebook.execute("SELECT count(*) FROM instances").fetchone() == (0,)
        until(lambda: log_of(command) == 0, what="the log is emptied once nobody reads the past")
    assert "WARNING" not in command.log()
    command.verify()


def test_a_program_that_locks_the_index_is_waited_for_and_named(
    command: Command, tmp_path: Path
) -> None:
    with command.service() as service:
        with closing(sqlite3.connect(command.archive / "index.db", isolation_level=None)) as viewer:
            viewer.execute("BEGIN IMMEDIATE")
            os.rename(fill(tmp_path / "a", 1), command.spool / "a")

            def trouble() -> str:
                return " ".join((service.status() or {})["troubles"])

            until(lambda: "another program is changing it" in trouble())
            assert "waiting: The index" in command.run("status")
            assert command.outcomes() == {}
            viewer.execute("ROLLBACK")
        service.await_outcomes({"archived": OBJECTS})
        until(lambda: trouble() == "")
    assert command.log().count("SQLITE_BUSY") >= 1
    command.verify()
