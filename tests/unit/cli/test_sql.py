"""`sql`: three ways to print, nothing that changes anything, mistakes that are explained."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingester.index.writer import Writer
from tests.factory import drop, instance
from tests.indexes import whole
from tests.terminal import on_a_terminal
from tests.unit.cli.home import Home
from tests.unit.index.records import archived, header
from tests.waiting import until

ENDLESS = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
HUGE = (
    "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000000)"
    " SELECT x, 'some text' AS t FROM c"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("site"))
    drop(made.root / "spool/a", instance(1, PatientName="=cmd^x", PatientID="\x1b[2Jwipe"))
    drop(made.root / "spool/b", instance(2))
    assert made.run("run", "--once").exit_code == 0
    return made


def command(home: Home, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ingester", "--config", str(home.config), "sql", *arguments]


def value(home: Home, query: str, *arguments: str) -> Any:
    (row,) = home.json("sql", *arguments, query)
    (found,) = row.values()
    return found


# -- ways to print -----------------------------------------------------------------------


def test_json_holds_what_json_can(home: Home) -> None:
    assert value(home, "SELECT 9e999") is None
    assert value(home, "SELECT x'00FF'") == "00FF"
    assert value(home, "SELECT NULL") is None
    assert value(home, "SELECT char(27)") == "\x1b"
    assert "\x1b" not in home.run("sql", "--json", "SELECT char(27)").stdout
    assert home.json("sql", "SELECT 1 WHERE 0") == []
    (row,) = home.json("sql", "SELECT 1 AS n, 2 AS n, 3 AS n_2, 4 AS n")
    assert sorted(row.values()) == [1, 2, 3, 4]
    assert row["n"] == 1
    assert row["n_2"] == 3


def test_csv_is_read_back_by_a_reader_of_csv(home: Home) -> None:
    query = "SELECT 'a,\"b\"' AS \"x,y\", NULL, 1.5, x'00', 'two' || char(10) || 'lines'"
    printed = home.run("sql", "--csv", query).stdout
    assert not printed.startswith("\ufeff")
    rows = list(csv.reader(io.StringIO(printed)))
    assert rows[0][0] == "x,y"
    assert rows[1] == ['a,"b"', "", "1.5", "00", "two\nlines"]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "＝", "＋", "－", "＠", "−", "\t", "\r"])
@pytest.mark.parametrize(
    "before", ["", " ", "\u00a0", "\u3000", "\ufeff", "\u200b", "\x00", "\n", '"', "'", " \u202e "]
)
def test_no_cell_is_executed_by_a_spreadsheet(home: Home, sign: str, before: str) -> None:
    text = f"{before}{sign}cmd|' /C calc'!A0"
    from ingester.cli.sheets import defused

    assert defused(text) == "'" + text
    assert defused(f"x{text}") == f"x{text}"


def test_a_terminal_shows_no_control_characters(home: Home) -> None:
    for way in ([], ["--csv"], ["--json"]):
        query = "SELECT patient_id, char(27) || ']0;x' || char(7) AS \"a\x1b[1m\" FROM patients"
        seen = on_a_terminal(command(home, *way, query), columns=80)
        assert seen.exit_code == 0, seen.lines
        assert not any(set(line) & {"\x1b", "\x07"} for line in seen.lines), way
    assert "\x1b[2J" in home.run("sql", "--csv", "SELECT patient_id FROM patients").stdout


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_rows_that_are_too_wide_are_shown_one_by_one(home: Home, columns: int) -> None:
    seen = on_a_terminal(command(home, "SELECT * FROM images"), columns=columns)
    assert seen.exit_code == 0
    assert sum(line.startswith("─ row ") for line in seen.lines) == 2
    assert seen.widest <= max(columns, 40)
    narrow = on_a_terminal(command(home, "SELECT 1 AS a, 'two' AS b"), columns=columns)
    assert narrow.lines == ["a  b", "─  ───", "1  two"]


def test_a_table_ends_after_a_thousand_rows(home: Home) -> None:
    answer = home.run("sql", HUGE)
    assert len(answer.stdout.splitlines()) == 1000 + 2
    assert "only the first 1,000 rows are shown" in answer.stderr


@pytest.mark.parametrize("way", ["--csv", "--json"])
def test_a_long_answer_comes_as_it_is_found_and_ends_when_nobody_reads(
    home: Home, way: str
) -> None:
    process = subprocess.Popen(
        command(home, way, HUGE), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()  # long before five million rows
    assert process.poll() is None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 1


def test_ctrl_c_ends_a_query_in_the_middle(home: Home) -> None:
    process = subprocess.Popen(
        command(home, ENDLESS), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    status = Path(f"/proc/{process.pid}/stat")
    # It has used a second of processor time: it counts.
    until(lambda: int(status.read_text().split()[13]) > os.sysconf("SC_CLK_TCK"), what="it counts")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"ingester: interrupted\n")


# -- the query ---------------------------------------------------------------------------


def test_a_query_comes_as_an_argument_or_by_standard_input(home: Home) -> None:
    assert value(home, "-- how many\nSELECT count(*) FROM studies; -- two") == 2
    assert value(home, "--how many\nSELECT 7") == 7
    piped = home.run("sql", "--json", input="/* first */ SELECT\n  41 + 1 AS n\n;\n")
    assert json.loads(piped.stdout) == [{"n": 42}]
    for nothing in ("", " ;\n", "-- only a comment", "/* no end", "-- a\n/* b */ ;;"):
        assert home.run("sql", nothing).exit_code == 2
        assert "there is no query" in home.run("sql", input=nothing).stderr
    done = subprocess.run(command(home), input=b"SELECT '\xff'", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (2, b"ingester: SQL: the query is not UTF-8\n")


def test_parameters_have_values(home: Home) -> None:
    assert value(home, "SELECT typeof(:id) || :id", "-p", "id=0815") == "text0815"
    assert value(home, "SELECT typeof(:n)", "-p", "n=3") == "integer"
    assert value(home, "SELECT typeof(:n)", "--param", ":n=1.5") == "real"
    assert value(home, "SELECT :a || @b", "-p", "a=x=y", "-p", "b=") == "x=y"
    query = "SELECT count(*) FROM studies WHERE study_id = :id LIMIT :most"
    assert value(home, query, "-p", "id=1", "-p", "most=5") == 2
    assert home.run("sql", "-p", "nothing", "SELECT 1").exit_code == 2
    for query in ("SELECT :x", "SELECT ?", "SELECT ?1"):
        answer = home.run("sql", query)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert "-p NAME=VALUE" in answer.stderr


def test_the_tables_are_listed_on_a_terminal(home: Home) -> None:
    seen = on_a_terminal(command(home), columns=80, rows=200)
    assert seen.exit_code == 0
    assert seen.widest <= 80
    text = "\n".join(seen.lines)
    assert "view study_list: study_instance_uid" in text
    assert "table arrivals: arrival_id" in text
    assert "the program's own, which may change:" in text


# -- nothing can be changed --------------------------------------------------------------


CHANGES = [
    "DELETE FROM arrivals",
    "INSERT INTO events (at, kind) VALUES ('x', 'y')",
    "INSERT INTO events (at, kind) VALUES ('x', 'y') RETURNING event_id",
    "WITH x AS (SELECT 1) UPDATE studies SET study_id = 'x'",
    "REPLACE INTO claim_attempts VALUES ('x', 1)",
    "DROP VIEW images",
    "ALTER TABLE studies ADD COLUMN x",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE VIRTUAL TABLE x USING fts5 (a)",
    "CREATE TEMP TRIGGER x AFTER INSERT ON events BEGIN SELECT 1; END",
    "ATTACH '{elsewhere}' AS x",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{elsewhere}'",
    "REINDEX",
    "ANALYZE",
    "BEGIN IMMEDIATE",
    "SAVEPOINT x",
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA user_version = 7",
    "PRAGMA writable_schema = ON",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA trusted_schema = ON",
    "SELECT load_extension('{elsewhere}')",
    "SELECT * FROM pragma_wal_checkpoint",
    "SELECT writefile('{elsewhere}', 'x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT edit('x')",
    "EXPLAIN DELETE FROM arrivals",
]


@pytest.mark.parametrize("query", CHANGES)
def test_nothing_is_changed_from_here(home: Home, tmp_path: Path, query: str) -> None:
    index, elsewhere = home.root / "archive/index.db", tmp_path / "elsewhere"
    before = whole(index)
    answer = home.run("sql", query.replace("{elsewhere}", str(elsewhere)))
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.startswith("ingester: SQL: ")
    assert "Traceback" not in answer.stderr
    assert whole(index) == before
    assert not elsewhere.exists()


def test_what_only_looks_is_answered(home: Home) -> None:
    for query in (
        "EXPLAIN QUERY PLAN SELECT * FROM images",
        "PRAGMA table_info(studies)",
        "PRAGMA user_version",
        "SELECT * FROM pragma_table_info('studies')",
        "SELECT value FROM json_each('[1, 2]')",
        "VALUES (1), (2)",
        "SELECT sqlite_version()",
    ):
        assert home.run("sql", query).exit_code == 0, query


# -- mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEKT 1", ['near "SELEKT": syntax error', "    SELEKT 1\n", "    ^\n"]),
        ("SELECT *\nFORM images", ["    FORM images\n", "    ^\n"]),
        ("SELECT modalty FROM images", ["did you mean modality? It is in images, series."]),
        ("SELECT i.pathh FROM instances AS i", ["did you mean path? It is in "]),
        ("SELECT * FROM imges", ["there are: images"]),
        ("SELECT * FROM xyzzy", ["there are: ", "study_list"]),
        ("SELECT 1; SELECT 2", ["one statement at a time"]),
        (".tables", ["sqlite3 -readonly"]),
        ("SELECT (", ["incomplete input"]),
        ("SELECT nofunction(1)", ["no such function: nofunction"]),
        ("SELECT 'a\x00b'", ["null character"]),
        ("SELECT '\udcff'", ["SQL: the query is not UTF-8"]),
        ("SELECT abs(-9223372036854775808)", ["integer overflow"]),
    ],
)
def test_a_mistake_is_explained(home: Home, query: str, words: list[str]) -> None:
    answer = home.run("sql", query)
    assert (answer.exit_code, answer.stdout) == (2, "")
    told = answer.stderr.replace("ingester: ", "")
    assert all(each in told for each in words), told
    assert "Traceback" not in told


def test_an_error_in_the_middle_of_an_answer_is_an_error(home: Home) -> None:
    least = "CASE column1 WHEN 3 THEN -9223372036854775808 ELSE column1 END"
    query = f"SELECT abs({least}) AS n FROM (VALUES (1), (2), (3), (4))"
    answer = home.run("sql", "--csv", query)
    assert answer.exit_code == 2
    assert "integer overflow" in answer.stderr


def test_every_story_ends_clean(home: Home) -> None:
    assert home.run("verify", "--checksum").exit_code == 0
    writer = Writer.open(home.root / "archive/index.db")
    writer.record([archived(header(7))])  # it was never locked or damaged
    writer.close()
