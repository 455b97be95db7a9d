"""`index-snapshot.db` is there when it is wanted, and nobody ever waits for it."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from tests.factory import drop, instance, uid
from tests.stories.conftest import Command
from tests.waiting import until


def snapshot(command: Command) -> Path:
    return command.archive / "index-snapshot.db"


def studies(command: Command) -> int:
    """Return how many studies the snapshot knows, as a program on a share would."""
    if not snapshot(command).exists():
        return 0
    address = f"file:{snapshot(command)}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM study_list").fetchone()[0])


def grow(command: Command, mebibytes: int) -> None:
    """Make the index large, by a table that somebody added."""
    with closing(sqlite3.connect(command.archive / "index.db", timeout=10)) as connection:
        connection.execute("CREATE TABLE my_bulk (bulk BLOB)")
        connection.execute(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO my_bulk SELECT randomblob(1000) FROM n", (mebibytes * 1100,),
        )  # fmt: skip
        connection.commit()


def test_it_is_fresh_after_every_command_that_changes_the_index(command: Command) -> None:
    drop(command.spool / "a", instance(1))
    command.once()
    assert studies(command) == 1
    drop(command.spool / "b", instance(2, PatientID="P0001"))
    command.once()
    assert studies(command) == 2
    command.run("import", drop(command.root / "c", instance(3)))
    assert studies(command) == 3

    def unsettled() -> int:
        with closing(sqlite3.connect(snapshot(command))) as connection:
            return int(connection.execute("SELECT count(*) FROM problems").fetchone()[0])

    assert unsettled() == 1
    command.run("resolve", "--study", uid(2, 1))
    assert unsettled() == 0
    snapshot(command).unlink()
    command.run("rebuild")
    assert studies(command) == 3
    # Nothing new is nothing to do.
    made = snapshot(command).stat().st_ctime_ns
    command.once()
    command.run("status")
    command.run("find", "family")
    assert snapshot(command).stat().st_ctime_ns == made
    command.verify()


def test_a_running_service_makes_it_on_schedule_and_at_its_end(command: Command) -> None:
    command.configure(index={"snapshot": "1s"})
    with command.service() as service:
        drop(command.spool / "a", instance(1))
        service.await_outcomes({"archived": 1})
        until(lambda: studies(command) == 1, what="the snapshot has the study")
        drop(command.spool / "b", instance(2))
        until(lambda: studies(command) == 2, what="the next one has the other")
        command.configure(index={"snapshot": "1h"})
    with command.service() as service:
        drop(command.spool / "c", instance(3))
        service.await_outcomes({"archived": 1 + 2})
    assert studies(command) == 3
    command.verify()


def test_a_stop_does_not_wait_for_a_long_copy(command: Command) -> None:
    command.configure(index={"snapshot": "1s"})
    drop(command.spool / "a", instance(1))
    command.once()
    part = snapshot(command).with_name("index-snapshot.db.part")
    with command.service() as service:
        grow(command, 300)
        until(lambda: part.exists() and part.stat().st_size > 1 << 20, what="a copy is made")
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 12
    assert studies(command) == 1
    assert not part.exists()
    command.verify()


def test_what_a_killed_copy_leaves_behind_is_removed_at_the_next_start(command: Command) -> None:
    command.configure(index={"snapshot": "1s"})
    drop(command.spool / "a", instance(1))
    command.once()
    part = snapshot(command).with_name("index-snapshot.db.part")
    grow(command, 300)
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command.arguments("run"), stdin=silent, stdout=silent, stderr=silent)
    try:
        until(lambda: part.exists() and part.stat().st_size > 1 << 20, what="a copy is made")
    finally:
        process.kill()
        process.wait()
    assert part.exists()
    command.configure(index={"snapshot": ""})
    with command.service():
        assert not part.exists()
    assert studies(command) == 1
    command.verify()
