"""The corpus in, the index away, and all of it back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.indexes import told_by_files, whole
from tests.stories.conftest import Command

DERIVATIVES = (
    "SELECT i.path, d.kind, d.status, d.reason, d.path, d.pipeline_version, d.detail, d.fps"
    " FROM derivatives AS d JOIN instances AS i USING (instance_id) ORDER BY i.path, d.kind"
)


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = Command(tmp_path_factory.mktemp("built") / "site")
    shutil.copytree(corpus, command.spool / "CD_1")
    summary = command.json("run", "--once", exit_code=1)
    assert summary["archived"] > 300
    return command


@pytest.mark.timeout(300)
def test_beside_the_old_index_every_row_and_key_is_the_same(built: Command) -> None:
    index = built.archive / "index.db"
    before = whole(index)
    told = built.json("rebuild")
    assert told["findings"] == []
    assert all(not each["changed_columns"] for each in told["compared"].values())
    assert whole(index) == before
    built.verify()


@pytest.mark.timeout(600)
def test_from_the_tree_alone_all_is_the_same_that_files_can_tell(built: Command) -> None:
    index = built.archive / "index.db"
    before, pictures = told_by_files(index), built.rows(DERIVATIVES)
    for path in built.archive.glob("index.db*"):
        path.unlink()
    told: Any = built.json("rebuild")
    assert told["findings"] == []
    assert told["old_index"] is None
    assert told_by_files(index) == before
    summary = built.json("run", "--once", exit_code=1)  # some pictures fail, as before
    assert summary["arrived"] == 0
    assert built.rows(DERIVATIVES) == pictures
    built.verify()
