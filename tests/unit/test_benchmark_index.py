"""The measuring of the index, on a small one: it asks what it says and tells what it saw."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner

from benchmarks.cookbook import page_text, questions
from benchmarks.index import main

_SMALL = ["--instances", "500", "--turns", "1", "--batches", "3"]


def test_every_question_of_the_cookbook_is_asked_and_every_insert_lands(tmp_path: Path) -> None:
    answer = CliRunner().invoke(main, [*_SMALL, "--keep", str(tmp_path), "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    titles = [each["question"] for each in told["queries"]]
    assert set(titles) > {each.title for each in questions(page_text())}
    assert {"find Müller", "show <instance>", "status", "batches"} <= set(titles)
    assert all(each["best_ms"] > 0 for each in told["queries"])
    found = {each["question"]: each["rows"] for each in told["queries"]}
    assert found["find Müller"] >= found["find Müller 2026-03"] >= 1
    assert found["find nobody"] == 0
    assert told["inserts"]["share"] > 0
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("instances", "arrivals")
        ]
    assert [told["index"]["instances"], told["index"]["arrivals"]] == counts
    assert counts[0] > 500 + 2 * 64
    # What is kept is used again.
    again = CliRunner().invoke(main, [*_SMALL, "--keep", str(tmp_path), "--only", "queries"])
    assert again.exit_code == 0, again.output
    assert "goals met" in again.stdout
    assert f"instances {counts[0]}" in " ".join(again.stdout.split())
