"""Commands on a small site: what they print, and with which exit code they end."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ingester.cli import main, summary
from tests.factory import drop, encoded, instance, uid
from tests.unit.cli.home import Home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("site"))
    latin: dict[str, Any] = {
        "PatientName": "Müller^Jörg",
        "PatientID": "=1+1",
        "SpecificCharacterSet": "ISO_IR 100",
    }
    drop(made.root / "spool/CD_1/a", instance(1, **latin))
    drop(made.root / "spool/CD_1/b", instance(1, 1, 2, 1, Modality="MR", **latin))
    drop(made.root / "spool/CD_1/cut", encoded(instance(2))[:-40])
    drop(made.root / "spool/CD_1/note.txt", b"read me\n" * 100)
    answer = made.run("run", "--once", "--json")
    assert answer.exit_code == 1
    told = json.loads(answer.stdout)
    assert list(told) == list(summary.KEYS)
    assert (told["archived"], told["quarantined"], told["foreign"]) == (2, 1, 1)
    return made


def test_find_knows_names_without_accents_dates_and_modalities(home: Home) -> None:
    for words in (["mueller"], ["muller", "jorg"], ["2024-01", "mr"], ["20240101"], ["Abdomen"]):
        (study,) = home.json("find", *words)
        assert study["study_instance_uid"] == uid(1, 1)
    nothing = home.run("find", "nobody")
    assert (nothing.exit_code, nothing.stdout) == (1, "")


@pytest.mark.parametrize(
    ("shown", "level"),
    [(uid(1, 1), "study"), (uid(1, 1, 2), "series"), (uid(1, 1, 2, 1), "instance")],
)
def test_show_knows_all_three_levels(home: Home, shown: str, level: str) -> None:
    told = home.json("show", shown)
    assert told["level"] == level
    assert told["history"][0]["outcome"] == "archived"
    assert home.run("show", shown).exit_code == 0
    assert home.run("show", "9.9").exit_code == 1
    assert home.json("show", "9.9") is None


def test_sql_answers_as_table_csv_and_json(home: Home) -> None:
    query = "SELECT patient_id, modality AS m, modality AS m FROM images ORDER BY modality"
    assert home.json("sql", query)[0] == {"patient_id": "=1+1", "m": "CT", "m_2": "CT"}
    assert home.run("sql", "--csv", query).stdout.splitlines()[1] == "'=1+1,CT,CT"
    assert "=1+1" in home.run("sql", query).stdout
    piped = CliRunner().invoke(main, ["--config", str(home.config), "sql"], input="SELECT 41 + 1")
    assert "42" in piped.stdout
    assert home.run("sql", " ").exit_code == 2
    assert home.run("sql", "--csv", """SELECT 1 AS "=x\"""").stdout.splitlines()[0] == "'=x"


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM arrivals",
        "ATTACH '/tmp/never.db' AS x",
        "PRAGMA query_only = OFF",
        "SELECT 1; SELECT 2",
        "SELEKT 1",
    ],
)
def test_sql_changes_nothing_and_says_what_is_wrong(home: Home, query: str) -> None:
    answer = home.run("sql", query)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("ingester: SQL: ")


def test_status_tells_of_problems_with_its_exit_code(home: Home) -> None:
    answer = home.run("status")
    assert answer.exit_code == 1
    assert "2 archived today" in answer.stdout
    assert home.json("status")["unresolved_problems"] == 1
    (problem,) = home.json("status")["latest_problems"]
    assert f"ingester resolve {problem['arrival_id']}" in problem["message"]
    assert problem["message"] in answer.stdout


def test_quarantine_lists_what_lies_there(home: Home) -> None:
    (cut,) = home.json("quarantine")
    assert cut["reason"] == "incomplete"
    assert Path(cut["path"]).name == "cut"
    listed = home.run("quarantine").stdout
    for command in ("retry", "resolve"):
        assert f"--config {home.config} {command} {cut['arrival_id']}" in listed
    assert home.json("quarantine", "--settled") == []
    reasons = {each["reason"] for each in home.json("quarantine", "--foreign")}
    assert reasons == {"incomplete", "not-dicom"}
    assert home.run("retry").exit_code == 2
    nothing = home.run("retry", "nothing")
    assert (nothing.exit_code, "run --once" in nothing.stderr) == (1, False)


def test_verify_and_rebuild_agree(home: Home) -> None:
    assert home.json("verify", "--checksum")["findings"] == []
    before = home.json("sql", "SELECT * FROM instances ORDER BY path")
    assert home.json("rebuild")["objects"] == 2
    after = home.json("sql", "SELECT * FROM instances ORDER BY path")
    assert [row["sha256"] for row in after] == [row["sha256"] for row in before]
    assert home.run("verify").exit_code == 0


def test_repair_takes_in_what_has_no_row(home: Home, tmp_path: Path) -> None:
    (thumbnail, *_) = home.json("sql", "SELECT path FROM derivatives WHERE path IS NOT NULL")
    (home.root / "archive" / thumbnail["path"]).unlink()
    assert home.run("verify").exit_code == 1
    told = home.json("verify", "--repair")
    assert ([each["kind"] for each in told["mended"]], told["findings"]) == (
        ["missing-derivative"],
        [],
    )
    assert home.run("derive").exit_code == 0
    assert home.run("verify").exit_code == 0


def test_import_leaves_foreign_files_and_takes_the_others_away_when_asked(
    home: Home, tmp_path: Path
) -> None:
    image = drop(tmp_path / "CD_9/image", instance(9))
    viewer = drop(tmp_path / "CD_9/viewer.exe", b"MZ" + bytes(600))
    told = home.json("import", tmp_path / "CD_9", "--source", "CT9", "--move")
    assert (told["arrived"], told["archived"], told["foreign"]) == (2, 1, 1)
    assert viewer.exists()
    assert not image.exists()
    rows = home.json("sql", "SELECT source, batch, original_name FROM arrivals WHERE source='CT9'")
    assert rows == [{"source": "CT9", "batch": "CD_9", "original_name": "CD_9/image"}]
    assert home.run("import", tmp_path / "CD_9", "--source", "../x").exit_code == 2
    assert home.json("import", viewer)["foreign"] == 1


def test_import_refuses_what_is_in_our_own_folders(home: Home, tmp_path: Path) -> None:
    archive = home.root / "archive"
    before = sorted(archive.rglob("*.dcm"))
    (tmp_path / "link").symlink_to(archive)
    for path in (archive, home.root, before[0], tmp_path / "link", home.root / "spool"):
        assert home.run("import", path, "--move").exit_code == 2
    assert sorted(archive.rglob("*.dcm")) == before


def test_convert_needs_no_site(tmp_path: Path) -> None:
    file = drop(tmp_path / "a.dcm", instance(1, rows=40, columns=30))

    def convert(*arguments: Path) -> Result:
        return CliRunner().invoke(main, ["convert", *map(str, arguments)])

    assert convert(file).exit_code == 0
    assert (tmp_path / "a.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert convert(file).exit_code == 1  # not overwritten
    assert convert(file, tmp_path / "b.mp4").exit_code == 1  # nothing moves
    assert convert(file, tmp_path / "b.png").exit_code == 2
    assert convert(drop(tmp_path / "text", b"hello\n" * 200)).exit_code == 1


def test_an_archive_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    elsewhere = Home(tmp_path)
    archive = tmp_path / "archive"
    archive.rename(tmp_path / "away")
    archive.mkdir()
    answer = elsewhere.run("status")
    assert answer.exit_code == 2
    assert "is its disk not mounted?" in answer.stdout


@pytest.mark.parametrize("command", ["status", "quarantine", "sql SELECT 1", "verify"])
def test_an_index_of_somebody_else_is_refused(tmp_path: Path, command: str) -> None:
    elsewhere = Home(tmp_path)
    with closing(sqlite3.connect(tmp_path / "archive/index.db")) as theirs:
        theirs.execute("CREATE TABLE appointments (at TEXT)")
    answer = elsewhere.run(*command.split(maxsplit=1))
    assert answer.exit_code == 2
    assert "not an index of ingester" in answer.stderr


def test_status_of_an_index_that_is_not_yet_brought_up_to_date_says_what_to_do(
    tmp_path: Path,
) -> None:
    old = Home(tmp_path / "site")
    old.run("run", "--once")
    with closing(sqlite3.connect(tmp_path / "site/archive/index.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    told = old.run("status")
    assert told.exit_code == 2
    assert "it brings the index up to date" in told.stdout
