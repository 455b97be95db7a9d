"""The table: every hostile input by its number, and how it is tried."""

from __future__ import annotations

from tests.hostile import files
from tests.hostile.trial import Case

#: The numbers of the inputs; each has at least one case.
NUMBERS = range(1, 61)

CASES: list[Case] = sorted(files.CASES, key=lambda case: case.number)
