"""The help of every command as it was when somebody last looked at it.

A copy of each lies in `tests/docs/help/`, so that a change of what people read is seen
in review.  Where a change is meant, write the copies anew:

    python -m tests.docs.helptexts
"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from ingester.cli import COMMANDS, main

FOLDER = Path(__file__).with_name("help")
WIDTH = 80


def names() -> list[str]:
    """Return every command, and "ingester" for the program's own help."""
    return ["ingester", *COMMANDS]


def shown(name: str) -> str:
    """Return what `--help` prints on a terminal of 80 columns."""
    words = ["--help"] if name == "ingester" else [name, "--help"]
    answer = CliRunner().invoke(main, words, prog_name="ingester", terminal_width=WIDTH)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def stored(name: str) -> Path:
    """Return where the copy lies."""
    return FOLDER / f"{name}.txt"


if __name__ == "__main__":
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for each in names():
        stored(each).write_text(shown(each), encoding="utf-8")
