"""docs/sql.md in other people's tools: each query in `sqlite3`, each recipe as it is written."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import duckdb
import pytest

from benchmarks.cookbook import PAGE, Question, promoted_columns, questions
from ingester.index import Reader
from tests.docs.cookbook.world import build
from tests.factory import drop, instance
from tests.peers.conftest import free_port, is_listening, program
from tests.peers.reading import load_sqlite
from tests.stories.conftest import Command
from tests.waiting import until

TEXT = PAGE.read_text(encoding="utf-8")
QUESTIONS = questions(TEXT)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cookbook") / "index.db"
    build(path, promoted_columns(TEXT))
    return path


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_a_query_says_the_same_in_sqlite3(question: Question, index: Path) -> None:
    done = subprocess.run(
        [program("sqlite3"), "-readonly", "-json", str(index)],
        input=question.sql,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Reader.open(index) as reader:
        names, rows = reader.query(question.sql)
        expected = [dict(zip(names, row, strict=True)) for row in rows]
    found = json.loads(done.stdout or "[]")
    assert [list(row) for row in found] == [list(row) for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row == {
            name: pytest.approx(value) if isinstance(value, float) else value
            for name, value in wanted.items()
        }


# -- the recipes -------------------------------------------------------------------------


def recipe(language: str, word: str) -> str:
    """Return the one block in this language that speaks of *word*."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if word in block)
    return str(found)


def query(title: str) -> str:
    (found,) = (each.sql for each in QUESTIONS if each.title == title)
    return found


@pytest.fixture
def site(command: Command) -> Command:
    """Return a site with three thin CT slices of a grown-up, and one thick one."""
    command.configure(index={"columns": list(promoted_columns(TEXT))})
    for number, thickness in enumerate((1, 1, 1, 5), start=1):
        made = instance(
            1,
            instance=number,
            SliceThickness=thickness,
            ContrastBolusAgent="Iohexol 350",
            BodyPartExamined="ABDOMEN",
        )
        drop(command.spool / f"{number}", made)
    command.once()
    return command


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `ingester` and `datasette` are those of this Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ingester", "datasette"):
        shim = folder / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {name} "$@"\n')
        shim.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def shell(site: Command, environment: dict[str, str], line: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", line], input=stdin, cwd=site.root, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_ingester_sql_takes_a_query_from_a_file(site: Command, environment: dict[str, str]) -> None:
    (site.root / "query.sql").write_text(query("Which protocols are in use?"))
    shell(site, environment, recipe("console", "answer.csv"))
    with (site.root / "answer.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["modality"], row["series"]) == ("CT", "1")


def test_sqlite3(site: Command, environment: dict[str, str]) -> None:
    line = recipe("console", "sqlite3 -readonly")
    assert shell(site, environment, line, "SELECT count(*) FROM images;") == "4\n"


def test_a_cohort_is_taken_along(site: Command, environment: dict[str, str]) -> None:
    (site.root / "cohort.sql").write_text(query("Which files belong to my cohort?"))
    shell(site, environment, recipe("console", "cohort.tar"))
    with tarfile.open(site.root / "cohort.tar") as archive:
        assert archive.getnames() == site.rows(
            "SELECT path FROM instances WHERE slice_thickness = 1 ORDER BY path"
        )


def test_datasette(site: Command, environment: dict[str, str]) -> None:
    port = free_port()
    arguments = shlex.split(recipe("console", "datasette"))
    log = site.root / "datasette.log"
    with log.open("ab") as output:
        server = subprocess.Popen(
            [*arguments, "--port", str(port)], cwd=site.root, env=environment,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        until(lambda: is_listening(port), what=log.read_text())
        with urlopen(f"http://127.0.0.1:{port}/index/study_list.json?_shape=array") as answer:
            (row,) = json.load(answer)
        assert (row["patient_id"], row["instance_count"]) == ("P0001", 4)
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_duckdb(site: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.root)
    with duckdb.connect() as connection:
        load_sqlite(connection)
        assert connection.execute(recipe("sql duckdb", "ATTACH")).fetchall() == [("CT", 1)]
        assert connection.execute(
            "SELECT modalities, instance_count FROM pacs.study_list"
        ).fetchall() == [("CT", 4)]


def test_pandas(site: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.root)
    names: dict[str, Any] = {}
    exec(recipe("python", "pandas"), names)  # the recipe itself is what is tested
    with closing(names["index"]):
        (study,) = names["studies"].to_dict("records")
    assert (study["modalities"], study["instance_count"]) == ("CT", 4)
