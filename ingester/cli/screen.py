"""How things are written: answers, sentences, tables, numbers for people.

Text from files and from the wire may hold control characters, which a terminal
would obey: everything that is not ours goes through `printable`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

Cell = str | int | float | None


def answer(text: str = "") -> None:
    """Print a line of the answer, on standard output."""
    click.echo(text)


def say(text: str = "") -> None:
    """Print a line about what happens, on standard error."""
    click.echo(text, err=True)


def paragraph(text: str) -> None:
    """Print a long line of the answer, folded by words on a terminal."""
    from ingester.cli.tables import wrapped  # rich takes its time

    width, shown = width_of(), printable(text)
    first, *rest = wrapped(shown, max(20, width - 4)) if width is not None else [shown]
    answer(first)
    for line in rest:
        answer(f"    {line}")


def answer_json(document: Any) -> None:
    """Print one JSON document, on standard output."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=_as_json))


def stream_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document whose long parts are made while they are printed.

    Values that are iterators become arrays, one element a line.
    """
    click.echo("{", nl=False)
    for number, (name, value) in enumerate(document.items()):
        click.echo(f"{',' if number else ''}\n  {json.dumps(name)}: ", nl=False)
        if not isinstance(value, Iterator):
            click.echo(_dumped(value), nl=False)
            continue
        is_empty = True
        for element in value:
            click.echo(f"{'[' if is_empty else ','}\n    {_dumped(element)}", nl=False)
            is_empty = False
        click.echo("[]" if is_empty else "\n  ]", nl=False)
    click.echo("\n}")


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_as_json)


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex().upper()
    return str(value)


def printable(value: object) -> str:
    """Return a value as text that a terminal shows and does not obey."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex().upper()
    text = str(value)
    if text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def size(count: float) -> str:
    """Return bytes as people read them, such as "1.4 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def plural(count: int, noun: str, several: str | None = None) -> str:
    """Return "1 file", "2 files"."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def width_of(*, to_stderr: bool = False) -> int | None:
    """Return how many columns the terminal has; None where it is none."""
    stream = sys.stderr if to_stderr else sys.stdout
    return shutil.get_terminal_size().columns if stream.isatty() else None


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str | None = None,
    to_stderr: bool = False,
) -> None:
    """Print a table; on a terminal it is folded to its width, else it is as wide as needed."""
    from ingester.cli.tables import fitted  # rich takes its time

    kept = [tuple(row) for row in rows]
    lines = fitted(
        [printable(heading) for heading in headings],
        [[printable(cell) for cell in row] for row in kept],
        numbers=numbers_in(kept, len(headings)),
        width=width_of(to_stderr=to_stderr),
    )
    if title is not None:
        lines = ["", title, *lines]
    for line in lines:
        click.echo(line, err=to_stderr)


def numbers_in(rows: Sequence[Sequence[Cell]], columns: int) -> list[int]:
    """Return which columns hold numbers only."""
    found = []
    for position in range(columns):
        cells = [row[position] for row in rows]
        told = [cell for cell in cells if cell is not None]
        if told and all(isinstance(cell, (int, float)) for cell in told):
            found.append(position)
    return found
