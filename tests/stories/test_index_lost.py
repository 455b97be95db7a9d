"""The index is gone or damaged: it comes back, and nothing of the archive depended on it."""

from __future__ import annotations

import os
import subprocess

import pytest

from ingester import site as ties
from tests.factory import drop, encoded, instance
from tests.indexes import told_by_files, whole
from tests.stories.conftest import Command
from tests.stories.test_backed_up import Copied, follow


@pytest.fixture
def filled(command: Command) -> Command:
    for number in range(1, 4):
        drop(command.spool / "CD_1" / str(number), instance(instance=number))
    drop(command.spool / "CD_1" / "cut", encoded(instance(2))[:-40])
    command.once(exit_code=1)
    return command


def stderr_of(command: Command, *arguments: str) -> str:
    done = subprocess.run(
        command.arguments(*arguments), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    return done.stderr


def test_a_lost_index_is_made_again_at_the_next_start(filled: Command) -> None:
    index = filled.archive / "index.db"
    told = told_by_files(index)
    for path in filled.archive.glob("index*"):
        path.unlink()
    with filled.service() as service:
        drop(filled.spool / "more", instance(instance=9))
        service.await_outcomes({"archived": 4, "quarantined": 1})
    assert set(told["headers"]) < set(told_by_files(index)["headers"])
    filled.once()  # pictures that the service had no time for
    filled.verify()


@pytest.mark.parametrize("is_gone", [True, False])
def test_the_page_for_the_bad_day_brings_it_back(filled: Command, is_gone: bool) -> None:
    index = filled.archive / "index.db"
    told = told_by_files(index)
    for path in filled.archive.glob("index*"):
        path.unlink()
    if not is_gone:
        index.write_bytes(b"no index any more" * 1000)
    assert follow("It is gone or damaged", filled, Copied(filled.root / "nowhere")) == 4
    assert told_by_files(index) == told
    assert list(filled.archive.glob("index.db.*")) == []
    filled.verify()


def test_rebuild_says_what_it_did(filled: Command) -> None:
    before = whole(filled.archive / "index.db")
    answer = filled.run("rebuild")
    assert "the index is made again: 3 objects" in answer
    assert "carried over from the old index: 4 arrivals, 6 derivatives" in answer
    assert "compared with the old index: every row is the same" in answer
    assert whole(filled.archive / "index.db") == before
    for path in filled.archive.glob("index.db*"):
        path.unlink()
    assert "there was no old index: original names, batches" in filled.run("rebuild")
    filled.once()
    (filled.archive / "CT1").mkdir()
    drop(filled.archive / "CT1" / "notes.txt", b"mine")
    (path, _) = filled.rows("SELECT path FROM instances ORDER BY path LIMIT 2")
    (filled.archive / path).unlink()
    told = filled.json("rebuild", exit_code=1)
    assert sorted(each["kind"] for each in told["findings"]) == ["missing-object", "stray-file"]
    assert told["compared"]["instances"] == {
        "equal": 2, "changed": 0, "gone": 1, "new": 0, "changed_columns": {},
    }  # fmt: skip


def test_rebuild_is_refused_beside_a_running_service(filled: Command) -> None:
    before = whole(filled.archive / "index.db")
    with filled.service() as service:
        words = stderr_of(filled, "rebuild")
        assert str(service.process.pid) in words
        assert "Traceback" not in words
    after = whole(filled.archive / "index.db")
    assert after["instances"] == before["instances"]
    filled.verify()


def test_a_second_rebuild_at_once_is_refused(filled: Command) -> None:
    with ties.held(filled.spool, filled.archive, command="rebuild"):
        words = stderr_of(filled, "rebuild")
    assert str(os.getpid()) in words
    assert "rebuild" in words
    filled.verify()
