"""Every command, on a site that is not as it should be: a sentence and the right exit code.

The sentence says what to do about it; nobody reads a traceback.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingester.cli import main
from ingester.index.migrations import MIGRATIONS
from tests.factory import drop, instance
from tests.unit.cli.home import Home

#: Commands that ask the index, that change something, and what they are called with.
ASKING = ("find x", "show 1.2", "sql SELECT%201", "quarantine", "receipt x", "status")
CHANGING = ("run --once", "derive", "retry x", "resolve x", "demo", "backup {elsewhere}")
ALL = (*ASKING, *CHANGING, "verify", "rebuild", "import {elsewhere}")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a site, who stumbles over it, and what they must be told."""

    name: str
    make: Callable[[Path], object]
    commands: tuple[str, ...]
    words: str
    is_about_modes: bool = False


def _query(index: Path, *statements: str) -> None:
    with closing(sqlite3.connect(index, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def _index(site: Path) -> Path:
    return site / "archive/index.db"


def _no_index(site: Path) -> None:
    for path in _index(site).parent.glob("index.db*"):
        path.unlink()


def _foreign(site: Path) -> None:
    _no_index(site)
    _query(_index(site), "CREATE TABLE appointments (at TEXT)")


def _damaged(site: Path) -> None:
    data = _index(site).read_bytes()
    _index(site).write_bytes(data[:4096] + os.urandom(len(data) - 4096))


def _of_version(version: int) -> Callable[[Path], None]:
    return lambda site: _query(_index(site), f"PRAGMA user_version = {version}")


def _a_folder(site: Path) -> None:
    _no_index(site)
    _index(site).mkdir()


TROUBLES = (
    Trouble("no configuration", lambda s: (s / "ingest.toml").unlink(), ALL, "ingester init DIR"),
    Trouble(
        "a typing error in the configuration",
        lambda s: (s / "ingest.toml").write_text("[spool]\nqiet = '2s'\n"),
        ALL, "did you mean quiet?",
    ),
    Trouble(
        "a configuration nobody may read", lambda s: (s / "ingest.toml").chmod(0), ALL[:2],
        "cannot be read: Permission denied", is_about_modes=True,
    ),
    Trouble("no index", _no_index, ASKING[:-1], "`ingester run` makes it"),
    Trouble(
        "an empty index", lambda s: _index(s).write_bytes(b""),
        (*ASKING[:-1], "verify"), "`ingester run` makes it",
    ),
    Trouble("an index of somebody else", _foreign, ALL[:-1], "Move it elsewhere, or name another"),
    Trouble("a damaged index", _damaged, ASKING, "run `ingester rebuild`"),
    Trouble(
        "a newer index", _of_version(len(MIGRATIONS) + 1), (*ASKING, *CHANGING, "verify"),
        "Install that version, or rebuild",
    ),
    Trouble(
        "an older index", _of_version(len(MIGRATIONS) - 1), (*ASKING, "verify"),
        "brings the index up to date",
    ),
    Trouble(
        "an index nobody may read", lambda s: _index(s).chmod(0),
        (*ASKING, "verify", "backup {elsewhere}"), "the service's own user or group",
        is_about_modes=True,
    ),
    Trouble(
        "an index nobody may write", lambda s: _index(s).chmod(0),
        ("run --once", "derive", "retry x", "resolve x", "rebuild", "import {elsewhere}"),
        "run as the user that owns the archive", is_about_modes=True,
    ),
    Trouble("a folder for an index", _a_folder, (*CHANGING[:-1], "rebuild"), "is a folder"),
    Trouble(
        "no archive", lambda s: shutil.rmtree(s / "archive"), (*ALL,), "disk not mounted?",
    ),
    Trouble(
        "no spool", lambda s: shutil.rmtree(s / "spool"),
        ("status", *CHANGING[:-1], "rebuild", "import {elsewhere}"), "disk not mounted?",
    ),
    Trouble(
        "an archive nobody may read", lambda s: (s / "archive").chmod(0), ALL[1::2], "",
        is_about_modes=True,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Home(tmp_path_factory.mktemp("site"))
    text = home.config.read_text().replace("port = 11112", "port = 0")
    home.config.write_text(text)
    drop(home.root / "spool/a", instance(1))
    assert home.run("run", "--once").exit_code == 0
    return home.root


def obeying_modes() -> None:
    """Let root obey the modes of files as everybody does."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2, 3):  # to override, to read and search, to act as the owner
            if libc.prctl(24, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "root cannot give this up here")


@dataclass(frozen=True, slots=True)
class Answer:
    exit_code: int
    stdout: str
    stderr: str


def asked(words: list[str]) -> Answer:
    """Ask within this process; an exception that nobody expects is not caught."""
    found = CliRunner().invoke(main, words, prog_name="ingester", catch_exceptions=False)
    return Answer(found.exit_code, found.stdout, found.stderr)


def asked_in_a_process(words: list[str]) -> Answer:
    """Ask in a process of its own, which obeys the modes of files."""
    done = subprocess.run(
        [sys.executable, "-m", "ingester", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=obeying_modes,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda each: each.name)
def test_a_sentence_and_exit_code_2(built: Path, tmp_path: Path, trouble: Trouble) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for command in trouble.commands:
        site = tmp_path / "site"
        shutil.copytree(built, site, symlinks=True)
        trouble.make(site)
        words = [each.replace("%20", " ") for each in command.split()]
        words = [each.replace("{elsewhere}", str(elsewhere)) for each in words]
        ask = asked_in_a_process if trouble.is_about_modes else asked
        answer = ask(["--config", str(site / "ingest.toml"), *words])
        told = f"{command}: {answer.exit_code}\n{answer.stdout}{answer.stderr}"
        assert answer.exit_code == 2, told
        assert trouble.words in answer.stderr + answer.stdout, told
        assert "Traceback" not in answer.stderr, told
        assert len(answer.stderr.splitlines()) <= 3, told
        for path in (site, site / "archive"):
            if path.exists():
                path.chmod(0o750)
        shutil.rmtree(site)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("fnid x", "did you mean find?"),
        ("frobnicate", "see ingester --help"),
        ("find", "Missing argument"),
        ("find --limt 3 x", "--limit"),
        ("show", "Missing argument"),
        ("sql --csv --json x", "choose --csv or --json"),
        ("retry", "name files by their ID"),
        ("retry --reason nonsense", "no-study-instance-uid"),
        ("resolve", "name arrivals by their ID"),
        ("derive --kind film", "thumbnail"),
        ("import", "Missing argument"),
        ("import /nowhere/at/all", "does not exist"),
        ("convert /nowhere/at/all", "does not exist"),
        ("init --listen nonsense", "is no address"),
        ("--confg x find y", "--config"),
    ],
)
def test_a_mistake_in_the_command_line_is_explained(built: Path, words: str, told: str) -> None:
    answer = asked(["--config", str(built / "ingest.toml"), *words.split()])
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
