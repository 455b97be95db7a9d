"""Killed at every system call boundary: the next start ends where no kill would have.

strace delivers SIGKILL on entry to the n-th call of a name, before the kernel does anything
(strace(1), `inject`: calls are counted for each name and each thread).  Most points are
tried on an ingest in a forked process, to which strace attaches: the imports of Python are
no part of it, so that n = 1 is the first call that has to do with the site.  Some are
the real `ingester run --once`, started by strace and counted from its first look at the
site.  Only points at which the process died are counted.

    python -m tests.proof.system_calls --points 2000 --real 60 --jobs 2 --json system-calls.json
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tests.faults.everything import fill_24
from tests.proof import report
from tests.proof.ends import Template, ingest_inline, unverified
from tests.stories.conftest import Command

CALLS = (
    "openat", "write", "fdatasync", "fsync", "link", "linkat", "rename", "renameat",
    "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "fchmod", "pwrite64",
    "ftruncate", "close",
)  # fmt: skip

_MEMORY = Path("/dev/shm")
_PR_SET_PTRACER, _PR_SET_PTRACER_ANY = 0x59616D61, -1
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)")


@dataclass(frozen=True, order=True)
class Point:
    """The boundary before the n-th call of a name in one thread."""

    call: str
    n: int

    def __str__(self) -> str:
        return f"{self.call} no. {self.n}"


def _strace(log: Path, *options: str) -> list[str]:
    return ["strace", "-f", "-o", str(log), *options]


def _traced() -> list[str]:
    return ["-e", f"trace={','.join(CALLS)}", "-e", "signal=none"]


def _killing(point: Point) -> list[str]:
    inject = f"inject={point.call}:signal=SIGKILL:when={point.n}"
    return ["-e", f"trace={point.call}", "-e", inject]


def attached(work: Callable[[], object], log: Path, *options: str) -> int:
    """Do something in a forked process that strace attaches to; returns its exit code.

    A negative one is the number of the signal that ended it.
    """
    hold, go = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.close(go)
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
            os.read(hold, 1)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(hold)
    with subprocess.Popen(
        [*_strace(log, *options), "-p", str(child)], stderr=subprocess.PIPE, text=True
    ) as strace:
        assert strace.stderr is not None
        told = strace.stderr.readline()
        os.close(go)  # what it reads now is the end: it may begin
        _, status = os.waitpid(child, 0)
        told += strace.stderr.read()
    assert "attached" in told, told
    return os.waitstatus_to_exitcode(status)


def boundaries(log: Path, root: Path | None = None) -> set[Point]:
    """Return all boundaries of a run that was traced by `_traced`.

    With *root*: of opening and closing, those of threads that have looked below it; what
    Python opens at its start, thousands of times, has nothing to do with a site.
    """
    counted: Counter[tuple[str, str]] = Counter()
    begun: set[str] = set()
    points = set()
    for line in log.read_text(errors="replace").splitlines():
        if found := _CALL.match(line):
            thread, call, arguments = found.groups()
            counted[thread, call] += 1
            if root is None or (f"{root}/" in arguments and "ingest.toml" not in arguments):
                begun.add(thread)
            if thread in begun or call not in ("openat", "close"):
                points.add(Point(call, counted[thread, call]))
    return points


def sampled(points: Iterable[Point], most: int) -> list[Point]:
    """Return at most so many points, evenly from each call; calls that are rare come whole."""
    by_call = [sorted(each for each in points if each.call == call) for call in CALLS]
    shares = [0] * len(by_call)
    left = most
    while left > 0 and any(shares[i] < len(each) for i, each in enumerate(by_call)):
        for i, each in enumerate(by_call):
            if shares[i] < len(each) and left > 0:
                shares[i] += 1
                left -= 1
    chosen = [
        [each[(2 * k + 1) * len(each) // (2 * share)] for k in range(share)]
        for each, share in zip(by_call, shares, strict=True)
    ]
    return [point for row in zip_longest(*chosen) for point in row if point is not None]


class Inline:
    """The ingest in a forked process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = Template.make(folder, fill_24, ingest_inline)

    def points(self) -> set[Point]:
        """Return every boundary of an undisturbed run."""
        root, log = self._folder / "traced", self._folder / "traced.log"
        self._template.copy(root)
        assert attached(lambda: ingest_inline(root), log, *_traced()) == 0
        shutil.rmtree(root)
        return boundaries(log)

    def killed_at(self, point: Point) -> str | None:
        """Kill there, start again; returns what is wrong in the end, None where it lived."""
        root = self._folder / f"site{os.getpid()}"
        log = root.with_suffix(".log")
        self._template.copy(root)
        code = attached(lambda: ingest_inline(root), log, *_killing(point))
        found = self._template.recovered(root)
        shutil.rmtree(root)
        return _judged(code, f"{point} of the ingest", found)


class Real:
    """`ingester run --once`, with its own processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "real"
        self._folder.mkdir()
        self._log = self._folder / "traced.log"
        self._template = Template.make(self._folder, fill_24, self._trace)

    def _trace(self, root: Path) -> None:
        self._traced = root
        command = Command(root)
        done = self._run(command, self._log, *_traced())
        assert done == 1, "some files are bad, so it ends with 1"

    def _run(self, command: Command, log: Path, *options: str) -> int:
        return subprocess.run(
            [*_strace(log, *options), *command.arguments("run", "--once")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode

    def points(self) -> set[Point]:
        """Return every boundary of an undisturbed run, from its first look into the site on."""
        return boundaries(self._log, self._traced)

    def killed_at(self, point: Point) -> str | None:
        """Kill there, start again; returns what is wrong in the end, None where it lived."""
        root = self._folder / f"site{os.getpid()}"
        self._template.copy(root)
        command = Command(root)
        code = self._run(command, root.with_suffix(".log"), *_killing(point))
        command.run("run", "--once", exit_code=None)
        found = self._template.violation(root) or unverified(command)
        shutil.rmtree(root)
        return _judged(code, f"{point} of run --once", found)


def _judged(code: int, where: str, found: str) -> str | None:
    if found:
        return f"{where} (ended with {code}): {found}"
    return "" if code == -signal.SIGKILL else None


#: What the processes of the pool try: inherited from their parent.
_ways: list[Inline | Real] = []


def _try(way: int, point: Point) -> str | None:
    return _ways[way].killed_at(point)


@dataclass
class Figures:
    """What was tried of one way, by call, and what came out."""

    possible: Counter[str]
    killed: Counter[str]
    unreached: int
    violations: list[str]


def prove(ways: Sequence[Inline | Real], most: Sequence[int], jobs: int) -> list[Figures]:
    """Kill each way at so many points; returns the figures of each."""
    _ways[:] = ways
    figures = []
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        for number, (way, count) in enumerate(zip(ways, most, strict=True)):
            possible = way.points()
            chosen = sampled(possible, count)
            told = list(pool.map(_try, [number] * len(chosen), chosen))
            figures.append(
                Figures(
                    Counter(each.call for each in possible),
                    Counter(p.call for p, found in zip(chosen, told, strict=True) if found == ""),
                    sum(found is None for found in told),
                    [found for found in told if found],
                )
            )
    return figures


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=400, help="of the ingest, at most")
    parser.add_argument("--real", type=int, default=20, help="of the real command, at most")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        inline, real = prove([Inline(folder), Real(folder)], [given.points, given.real], given.jobs)
    violations = inline.violations + real.violations
    report.write(
        given.json,
        what="system-call kills",
        seed=0,
        tried=inline.killed.total() + real.killed.total() + len(violations),
        violations=violations,
        command=(
            f"python -m tests.proof.system_calls --points {given.points} --real {given.real}"
            f" --jobs {given.jobs}"
        ),
        details={
            "files": 24,
            **{
                name: {
                    "boundaries": dict(sorted(each.possible.items())),
                    "killed_at": dict(sorted(each.killed.items())),
                    "not_reached": each.unreached,
                }
                for name, each in (("forked_ingest", inline), ("run_once", real))
            },
        },
    )
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
