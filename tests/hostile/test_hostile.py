"""Sixty hostile inputs: each has its outcome, and nothing else comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.table import CASES, NUMBERS
from tests.hostile.trial import Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_hostile_input(case: Case, tmp_path: Path) -> None:
    case.run(tmp_path)


def test_no_input_is_left_out_and_none_is_there_twice() -> None:
    assert {case.number for case in CASES} == set(NUMBERS)
    assert len({case.title for case in CASES}) == len(CASES)
