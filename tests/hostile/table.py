"""The table: every hostile input by its number, and how it is tried."""

from __future__ import annotations

from tests.hostile import containers, entries, files, peers, pictures, values
from tests.hostile.trial import Case

#: The numbers of the inputs; each has at least one case.
NUMBERS = range(1, 61)

CASES: list[Case] = sorted(
    files.CASES + containers.CASES + values.CASES + entries.CASES + peers.CASES + pictures.CASES,
    key=lambda case: case.number,
)
