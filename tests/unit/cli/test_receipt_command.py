"""`ingester receipt` as people and programs see it: table, CSV, JSON, mistakes."""

from __future__ import annotations

import csv
import re
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.factory import drop, encoded, instance, uid
from tests.media import burn, images
from tests.unit.cli.home import Home

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("site"))
    spool = made.root / "spool"
    cd = burn(tmp_path_factory.mktemp("cd") / "CD_1")
    images(cd)[2].unlink()
    shutil.copytree(cd, spool / "CD_1")
    shutil.copytree(cd, spool / "whole")
    shutil.rmtree(spool / "whole/PT000000")
    (spool / "whole/DICOMDIR").unlink()
    drop(spool / "whole/=1+1", instance(2))
    drop(spool / "worse/cut", encoded(instance(3))[:-40])
    drop(spool / "worse/other", instance(2, StudyDescription="Thorax"))
    (made.config).write_text(made.config.read_text() + "\n[sources.CT9]\n")
    drop(spool / "CT9/CD_1/a", instance(4))
    assert made.run("run", "--once").exit_code == 1
    return made


def test_what_is_missing_is_named_and_the_exit_code_says_so(home: Home) -> None:
    answer = home.run("receipt", "CD_1", "--source", "MANUAL")
    assert answer.exit_code == 1
    assert "CD_1/DICOMDIR lists 10: 9 archived, 1 missing" in answer.stdout
    assert "CD_1/PT000000/ST000000/SE000000/IM000002" in answer.stdout
    assert answer.stdout.rstrip().endswith("NOT COMPLETE: 1 of the 10 that CD_1/DICOMDIR lists")
    whole = home.run("receipt", "whole", "--all")
    assert whole.exit_code == 0
    assert "whole/viewer.exe" in whole.stdout
    assert "no list says what to expect" in whole.stdout


def test_what_is_undecided_is_shown_with_the_commands_to_use(home: Home) -> None:
    answer = home.run("receipt", "worse")
    assert answer.exit_code == 1
    (cut,) = home.json("quarantine")
    assert f"resolve {cut['arrival_id']}, or: ingester" in answer.stdout
    assert "conflict" in answer.stdout
    home.run("resolve", cut["arrival_id"])
    settled = home.run("receipt", "worse")
    assert settled.exit_code == 0  # an undecided conflict is archived all the same
    assert "with --make-current" in settled.stdout


def test_csv_has_every_file_and_is_defused(home: Home) -> None:
    rows = list(csv.DictReader(StringIO(home.run("receipt", "whole", "--csv").stdout)))
    assert [row["status"] for row in rows].count("foreign") == 3
    listed = home.run("receipt", "CD_1", "--source", "MANUAL", "--csv").stdout
    rows = list(csv.DictReader(StringIO(listed)))
    assert len(rows) == 13 + 1
    (missing,) = [row for row in rows if row["status"] == "missing"]
    assert missing["what"] == "IMAGE CT, series 1, number 3"
    assert missing["sop_instance_uid"] == uid(1, 1, 1, 3)


def test_csv_does_not_execute_a_name(home: Home, tmp_path: Path) -> None:
    listed = tmp_path / "sums"
    listed.write_text(f"{'0' * 64}  =1+1\n")
    answer = home.run("receipt", "whole", "--expect", listed, "--csv")
    assert "missing,'=1+1," in answer.stdout


def test_json_is_what_the_documentation_says(home: Home, tmp_path: Path) -> None:
    listed = tmp_path / "uids"
    listed.write_text(f"{uid(2, 1, 1, 1)}\n{uid(9)}\n")
    told = home.json("receipt", "whole", "--expect", listed)
    assert (told["is_complete"], told["unexpected"]) == (False, 0)
    drop(home.root / "spool/whole/late.part", b"x")
    told["waiting"] = home.json("receipt", "whole")["waiting"]
    page = (ROOT / "docs/commands.md").read_text()
    section = page[page.index("## `receipt") : page.index("## `find")]
    prose = section[section.index("`--json` prints one object") : section.index("```console")]
    documented = set(re.findall(r"`(\w+)`", prose))
    used = set(told)
    for name in ("expectations", "expected", "files", "waiting"):
        assert told[name], name
        used |= set(told[name][0])
    assert used == documented - {"arrived", "batches", "dicomdir", "list"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CD_2"], "there is no batch CD_2; near in name are: CD_1"),
        (["xyz"], "the latest are:"),
        (["CD_1"], "several sources have a batch CD_1; say which with --source: CT9, MANUAL"),
        (["worse", "--source", "CT9"], "CT9 has no batch worse; these have one: MANUAL"),
        (["worse", "--csv", "--json"], "choose --csv or --json"),
        (["worse", "--expect", "/nowhere"], "does not exist"),
    ],
)
def test_mistakes_are_told_with_a_way_out(home: Home, arguments: list[Any], words: str) -> None:
    answer = home.run("receipt", *arguments)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert words in answer.stderr


def test_a_batch_of_which_nothing_has_an_outcome_yet(home: Home) -> None:
    drop(home.root / "spool/new/a", instance(8))
    answer = home.run("receipt", "new")
    assert answer.exit_code == 1
    assert "1 file is still in the spool" in answer.stdout
    assert "run --once" in answer.stderr
