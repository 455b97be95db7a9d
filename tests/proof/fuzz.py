"""Coverage-guided fuzzing of the structural walk and of the header.

Any bytes must have an answer: elements that lie inside them, or a reason.  Anything else
(another exception, an element beyond the end, a run that does not end) stops the worker,
and its input is kept in a file.  What was found so far is kept as seeds in *--corpus*, so
that the next run begins where this one ended.

    python -m tests.proof.fuzz --target walk --runs 10000000 --jobs 2 --json fuzz.json

References
----------
https://github.com/google/atheris, https://llvm.org/docs/LibFuzzer.html
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

from tests.proof import report

TARGETS = ("walk", "header")
_DONE = re.compile(r"^Done (\d+) runs", re.MULTILINE)
_COVERED = re.compile(r" cov: (\d+) ")
_LONGEST = 2048
_SECONDS_EACH = 10
_MEGABYTES = 1024


def target(name: str) -> Callable[[bytes], None]:
    """Return what is tried with any bytes; every branch of the reader is watched."""
    with atheris.instrument_imports(include=["ingester.dicom"]):
        from tests import answers
    return answers.walked if name == "walk" else lambda content: void(answers.answer(content))


def void(_answer: object) -> None:
    """Drop an answer: that there is one is all that counts."""


def work(name: str, options: list[str]) -> None:
    """Fuzz in this process until the runs are done; never returns."""
    atheris.Setup([sys.argv[0], *options], target(name))
    atheris.Fuzz()


def seed_corpus(name: str, folder: Path) -> None:
    """Write what the fuzzer begins with."""
    from tests import answers

    for number, content in enumerate(answers.SEEDS):
        for kind in range(4) if name == "walk" else (0,):
            head = bytes([kind]) if name == "walk" else b""
            (folder / f"seed-{number}-{kind}").write_bytes(head + content)


def fuzz(name: str, runs: int, jobs: int, seed: int, corpus: Path) -> tuple[int, list[str], int]:
    """Fuzz in *jobs* processes; returns runs done, what was found, edges covered."""
    seed_corpus(name, corpus)
    workers: list[tuple[subprocess.Popen[bytes], Path]] = []
    for job in range(jobs):
        options = [
            f"-runs={-(-runs // jobs)}",
            f"-seed={seed + job}",
            f"-max_len={_LONGEST}",
            f"-timeout={_SECONDS_EACH}",
            f"-rss_limit_mb={_MEGABYTES}",
            f"-artifact_prefix={corpus}-found-{job}-",
            "-reload=1",
            "-print_final_stats=1",
            str(corpus),
        ]
        command = [sys.executable, "-m", "tests.proof.fuzz", "--worker", name, *options]
        log = corpus.with_name(f"{corpus.name}-{job}.log")
        with log.open("wb") as said:
            workers.append((subprocess.Popen(command, stdout=said, stderr=said), log))
    done, covered = 0, 0
    found: list[str] = []
    for process, log in workers:
        code = process.wait()
        text = log.read_text(errors="replace")
        ended = _DONE.search(text)
        done += int(ended[1]) if ended else 0
        covered = max([covered, *(int(each) for each in _COVERED.findall(text))])
        if code or not ended:
            found.append(f"worker ended with {code}: {text[-2000:]}")
    return done, found, covered


def main() -> None:
    """Run as a command."""
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", choices=TARGETS, default="walk")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="a folder of its own that keeps what was found")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = given.corpus or Path(temporary, "corpus")
        corpus.mkdir(parents=True, exist_ok=True)
        done, found, covered = fuzz(given.target, given.runs, given.jobs, given.seed, corpus)
        details = {"edges": covered, "inputs_kept": len(list(corpus.iterdir()))}
    report.write(
        given.json,
        what=f"fuzz {given.target}",
        seed=given.seed,
        tried=done,
        violations=found,
        command=f"python -m tests.proof.fuzz --target {given.target} --runs {given.runs}",
        details=details,
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
