"""`find` and `show`: names as people write them, lists that end, words that help."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless
from rich.cells import cell_len

from ingester.cli.people import readable
from ingester.cli.tables import fits, fitted, records, shortened, wrapped
from tests.factory import drop, encoded, instance, uid
from tests.terminal import on_a_terminal
from tests.unit.cli.home import Home
from tests.unit.index.records import archived, header

STUDIES = 130


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("site"))
    anna = instance(1, PatientName="Müller^Anna^Maria^Dr.", SpecificCharacterSet="ISO_IR 192")
    drop(made.root / "spool/CD_1/a", anna)
    drop(made.root / "spool/CD_1/b", instance(1, instance=2))
    drop(made.root / "spool/CD_2/c", encoded(anna, "1.2.840.10008.1.2"))
    drop(made.root / "spool/CD_2/d", instance(1, instance=2, StudyDescription="Thorax"))
    drop(made.root / "spool/e", instance(2, StudyDescription="\x1b[31mred", PatientID="\x07bell"))
    drop(made.root / "spool/f", instance(3, 1, AccessionNumber="TWICE"))
    drop(made.root / "spool/g", instance(3, 2, AccessionNumber="TWICE"))
    for number in range(60):
        drop(made.root / f"spool/series/{number}", instance(4, 1, 1, number + 1))
    assert made.run("run", "--once").exit_code == 1
    return made


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A site with more studies than a page of `find` holds."""
    from ingester.index.writer import Writer

    made = Home(tmp_path_factory.mktemp("many"))
    writer = Writer.open(made.root / "archive/index.db")
    for patient in range(1, STUDIES + 1):
        writer.record([archived(header(patient, patient_name=f"Meyer{patient}^Max"))])
    writer.close()
    return made


# -- names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("Müller^Anna", "Müller, Anna"),
        ("Müller^Anna^Maria^Dr.^jr.", "Müller, Dr. Anna Maria jr."),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田 太郎)"),
        ("=山田^太郎", "山田 太郎"),
        ("Doe^", "Doe"),
        ("^Anna", "Anna"),
        (" Doe ^ John ", "Doe, John"),
        ("Plain Name", "Plain Name"),
        ("^^^^", ""),
        ("A^B^C^D^E^F^G", "A, D B C E F G"),
        (None, ""),
    ],
)
def test_names_are_written_as_people_write_them(name: str | None, read: str) -> None:
    assert readable(name) == read


@given(st.text(alphabet="aÄ山 ^=", max_size=30))
def test_no_name_is_too_strange(name: str) -> None:
    assert all(letter in readable(name) for letter in name.partition("=")[0] if letter.isalpha())


# -- tables ------------------------------------------------------------------------------


cells = st.text(alphabet="abc 山ü", max_size=40)


@given(st.lists(st.tuples(cells, cells, cells), max_size=5), st.integers(50, 120))
def test_a_folded_table_keeps_its_width_and_every_character(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    lines = fitted(["one", "two", "three"], rows, width=width)
    if fits(["one", "two", "three"], rows, width=width):
        assert all(cell_len(line) <= width for line in lines)
    kept = "".join(lines[2:]).replace(" ", "")
    assert sorted(kept) == sorted("".join("".join(row) for row in rows).replace(" ", ""))


@given(cells, st.integers(2, 20))
def test_folding_and_shortening_keep_to_the_width(text: str, width: int) -> None:
    assert all(cell_len(line) <= width for line in wrapped(text, width))
    assert cell_len(shortened(text, width)) <= width


def test_numbers_stand_to_the_right_and_what_is_copied_is_never_folded() -> None:
    rows = [["1.2.3" * 20, "some words that may be folded anywhere", "7"]]
    lines = fitted(["study_instance_uid", "words", "n"], rows, numbers=[2], width=120)
    assert lines[2].startswith("1.2.3" * 20)
    assert lines[2].endswith("  7")
    assert len(lines) > 3
    assert not fits(["study_instance_uid", "words", "n"], rows, numbers=[2], width=80)
    told = list(records(["study_instance_uid", "words"], [rows[0][:2]], width=60))
    assert told[0].startswith("─ row 1 ─")


# -- find --------------------------------------------------------------------------------


def test_find_ends_after_a_page_and_says_how_many_more_there_are(many: Home) -> None:
    answer = many.run("find", "meyer")
    assert len(answer.stdout.splitlines()) == 100 + 2
    assert answer.stderr == (
        f"and {STUDIES - 100} more; another word narrows it, --all or --limit N shows them\n"
    )
    assert len(many.run("find", "meyer", "--all").stdout.splitlines()) == STUDIES + 2
    assert len(many.run("find", "meyer", "--limit", "3").stdout.splitlines()) == 3 + 2
    assert len(many.json("find", "meyer")) == STUDIES
    assert len(many.json("find", "meyer", "--limit", "3")) == 3
    both = many.run("find", "meyer", "--limit", "3", "--all")
    assert (both.exit_code, both.stdout) == (2, "")
    assert many.run("find", "meyer7").stderr == ""


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["nobody"], "nothing found\n"),
        (["mueller", "1999"], "studies that match one of them: mueller: 1, 1999: 0"),
        (["muelle", "xyzzy"], "muelle: 1, xyzzy: 0"),
        (["milller"], "names like milller: muller"),
        (["givn2"], "names like givn2: given2"),
        ([uid(1, 1, 1)], f"see: ingester show {uid(1, 1, 1)}"),
        ([uid(1, 1, 1, 2)[:-4]], "begins so"),
    ],
)
def test_where_nothing_is_found_it_helps(home: Home, words: list[str], hint: str) -> None:
    answer = home.run("find", *words)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert hint in answer.stderr
    assert home.json("find", *words) == []


@pytest.mark.parametrize("words", [["Müller, Dr. Anna Maria"], ["Müller,Anna"], ["(Müller Anna)"]])
def test_a_name_is_found_as_it_is_shown(home: Home, words: list[str]) -> None:
    found = home.run("find", *words)
    assert found.exit_code == 0
    assert "Müller, Dr. Anna Maria" in found.output


def test_an_empty_index_says_so(tmp_path: Path) -> None:
    empty = Home(tmp_path)
    assert empty.run("run", "--once").exit_code == 0
    assert "the index is empty" in empty.run("find", "x").stderr


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_terminal_of_any_width_shows_whole_uids(home: Home, columns: int) -> None:
    command = [sys.executable, "-m", "ingester", "--config", str(home.config), "find", "CT"]
    seen = on_a_terminal(command, columns=columns)
    assert seen.exit_code == 0
    assert seen.widest <= max(columns, 12 + len(uid(1, 1)))
    text = "\n".join(seen.lines)
    assert "Müller, Dr. Anna Maria" in text
    assert all(uid(patient, 1) in text for patient in (1, 2, 3, 4))
    assert "\x1b[31m" not in text
    assert "\x07" not in text


# -- show --------------------------------------------------------------------------------


def test_show_sums_up_what_arrived(home: Home) -> None:
    answer = home.run("show", uid(1, 1)).stdout
    assert "Müller, Dr. Anna Maria  P0001  born 1970-01-31  O" in answer
    assert "CT 1 series, 3 images" in answer
    rows = [line.split() for line in answer[answer.index("history") :].splitlines()]
    assert any(row[-4:] == ["MANUAL", "CD_1", "2", "archived"] for row in rows)
    assert any(row[-6:] == ["MANUAL", "CD_2", "1", "duplicate,", "1", "conflict"] for row in rows)
    assert "problem: conflict:" in answer
    assert "ingester resolve" in answer


def test_show_lists_instances_up_to_a_limit(home: Home) -> None:
    shown = home.run("show", uid(4, 1, 1)).stdout
    assert "and 10 more; --all lists them" in shown
    assert shown.count("  current  ") == 50
    assert home.run("show", uid(4, 1, 1), "--all").stdout.count("  current  ") == 60
    command = [sys.executable, "-m", "ingester", "--config", str(home.config), "show"]
    seen = on_a_terminal([*command, uid(4, 1, 1)], columns=80)
    assert seen.widest <= 80 or max(seen.lines, key=len).startswith("folder")
    assert any(line.endswith(uid(4, 1, 1, 1)) for line in seen.lines)


def test_show_names_classes_and_syntaxes(home: Home) -> None:
    shown = home.run("show", uid(1, 1, 1, 1)).stdout
    assert "CT Image Storage (1.2.840.10008.5.1.4.1.1.2)" in shown
    assert "Explicit VR Little Endian (1.2.840.10008.1.2.1)" in shown
    assert "16 x 16, 12 bits, MONOCHROME2" in shown
    assert "thumbnail   made: " in shown
    assert "  Modality: CT" in shown
    assert str(home.root / "archive") in shown
    assert JPEG2000Lossless not in shown


def test_show_takes_a_beginning_and_an_accession_number(home: Home) -> None:
    whole = home.run("show", uid(1, 1)).stdout
    assert home.run("show", "A001001").stdout == whole
    begin = uid(1, 1)[: -len(".0.0")]
    assert home.run("show", begin).stdout == whole
    several = home.run("show", "TWICE")
    assert (several.exit_code, several.stdout) == (1, "")
    assert "TWICE may mean 2 of them:" in several.stderr
    assert uid(3, 1) in several.stderr
    assert uid(3, 2) in several.stderr
    many = home.run("show", "1.2.")
    assert (many.exit_code, many.stdout) == (1, "")
    assert "may mean 5 of them" in many.stderr
    assert home.json("show", "1.2.") is None
    for nothing in ("9.9", "nobody", "%", "1.2.%", "\x1b[31m"):
        answer = home.run("show", nothing)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert "nothing has the UID or accession number" in answer.stderr
        assert "\x1b" not in answer.stderr


def test_every_story_ends_clean(home: Home) -> None:
    assert home.run("verify", "--checksum").exit_code == 0
