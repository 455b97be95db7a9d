"""What the program offers is documented, and what is documented is offered.

Every list is read from its real source: the commands from click, the keys from the
settings, the reasons from the nouns, the tables from the database itself.
"""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ingester.check import FindingKind
from ingester.cli import COMMANDS, main
from ingester.config import example_text, keys, sections
from ingester.config.text import toml_value
from ingester.index import NOT_PROMISED, Writer
from ingester.model import DerivativeReason, Outcome, Reason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section_of(text: str, heading: str) -> str:
    """Return what stands below a heading, to the next one of its level."""
    level = heading.split(" ")[0]
    start = text.index(f"\n{heading}") + 1
    end = re.compile(rf"^#{{1,{len(level)}}} ", re.MULTILINE).search(text, start + len(heading))
    return text[start : end.start() if end else len(text)]


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def table_names(text: str) -> set[str]:
    """Return the names in the first column of the tables of a text."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented_with_its_options(name: str) -> None:
    text = section_of(page("commands.md"), f"## `{name}")
    for parameter in command(name).params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"`{option}" in text, option


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example(name: str) -> None:
    answer = CliRunner().invoke(main, [name, "--help"], prog_name="ingester")
    assert answer.exit_code == 0
    assert "Example" in answer.output
    assert f"ingester {name}" in answer.output or f" {name}" in answer.output.split("Example")[1]


def test_no_command_is_documented_that_is_not_there() -> None:
    documented = re.findall(r"^## `(\w+)", page("commands.md"), re.MULTILINE)
    assert documented == list(COMMANDS)


def test_the_list_of_commands_is_fast_and_complete() -> None:
    listed = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {name} " in listed for name in COMMANDS)


def test_the_repositorys_ingest_toml_is_the_programs_text() -> None:
    assert (ROOT / "ingest.toml").read_text(encoding="utf-8") == example_text()


@pytest.mark.parametrize("heading", sections())
def test_a_section_is_documented_with_every_key_and_default(heading: str) -> None:
    text = section_of(page("configuration.md"), f"## `{heading}`")
    declared = keys(sections()[heading])
    assert table_names(text) == set(declared)
    for name, field in declared.items():
        assert f"| `{name}` | `{toml_value(name, field.default)}` |" in text


def test_every_reason_is_documented_where_it_belongs() -> None:
    text = page("reasons.md")
    assert table_names(section_of(text, "## Files")) == {reason.value for reason in Reason}
    documented = table_names(section_of(text, "## Pictures"))
    assert documented == {reason.value for reason in DerivativeReason}


def test_every_outcome_is_documented() -> None:
    text = section_of(page("index.md"), "### `arrivals`")
    assert {outcome.value for outcome in Outcome} <= table_names(text)


@pytest.fixture(scope="module")
def empty_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("index") / "index.db"
    Writer.open(path).close()
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def index(empty_index: sqlite3.Connection) -> dict[str, tuple[str, set[str]]]:
    """Return the promised tables and views: kind and columns."""
    connection = empty_index
    found = connection.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return {
        name: (kind, {row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')})
        for name, kind in found
    }


#: Columns that are the program's own (schema.sql says "ours"), as some tables are.
OUR_COLUMNS = {
    "patients": {"patient_name_normalised"},
    "arrivals": {"message"},
    "derivatives": {"fps"},
}
OUTCOMES = {outcome.value for outcome in Outcome}


def test_every_table_and_view_is_documented(index: dict[str, tuple[str, set[str]]]) -> None:
    text = page("index.md")
    tables = set(re.findall(r"^### `(\w+)`", section_of(text, "## Tables"), re.MULTILINE))
    views = set(re.findall(r"^### `(\w+)`", section_of(text, "## Views"), re.MULTILINE))
    assert tables == {name for name, (kind, _) in index.items() if kind == "table"} - NOT_PROMISED
    assert views == {name for name, (kind, _) in index.items() if kind == "view"}


@pytest.mark.parametrize(
    "name",
    ["patients", "studies", "series", "instances", "headers", "arrivals", "derivatives", "events"],
)
def test_every_column_of_a_table_is_documented(
    name: str, index: dict[str, tuple[str, set[str]]]
) -> None:
    documented = table_names(section_of(page("index.md"), f"### `{name}`")) - OUTCOMES
    assert documented == index[name][1] - OUR_COLUMNS.get(name, set())


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("images", ["patients", "studies", "series", "instances"]),
        ("study_list", ["patients", "studies"]),
        ("batches", []),
        ("problems", []),
        ("arrivals_by_day", []),
    ],
)
def test_every_column_of_a_view_is_documented(
    name: str, tables: list[str], index: dict[str, tuple[str, set[str]]]
) -> None:
    text = section_of(page("index.md"), f"### `{name}`")
    documented = table_names(text)
    for table in tables:
        documented |= index[table][1] - OUR_COLUMNS.get(table, set())
    if "a count for each outcome" in text:
        documented |= OUTCOMES
    assert documented == index[name][1]


def test_the_links_of_the_documentation_lead_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (file.parent / target).exists(), f"{file.name}: {target}"


RUN_EVERYTHING = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/ingester run"
TEST_EVERYTHING = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"


def test_the_two_commands_stand_in_the_readme_and_ci_runs_the_tests_so() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n{RUN_EVERYTHING}\n" in readme
    assert f"\n{TEST_EVERYTHING}\n" in readme
    assert f"\n{TEST_EVERYTHING}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_no_page_speaks_of_a_command_that_is_not_there() -> None:
    for file in [ROOT / "README.md", *DOCS.glob("*.md")]:
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"`(?:\.venv/bin/)?ingester (?:--config \S+ )?([a-z]+)", text):
            assert name in COMMANDS, f"{file.name}: ingester {name}"


def test_every_note_is_documented_and_no_other() -> None:
    slug = re.compile(r"[a-z]+(-[a-z]+)+")
    said = {
        node.value
        for file in (ROOT / "ingester" / "dicom").glob("*.py")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if slug.fullmatch(node.value)
    }
    cells = re.findall(
        r"^\| (`.*?) \|", section_of(page("reasons.md"), "## Oddities"), re.MULTILINE
    )
    told = {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}
    assert len(said) > 20
    assert told == said


def test_every_check_of_the_doctor_is_documented_and_no_other() -> None:
    files = [*(ROOT / "ingester" / "doctor").glob("*.py"), ROOT / "ingester" / "cli" / "doctor.py"]
    made = {
        node.args[0].value
        for file in files
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("ok", "note", "problem")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    text = section_of(page("commands.md"), "## `doctor`")
    cells = re.findall(r"^\| (`[a-z].*?) \|", text, re.MULTILINE)
    told = {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}
    assert len(made) > 20
    assert told == made


def test_every_kind_of_finding_is_documented_and_no_other() -> None:
    text = section_of(page("commands.md"), "## `verify")
    cells = re.findall(r"^\| (`[a-z].*?) \|", text, re.MULTILINE)
    told = {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}
    assert told == {kind.value for kind in FindingKind}
