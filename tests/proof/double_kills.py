"""Killed, and killed again while it recovers: the third start ends where no kill would have.

Most pairs die before a chosen effect, in processes forked from a warm one; some are the
real `ingester run --once`, killed twice at random moments.  Only pairs in which both died
are counted.

    python -m tests.proof.double_kills --forked 4500 --real 500 --jobs 2 --json double-kills.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path

from tests.faults.everything import fill
from tests.faults.killed import in_another_process, run_and_die
from tests.proof import report
from tests.proof.ends import Template, ingest_inline, unverified
from tests.site import Site
from tests.stories.conftest import Command

#: A recovery has effects of its own: how many more than an undisturbed run has left.
_MORE = 20
_MOMENT = 0.003
_MEMORY = Path("/dev/shm")


class Forked:
    """Pairs of kills at effects, in forked processes."""

    def __init__(self, folder: Path) -> None:
        self._template = Template.make(folder, fill, ingest_inline)
        self._root = folder / "site"
        self._effects = self._count(folder / "effects")

    def _count(self, counted: Path) -> int:
        counted.touch()

        def observer(_name: str, _path: str) -> None:
            with counted.open("ab") as file:
                file.write(b".")

        self._template.copy(self._root)
        in_another_process(Site(self._root).ingest_all, observer)
        shutil.rmtree(self._root)
        return counted.stat().st_size

    def pairs(self, chance: random.Random) -> Iterator[str | None]:
        """Kill twice, again and again; yields what went wrong, None where one lived."""
        while True:
            first = chance.randint(1, self._effects)
            second = chance.randint(1, self._effects - first + _MORE)
            self._template.copy(self._root)
            has_died = [run_and_die(self._root, each) for each in (first, second)]
            found = self._template.recovered(self._root)
            shutil.rmtree(self._root)
            if found:
                yield f"before effects {first} and {second}: {found}"
            else:
                yield "" if all(has_died) else None


class Real:
    """Pairs of kills at random moments, of the real command.

    Moments are told by the processor time that the process has spent since it holds the
    site, which a busy machine does not stretch.  The first comes anywhere until the end,
    the second within what is left to be done then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds = 0.0
        self._template = Template.make(folder, fill, self._measure)

    def _measure(self, root: Path) -> None:
        command = Command(root)
        process = running(command)
        begun = spent_until_it_holds(process, command)
        assert begun is not None
        while not has_ended(process):
            self._seconds = spent(process) - begun
        assert self._seconds > 0, "it did something with the site"

    def pairs(self, chance: random.Random) -> Iterator[str | None]:
        """Kill twice, again and again; yields what went wrong, None where one lived."""
        while True:
            root = self._folder / "real"
            self._template.copy(root)
            command = Command(root)
            first = chance.uniform(0, self._seconds)
            second = chance.uniform(0, self._seconds - first)
            has_died = [kill_after(command, each) for each in (first, second)]
            command.run("run", "--once", exit_code=None)
            found = self._template.violation(root) or unverified(command)
            shutil.rmtree(root)
            if found:
                yield f"after {first:.3f} s and {second:.3f} s: {found}"
            else:
                yield "" if all(has_died) else None


def running(command: Command) -> subprocess.Popen[bytes]:
    """Start `run --once`."""
    return subprocess.Popen(
        command.arguments("run", "--once"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def spent(process: subprocess.Popen[bytes]) -> float:
    """Return the seconds that a process of ours has computed."""
    # proc(5): after the name in brackets, utime and stime are the 12th and 13th field.
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def opened(process: subprocess.Popen[bytes]) -> set[str]:
    """Return what a process of ours has open."""
    found = set()
    for each in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(each.readlink()))
    return found


def spent_until_it_holds(process: subprocess.Popen[bytes], command: Command) -> float | None:
    """Wait until it has opened the lock of the site; None where it ended before."""
    lock = str((command.spool / ".lock").resolve())
    while not has_ended(process):
        if lock in opened(process):
            return spent(process)
    return None


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether it ends within the next moment, which is short beside what it does."""
    try:
        process.wait(timeout=_MOMENT)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_after(command: Command, seconds: float) -> bool:
    """Run it, and kill it so long after it has the site; True if it still ran."""
    process = running(command)
    try:
        begun = spent_until_it_holds(process, command)
        while begun is not None and not has_ended(process) and spent(process) < begun + seconds:
            pass
    finally:
        process.kill()
        process.wait()
    return process.returncode == -signal.SIGKILL


def prove(
    kind: type[Forked] | type[Real], count: int, seed: int, number: int
) -> tuple[int, int, list[str]]:
    """Kill *count* pairs; returns how many died twice, how many did not, and violations."""
    chance = random.Random(f"{seed} {kind.__name__} {number}")
    died = lived = 0
    violations: list[str] = []
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        pairs = kind(Path(folder)).pairs(chance)
        while died < count:
            found = next(pairs)
            if found is None:
                lived += 1
            else:
                died += 1
                violations += [found] if found else []
    return died, lived, violations


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--forked", type=int, default=100, help="pairs at effects")
    parser.add_argument("--real", type=int, default=10, help="pairs with the real command")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    violations: list[str] = []
    died, lived = dict[str, int](), dict[str, int]()
    fork = multiprocessing.get_context("fork")
    kinds: tuple[tuple[type[Forked] | type[Real], int], ...] = (
        (Forked, given.forked),
        (Real, given.real),
    )
    with ProcessPoolExecutor(given.jobs, fork) as pool:
        for kind, count in kinds:
            shares = [len(range(number, count, given.jobs)) for number in range(given.jobs)]
            name = kind.__name__.lower()
            told = pool.map(prove, repeat(kind), shares, repeat(given.seed), range(given.jobs))
            for twice, once, found in told:
                died[name] = died.get(name, 0) + twice
                lived[name] = lived.get(name, 0) + once
                violations += found
            sys.stderr.write(f"{name}: {died[name]} killed twice, {len(violations)} violations\n")
    report.write(
        given.json,
        what="double kills",
        seed=given.seed,
        tried=sum(died.values()),
        violations=violations,
        command=(
            f"python -m tests.proof.double_kills --forked {given.forked} --real {given.real}"
            f" --jobs {given.jobs} --seed {given.seed}"
        ),
        details={
            "forked_killed_twice": died["forked"],
            "real_killed_twice": died["real"],
            "not_counted_for_one_lived": lived,
        },
    )
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
