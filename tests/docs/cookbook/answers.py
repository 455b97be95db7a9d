"""The table of answers: heading of docs/sql.md -> how to compute it without SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.docs.cookbook.world import Row, World

Compute = Callable[[World], list[Row]]


@dataclass(frozen=True, slots=True)
class Answer:
    """How to compute the rows; `is_whole` says that no column is left out."""

    compute: Compute
    is_whole: bool


ANSWERS: dict[str, Answer] = {}


def answers(heading: str) -> Callable[[Compute], Compute]:
    """Register a function that returns every column of the answer, in its order."""
    return _register(heading, is_whole=True)


def partly(heading: str) -> Callable[[Compute], Compute]:
    """Register a function that leaves out columns, because they are words or too many."""
    return _register(heading, is_whole=False)


def _register(heading: str, *, is_whole: bool) -> Callable[[Compute], Compute]:
    def register(compute: Compute) -> Compute:
        assert heading not in ANSWERS
        ANSWERS[heading] = Answer(compute, is_whole)
        return compute

    return register
