"""Tables for spreadsheets: CSV in which no cell is executed when somebody opens it."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click

from ingester.cli import screen

_FLUSH_BYTES = 65536
#: A spreadsheet takes a cell for a formula that begins so; those of East Asia also where
#: the sign is a full-width one.
_FORMULA = frozenset("=+-@＝＋－＠−\t\r\n")


def print_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as CSV that a spreadsheet shows and does not execute, as they come."""
    is_terminal = sys.stdout.isatty()
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([defused(name) for name in names])
    for row in rows:
        writer.writerow([defused(value) for value in row])
        if lines.tell() > _FLUSH_BYTES:
            _echo(lines.getvalue(), is_terminal=is_terminal)
            lines.seek(0)
            lines.truncate()
    _echo(lines.getvalue(), is_terminal=is_terminal)


def _echo(text: str, *, is_terminal: bool) -> None:
    if is_terminal:  # a file keeps every character; a terminal would obey some of them
        text = "\n".join(screen.printable(line) for line in text.split("\n"))
    click.echo(text, nl=False, color=True)  # which means: as it is


def defused(value: Any) -> Any:
    """Return a cell that a spreadsheet shows and does not execute.

    Text that begins like a formula, perhaps behind spaces and characters that nobody
    sees, gets an apostrophe before it, unless it is a number (one with a plus sign is an
    identifier, or somebody's telephone, and would lose the sign).
    """
    if isinstance(value, bytes):
        return value.hex().upper()
    if isinstance(value, str) and _is_formula(value) and not _is_number(value):
        return "'" + value
    return value


def _is_number(text: str) -> bool:
    if text.lstrip().startswith("+"):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_formula(text: str) -> bool:
    for character in text:
        if character in _FORMULA:
            return True
        is_seen = not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")
        if is_seen and character not in "\"'":
            return False
    return False
