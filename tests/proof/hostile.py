"""The table of hostile inputs, case by case, with its figures.

    python -m tests.proof.hostile --full --json hostile.json

tries every row; with `--full` the rows that are long by nature go their whole length (a
million members, 10,000 swaps, a decoder's full time), and not the tests' shorter one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.proof import report

_MEMORY = Path("/dev/shm")


def prove(seed: int) -> tuple[Counter[int], list[str]]:
    """Run all cases in an order of the seed's; returns how many of each row, and what failed."""
    from tests.hostile.table import CASES, NUMBERS

    cases = list(CASES)
    random.Random(seed).shuffle(cases)
    tried = Counter(case.number for case in cases)
    violations = [f"no case of row {number}" for number in NUMBERS if not tried[number]]
    for case in cases:
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
            try:
                case.run(Path(folder))
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - pytest's own failures are no Exception
                told = "".join(traceback.format_exception(error, limit=-2))
                violations.append(f"{case.title}: {told[-500:]}")
                sys.stderr.write(f"{case.title}: {told}\n")
    return tried, violations


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="every row at its whole length")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the cases")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.full:
        os.environ["INGESTER_HOSTILE"] = "full"
    tried, violations = prove(given.seed)
    report.write(
        given.json,
        what="hostile inputs",
        seed=given.seed,
        tried=len(tried),
        violations=violations,
        command="python -m tests.proof.hostile" + " --full" * given.full,
        details={
            "cases": tried.total(),
            "cases_by_row": {str(number): tried[number] for number in sorted(tried)},
        },
    )
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
