"""The query in the docs is the query that runs, and its answer is the true one.

Every question of docs/sql.md is asked of a small hospital's index as `ingester sql`
asks it, and compared with what plain Python finds in the records the index was made of.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom._uid_dict import UID_dictionary

from benchmarks.cookbook import PAGE, Question, promoted_columns, questions
from ingester.index import Reader
from ingester.index.columns import promoted
from tests.docs.cookbook import administrator, physicist, researcher, stock
from tests.docs.cookbook.answers import ANSWERS
from tests.docs.cookbook.oddities import OBLIQUE
from tests.docs.cookbook.world import Rounded, Row, World, build

TEXT = PAGE.read_text(encoding="utf-8")
QUESTIONS = questions(TEXT)
BY_TITLE = {each.title: each for each in QUESTIONS}
#: `ingester sql "SELECT …"`, in either kind of quotes.
_QUERY_OF_A_COMMAND = re.compile(r"""ingester sql (?:--\w+ )?(?:"([^"]+)"|'([^']+)')""")
#: Those whose answers are registered by being imported.
ASKERS = (administrator, stock, researcher, physicist)


@pytest.fixture(scope="module", autouse=True)
def _central_europe() -> Iterator[None]:
    """Let the clock on the wall differ from UTC, by an hour or two."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    path = tmp_path_factory.mktemp("cookbook") / "index.db"
    return path, build(path, promoted_columns(TEXT))


@pytest.fixture(scope="module")
def reader(hospital: tuple[Path, World]) -> Iterator[Reader]:
    with Reader.open(hospital[0]) as reader:
        yield reader


def ask(reader: Reader, sql: str) -> list[Row]:
    names, rows = reader.query(sql)
    assert len(set(names)) == len(names), "two columns have one name"
    return [dict(zip(names, row, strict=True)) for row in rows]


def same(found: Any, expected: Any) -> bool:
    """Compare values: numbers as they are rounded, containers as JSON text."""
    if isinstance(expected, Rounded):
        return expected.fits(found)
    if isinstance(found, float) and isinstance(expected, (int, float)):
        return found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    return bool(found == researcher.as_text(expected))


def test_every_question_has_one_answer_and_every_answer_a_question() -> None:
    assert len(ASKERS) == 4
    assert len(BY_TITLE) == len(QUESTIONS) >= 30
    assert set(BY_TITLE) == set(ANSWERS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_a_query_answers_its_question(
    question: Question, reader: Reader, hospital: tuple[Path, World]
) -> None:
    answer = ANSWERS[question.title]
    expected = answer.compute(hospital[1])
    found = ask(reader, question.sql)
    assert found, "the hospital lacks what is asked for: the test would show nothing"
    assert len(found) == len(expected)
    for number, (row, wanted) in enumerate(zip(found, expected, strict=True)):
        assert not answer.is_whole or set(row) == set(wanted)
        wrong = {
            name: (row[name], wanted[name]) for name in wanted if not same(row[name], wanted[name])
        }
        assert not wrong, f"row {number}: (found, expected) {wrong}"


def test_no_query_reads_all_headers(reader: Reader) -> None:
    for question in QUESTIONS:
        plan = [str(row[3]) for row in reader.query(f"EXPLAIN QUERY PLAN {question.sql}")[1]]
        assert not [step for step in plan if step.startswith("SCAN headers")], question.title


def test_every_promoted_column_is_used_and_none_is_missing(reader: Reader) -> None:
    asked = " ".join(each.sql for each in QUESTIONS)
    for keyword in promoted_columns(TEXT):
        assert re.search(rf"\b{promoted(keyword).name}\b", asked), keyword


def test_without_the_columns_the_headers_answer_the_same(reader: Reader) -> None:
    title = "How are the protocols exposed, on each device?"
    sql = BY_TITLE[title].sql
    for keyword in promoted_columns(TEXT):
        sql = re.sub(
            rf"avg\({promoted(keyword).name}\) AS", f"avg(attributes ->> '$.{keyword}') AS", sql
        )
    sql = sql.replace("FROM instances\n", "FROM instances JOIN headers USING (instance_id)\n", 1)
    assert sql.count("attributes ->>") == 4
    for row, wanted in zip(ask(reader, sql), ask(reader, BY_TITLE[title].sql), strict=True):
        assert row == pytest.approx(wanted)


def test_gaps_are_found_along_oblique_slices_too(reader: Reader) -> None:
    sql = BY_TITLE["Which slices does this series lack, by position?"].sql
    sql = re.sub(r"(series_instance_uid = )'[0-9.]+'", rf"\1'{OBLIQUE}'", sql)
    assert ask(reader, sql) == [
        {"after_mm": pytest.approx(7.5), "gap_mm": pytest.approx(7.5), "slices_missing": 2}
    ]


def test_the_retired_classes_are_those_of_the_standard() -> None:
    sql = BY_TITLE["Which objects are of a retired or private SOP class?"].sql
    listed = dict(re.findall(r"\('([0-9.]+)', '([^']+)'\)", sql))
    retired = {
        uid: known[0].removesuffix(" Storage")
        for uid, known in UID_dictionary.items()
        if uid.startswith("1.2.840.10008.5.1.4.1.1.") and known[3] == "Retired" and known[0]
    }
    assert set(listed) == set(retired)
    for uid, name in listed.items():
        assert retired[uid].startswith(name.removesuffix(" (trial)"))


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_the_queries_of_other_pages_run_too(name: str, reader: Reader) -> None:
    text = (PAGE.parents[1] / name).read_text(encoding="utf-8")
    queries = [first or second for first, second in re.findall(_QUERY_OF_A_COMMAND, text)]
    assert queries
    for query in queries:
        assert ask(reader, query), query
