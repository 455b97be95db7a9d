"""What people add to the index outlives upgrades, and can never take the archive down."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingester.errors import Retry
from ingester.index import Reader, Writer, migrations
from tests.factory import uid
from tests.unit.index.records import archived, header
from tests.unit.index.test_writer import ask

#: As a person types it into the sqlite3 shell.
ADDED = """
CREATE INDEX my_station ON series (station_name);
CREATE INDEX my_kvp ON headers (json_extract(attributes, '$.KVP'));
CREATE VIEW my_ct AS SELECT * FROM images WHERE modality = 'CT';
CREATE VIEW my_ct_today AS SELECT path, study_date FROM my_ct;
CREATE TABLE notes (study_instance_uid TEXT PRIMARY KEY, note TEXT, at TEXT) WITHOUT ROWID;
CREATE TABLE log (line TEXT, size INTEGER GENERATED ALWAYS AS (length(line)));
CREATE INDEX log_lines ON log (line);
CREATE TRIGGER my_log AFTER INSERT ON notes BEGIN INSERT INTO log (line) VALUES (new.note); END;
CREATE TRIGGER my_edit INSTEAD OF INSERT ON study_list BEGIN
    INSERT INTO notes (study_instance_uid, note) VALUES (new.study_instance_uid, 'by view'); END;
CREATE VIRTUAL TABLE words USING fts5 (note);
INSERT INTO words (rowid, note) VALUES (7, 'lesion in the liver');
INSERT INTO notes VALUES ('1.2.3', 'look again', NULL);
INSERT INTO notes VALUES ('1.2.4', CAST(x'ff' AS TEXT), NULL);
"""
NAMES = {
    "my_station", "my_kvp", "my_ct", "my_ct_today", "notes", "log", "log_lines", "my_log",
    "my_edit", "words",
}  # fmt: skip


def add(path: Path, script: str = ADDED) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL"))


def assert_all_works(path: Path) -> None:
    """Assert that every addition is there and does what it was made for."""
    assert schema(path).keys() >= NAMES
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        assert connection.execute("SELECT note FROM notes ORDER BY 1").fetchall() == [
            (b"look again",), (b"\xff",),
        ]  # fmt: skip
        assert connection.execute("SELECT size FROM log ORDER BY rowid LIMIT 1").fetchone() == (10,)
        found = connection.execute("SELECT rowid FROM words WHERE words MATCH 'liver'").fetchall()
        assert found == [(7,)]
        assert connection.execute("SELECT count(*) FROM my_ct_today").fetchone() == (1,)
        for question in (
            "SELECT * FROM series WHERE station_name = 'x'",
            "SELECT * FROM headers WHERE json_extract(attributes, '$.KVP') = 120",
        ):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {question}").fetchall()
            assert b"USING INDEX my_" in plan[0][-1]
        connection.execute("INSERT INTO study_list (study_instance_uid) VALUES ('1.2.5')")
        lines = connection.execute("SELECT line FROM log ORDER BY rowid").fetchall()
        assert lines == [(b"look again",), (b"\xff",), (b"by view",)]
        connection.rollback()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "index.db"
    writer = Writer.open(path)
    writer.record([archived(header(attributes={"KVP": 120.0}))])
    writer.close()
    add(path)
    yield path
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def migrate(path: Path, *steps: migrations.Migration) -> None:
    """Open the index as the next version of the program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.migrate(connection, path, (*migrations.MIGRATIONS, *steps))


def test_additions_are_used_beside_the_writer(path: Path) -> None:
    writer = Writer.open(path)
    writer.record([archived(header(instance=2, attributes={"KVP": 80.0}, modality=None))])
    writer.close()
    with Reader.open(path) as reader:
        assert len(reader.rows("SELECT path FROM my_ct_today")) == 2
        assert reader.rows("SELECT rowid FROM words WHERE words MATCH 'liver'") == [{"rowid": 7}]
        assert reader.find(["family1"])[0]["instance_count"] == 2


def test_a_view_of_ours_is_renewed_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP VIEW batches; CREATE VIEW batches AS SELECT 1 AS one;")
    before = schema(path)
    Writer.open(path).close()
    after = schema(path)
    assert "first_arrived_at" in after.pop("batches")
    before.pop("batches")
    assert after == before
    assert_all_works(path)


def _remade(connection: sqlite3.Connection) -> None:
    # The hardest a step may do: a table of ours is made anew, another loses a column.
    connection.execute("ALTER TABLE headers RENAME TO before")
    connection.execute(
        "CREATE TABLE headers (instance_id INTEGER PRIMARY KEY REFERENCES instances,"
        " attributes TEXT NOT NULL, digest TEXT)"
    )
    connection.execute("INSERT INTO headers SELECT *, NULL FROM before")
    connection.execute("DROP TABLE before")
    connection.execute("ALTER TABLE studies RENAME COLUMN study_id TO study_number")
    connection.execute("ALTER TABLE studies RENAME COLUMN study_number TO study_id")


def test_a_change_of_the_schema_keeps_them(path: Path) -> None:
    before = schema(path)
    migrate(path, _remade)
    after = schema(path)
    assert {name: after[name] for name in NAMES} == {name: before[name] for name in NAMES}
    assert_all_works(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_view_that_is_broken_already_forbids_no_change(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(path, "CREATE VIEW broken AS SELECT * FROM gone; CREATE TRIGGER bad AFTER DELETE ON notes"
              " BEGIN DELETE FROM gone; END;")  # fmt: skip
    migrate(path, _remade)
    assert {"broken", "bad"} <= schema(path).keys()
    assert "broken" not in caplog.text
    assert_all_works(path)


def test_what_no_longer_fits_is_told_and_stays_in_the_copy(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def take_away(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE series DROP COLUMN station_name")

    add(path, "CREATE VIEW my_stations AS SELECT station_name AS 'Müller' FROM series;")
    with caplog.at_level(logging.WARNING):
        migrate(path, take_away)
    assert "the index my_station," in caplog.text
    assert "the view my_stations," in caplog.text
    assert "Müller" not in caplog.text
    assert "my_kvp" not in caplog.text
    assert "my_station" not in schema(path)
    assert "my_stations" in schema(path)  # for its owner to mend
    assert "my_station" in schema(path.with_name(f"index.db.v{len(migrations.MIGRATIONS)}"))


def test_a_name_that_becomes_ours_costs_no_row(path: Path) -> None:
    def claim(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE notes (instance_id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("CREATE INDEX log_lines ON notes (text)")

    add(path, "CREATE TABLE notes_own (x)")
    migrate(path, claim)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM notes").fetchall() == []
        kept = connection.execute("SELECT note FROM notes_own2 WHERE note = 'look again'")
        assert kept.fetchall() == [("look again",)]
    assert "notes (text)" in schema(path)["log_lines"]


def test_a_column_may_be_promoted_although_its_index_has_a_namesake(path: Path) -> None:
    add(path, "CREATE INDEX instances_by_kvp ON notes (note)")
    writer = Writer.open(path, columns=["KVP"])
    assert ask(writer, "SELECT kvp FROM instances") == [120.0]
    writer.close()


#: Additions that only the program that made them can compute.
STRANGE = {
    "a collation": "CREATE INDEX strange ON patients (patient_name COLLATE mine)",
    "a trigger": "CREATE TRIGGER strange AFTER INSERT ON instances BEGIN SELECT mine(); END",
    "a newer SQLite's function": "CREATE INDEX strange ON patients (mine(patient_name))",
}


@pytest.mark.parametrize("script", STRANGE.values(), ids=STRANGE.keys())
def test_an_addition_that_only_its_maker_can_use_is_named_and_files_wait(
    path: Path, script: str
) -> None:
    def mine(*_: Any) -> int:
        return 0

    def connected() -> sqlite3.Connection:
        connection = sqlite3.connect(path)
        connection.create_collation("mine", mine)
        connection.create_function("mine", -1, mine, deterministic=True)
        return connection

    with closing(connected()) as connection:
        connection.execute(script)
    with pytest.raises(Retry, match="strange"):
        Writer.open(path).record([archived(header(2))])
    with closing(connected()) as connection:
        connection.execute(f"DROP {script.split()[1]} strange")
    writer = Writer.open(path)
    writer.record([archived(header(2))])
    assert ask(writer, "SELECT count(*) FROM studies") == [2]
    writer.close()


def test_a_mistake_of_ours_is_not_blamed_on_them(path: Path) -> None:
    writer = Writer.open(path)
    with pytest.raises(sqlite3.OperationalError):
        ask(writer, "SELECT nothing")
    writer.close()


def test_keys_of_their_tables_may_point_at_ours(path: Path) -> None:
    add(path, "CREATE TABLE marks (study TEXT REFERENCES studies, mark TEXT);"
              f"INSERT INTO marks VALUES ('{uid(1, 1)}', 'seen');")  # fmt: skip

    def remade(connection: sqlite3.Connection) -> None:
        text = schema(path)["studies"].replace("studies", "new_studies")
        connection.execute(text)
        connection.execute("INSERT INTO new_studies SELECT * FROM studies")
        connection.execute("DROP TABLE studies")
        connection.execute("ALTER TABLE new_studies RENAME TO studies")

    migrate(path, remade)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        joined = connection.execute("SELECT mark FROM marks JOIN studies ON study = 1").fetchall()
        assert joined == []
        assert connection.execute("SELECT mark FROM marks").fetchall() == [("seen",)]
    assert_all_works(path)
