"""What people add to the index with the sqlite3 shell works, and stays."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.factory import drop, instance, uid
from tests.stories.conftest import Command
from tests.waiting import until

#: As docs/index.md shows it.
SHELL = """
PRAGMA busy_timeout = 10000;
PRAGMA wal_autocheckpoint = 0;
CREATE TABLE my_notes (study_instance_uid TEXT PRIMARY KEY, note TEXT);
CREATE VIEW my_studies AS
    SELECT study_list.*, note FROM study_list LEFT JOIN my_notes USING (study_instance_uid);
CREATE INDEX my_stations ON series (station_name);
"""


def add(command: Command, script: str) -> None:
    with closing(sqlite3.connect(command.archive / "index.db")) as connection:
        connection.executescript(script)


def test_notes_beside_studies_outlive_restart_upgrade_and_rebuild(command: Command) -> None:
    drop(command.spool / "a.dcm", instance())
    command.once()
    add(command, SHELL)
    add(command, f"INSERT INTO my_notes VALUES ('{uid(1, 1)}', 'second reading')")
    # What an older version of the program left: another text of one of our views.
    add(command, "DROP VIEW study_list; CREATE VIEW study_list AS SELECT 'old' AS text")
    drop(command.spool / "b.dcm", instance(2))
    command.once()
    ours = "SELECT patient_id, note FROM my_studies ORDER BY patient_id"
    expected = [
        {"patient_id": "P0001", "note": "second reading"},
        {"patient_id": "P0002", "note": None},
    ]
    assert command.json("sql", ours) == expected
    told = command.json("rebuild")
    assert (told["carried_over"]["additions"], told["not_carried_over"]) == (3, [])
    assert command.json("sql", ours) == expected
    plan = "EXPLAIN QUERY PLAN SELECT * FROM series WHERE station_name = 'CT1'"
    assert "my_stations" in command.run("sql", plan)
    command.verify()


def test_adding_beside_the_running_service_hurts_nobody(command: Command) -> None:
    drop(command.spool / "a.dcm", instance())
    with command.service() as service:
        service.await_outcomes({"archived": 1})
        add(command, SHELL)
        drop(command.spool / "b.dcm", instance(2))
        service.await_outcomes({"archived": 2})
        # An index that only a program with its own collation can keep: files wait.
        with closing(sqlite3.connect(command.archive / "index.db", timeout=10)) as connection:
            connection.create_collation("mine", lambda a, b: (a > b) - (a < b))
            connection.execute("CREATE INDEX strange ON series (station_name COLLATE mine)")
            drop(command.spool / "c.dcm", instance(3))
            until(
                lambda: "the index strange" in str(service.status()),
                what="status says what holds the files up",
            )
            connection.execute("DROP INDEX strange")
        service.await_outcomes({"archived": 3})
        assert len(command.json("sql", "SELECT * FROM my_studies")) == 3
    command.verify()
