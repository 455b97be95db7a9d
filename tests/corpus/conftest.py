"""The corpus: real and hostile files in a folder that INGESTER_CORPUS names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.stories.conftest import Command


@pytest.fixture(scope="session")
def corpus() -> Path:
    folder = os.environ.get("INGESTER_CORPUS")
    assert folder, "INGESTER_CORPUS names the folder with the corpus; these tests need it"
    path = Path(folder).resolve()
    assert path.is_dir(), f"there is no corpus at {path}"
    return path


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "site")
