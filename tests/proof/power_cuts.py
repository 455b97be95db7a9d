"""Power cuts by the ten thousand: the states that may be left, each started again.

For each transaction of the index in each recorded run, states between the transaction
before and this one are made and a fresh start is made on each.  Where the unflushed names
and bytes allow fewer than *--states*, nearly all there are get tried.

    python -m tests.proof.power_cuts --states 10000 --jobs 2 --json power-cuts.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.faults import power
from tests.faults.disk import Committed
from tests.faults.power import Run
from tests.proof import report

_MEMORY = Path("/dev/shm")

Found = tuple[str, Counter[int], list[str]]


def transaction_at(run: Run, step: int) -> int:
    """Return the number of the transaction that a step comes before, from 1."""
    return 1 + sum(isinstance(each, Committed) for each in run.trace.steps[:step])


class Proof:
    """All recorded runs, and the shares of their states that each process tries."""

    def __init__(self, folder: Path, seed: int, most: int, jobs: int) -> None:
        self._folder = folder
        self._seed = seed
        self._most = most
        self._jobs = jobs
        self._runs = [
            power.record(scenario, folder / f"run{number}")
            for number, scenario in enumerate(power.SCENARIOS)
        ]

    def __len__(self) -> int:
        """Return how many shares there are."""
        return len(self._runs) * self._jobs

    def share(self, number: int) -> Found:
        """Try every n-th state of a run."""
        position, turn = divmod(number, self._jobs)
        run = self._runs[position]
        tried: Counter[int] = Counter()
        violations = []
        for each, (disk, left) in enumerate(run.states(self._seed, self._most)):
            if each % self._jobs != turn:
                continue
            tried[transaction_at(run, disk.at)] += 1
            if found := run.violation(disk, left, self._folder / f"site{number}"):
                violations.append(f"{run.scenario.name}, step {disk.at}, {left}: {found}")
        return run.scenario.name, tried, violations


def prove(
    states: int, seed: int, jobs: int, folder: Path
) -> tuple[dict[str, Counter[int]], list[str]]:
    """Try all runs; returns how many states of each transaction, and what went wrong."""
    proof = Proof(folder, seed, max(3, states // 20), jobs)
    tried: dict[str, Counter[int]] = {}
    violations: list[str] = []
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(jobs, fork, _take, (proof,)) as pool:
        for name, counts, found in pool.map(_share, range(len(proof))):
            tried.setdefault(name, Counter()).update(counts)
            violations += found
            sys.stderr.write(f"{name}: {counts.total()} states, {len(found)} violations\n")
    return tried, violations


#: What this process takes its shares of: inherited from its parent, for runs are large.
_proofs: list[Proof] = []


def _take(proof: Proof) -> None:
    _proofs.append(proof)


def _share(number: int) -> Found:
    return _proofs[0].share(number)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--states", type=int, default=1000, help="for each transaction")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        tried, violations = prove(given.states, given.seed, given.jobs, Path(folder))
    report.write(
        given.json,
        what="power cuts",
        seed=given.seed,
        tried=sum(each.total() for each in tried.values()),
        violations=violations,
        command=f"python -m tests.proof.power_cuts --states {given.states} --seed {given.seed}",
        details={
            "flushes_shown_to_be_needed": len(power.FLUSHES),
            "states_by_transaction": {
                name: {str(number): counts[number] for number in sorted(counts)}
                for name, counts in tried.items()
            },
        },
    )
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
