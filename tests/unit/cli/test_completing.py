"""Tab offers what there is, and is silent about everything else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factory import drop, encoded, instance, uid
from tests.indexes import whole
from tests.unit.cli.home import Home

PROGRAM = Path(sys.executable).with_name("ingester")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("site"))
    text = made.config.read_text()
    made.config.write_text(f"{text}\n[sources.CT1]\n[sources.CT2]\n")
    drop(made.root / "spool/CD_1/a", instance(1))
    drop(made.root / "spool/CD 2/b", instance(1, StudyDescription="Thorax"))
    drop(made.root / "spool/CD_1/c", instance(2))
    drop(made.root / "spool/cut", encoded(instance(3))[:-40])
    drop(made.root / "spool/text", b"read me\n" * 100)
    assert made.run("run", "--once").exit_code == 1
    return made


def offered(home: Home, *words: str) -> list[str]:
    """Return what bash is told when Tab is pressed behind the last word."""
    line = ["ingester", "--config", str(home.config), *words]
    done = subprocess.run(
        [sys.executable, "-m", "ingester"],
        env={
            **os.environ,
            "_INGESTER_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return [each.partition(",")[2] for each in done.stdout.splitlines() if each]


def test_commands_and_options_are_offered(home: Home) -> None:
    assert offered(home, "re") == ["receipt", "retry", "resolve", "rebuild"]
    assert "--checksum" in offered(home, "verify", "--")
    assert offered(home, "retry", "--reason", "no-s") == [
        "no-sop-class-uid", "no-sop-instance-uid", "no-study-instance-uid",
        "no-series-instance-uid",
    ]  # fmt: skip
    assert offered(home, "derive", "--kind", "") == ["thumbnail", "video"]


def test_values_out_of_the_index_are_offered(home: Home) -> None:
    before = whole(home.root / "archive/index.db")
    assert sorted(offered(home, "show", "1.2")) == [uid(1, 1), uid(2, 1)]
    assert offered(home, "show", uid(2)[:-6]) == [uid(2, 1)]
    assert offered(home, "show", "nothing") == []
    aside = {each["arrival_id"] for each in home.json("quarantine", "--foreign")}
    assert set(offered(home, "retry", "")) == aside
    undecided = set(offered(home, "resolve", ""))
    assert undecided > aside
    assert len(undecided) == 3
    assert offered(home, "resolve", "--study", "1.") == [uid(1, 1)]
    # "CD 2" would be two words; a name in quotes is nothing that Tab can begin.
    assert offered(home, "receipt", "CD") == ["CD_1"]
    assert offered(home, "import", "--source", "CT") == ["CT1", "CT2"]
    assert offered(home, "import", "--source", "") == ["CT1", "CT2", "MANUAL"]
    assert whole(home.root / "archive/index.db") == before


@pytest.mark.parametrize("trouble", ["no site", "no index", "damaged", "foreign", "mistake"])
def test_tab_never_fails_loudly(home: Home, tmp_path: Path, trouble: str) -> None:
    shutil.copytree(home.root, tmp_path / "site", symlinks=True)
    other = object.__new__(Home)
    other.root, other.config = tmp_path / "site", tmp_path / "site/ingest.toml"
    index = other.root / "archive/index.db"
    if trouble == "no site":
        shutil.rmtree(other.root)
    elif trouble == "no index":
        index.unlink()
    elif trouble == "damaged":
        index.write_bytes(index.read_bytes()[:8192] + os.urandom(65536))
    elif trouble == "foreign":
        index.write_bytes(b"no database" * 1000)
    else:
        other.config.write_text("[spool\n")
    for words in (["show", ""], ["retry", ""], ["resolve", "--study", ""], ["receipt", ""]):
        assert offered(other, *words) == []
    if trouble in ("no site", "mistake"):
        assert offered(other, "import", "--source", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_its_program(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingester"],
        env={**os.environ, "_INGESTER_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "_INGESTER_COMPLETE" in done.stdout
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True, timeout=60)


def test_bash_completes_by_what_the_documentation_says(home: Home) -> None:
    page = (Path(__file__).parents[3] / "docs" / "commands.md").read_text(encoding="utf-8")
    line = 'eval "$(_INGESTER_COMPLETE=bash_source ingester)"'
    assert f"`{line}`" in page
    script = (
        f"{line}\n"
        "COMP_WORDS=(ingester ver); COMP_CWORD=1; COMP_LINE='ingester ver'; COMP_POINT=12\n"
        '_ingester_completion ingester ver ingester; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["verify"]
    assert home.run("verify").exit_code == 0
