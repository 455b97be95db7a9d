"""However the corpus comes in, each of its files meets the same outcome."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stories.conftest import Command
from tests.waiting import until

Way = Callable[[Path, Path], None]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def copied_in_pieces(corpus: Path, spool: Path) -> None:
    """Write each file in pieces, closing it only at the end, as a slow network does."""
    for path in files_of(corpus):
        target = spool / "corpus" / path.relative_to(corpus)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        size = max(1, len(data) // 3 + 1)
        with target.open("wb") as file:
            for start in range(0, len(data), size):
                file.write(data[start : start + size])
                file.flush()


def moved_as_one_folder(corpus: Path, spool: Path) -> None:
    aside = spool.parent / "aside"
    shutil.copytree(corpus, aside)
    os.rename(aside, spool / "corpus")


def as_a_zip(corpus: Path, spool: Path) -> None:
    aside = spool.parent / "corpus.zip"
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(corpus):
            archive.write(path, str(path.relative_to(corpus)))
    os.rename(aside, spool / "corpus.zip")


def fates(command: Command) -> Counter[tuple[str, str, str]]:
    """Return what became of each content, archive files aside."""
    return Counter(
        command.rows(
            "SELECT sha256, outcome, coalesce(reason, '') FROM arrivals WHERE outcome != 'unpacked'"
        )
    )


@pytest.fixture(scope="module")
def expected(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Counter[tuple[str, str, str]]:
    command = Command(tmp_path_factory.mktemp("once") / "site")
    shutil.copytree(corpus, command.spool / "corpus")
    command.run("run", "--once", exit_code=1)
    return fates(command)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("way", "watch"),
    [
        (copied_in_pieces, "auto"),
        (moved_as_one_folder, "auto"),
        (moved_as_one_folder, "poll"),
        (as_a_zip, "auto"),
    ],
)
def test_the_service_takes_it_all(
    corpus: Path,
    command: Command,
    expected: Counter[tuple[str, str, str]],
    way: Way,
    watch: str,
) -> None:
    command.configure(
        spool={"rescan": "2s", "incomplete_after": "3s", "watch": watch},
        videos={"scroll": False},
    )
    with command.service():
        way(corpus, command.spool)
        until(
            lambda: (
                sum(command.outcomes().values()) >= sum(expected.values())
                and command.left_in_spool() == []
            ),
            within=120,
            what=f"{sum(expected.values())} outcomes; now {command.outcomes()}",
        )
    assert fates(command) == expected
    command.verify()
