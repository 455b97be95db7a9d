"""`ingester sql`: read-only SQL on the index, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import click

from ingester.cli import screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.errors import Fatal
from ingester.index.readers import Reader

_MOST_ROWS_SHOWN = 1000
_LONGEST_CELL = 200
#: A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.command(
    epilog=example(
        "ingester sql 'SELECT modality, count(*) FROM images GROUP BY modality'",
        "ingester sql --csv 'SELECT * FROM study_list' > studies.csv",
        "ingester sql --json < query.sql",
    )
)
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, safe to open in a spreadsheet.")
@as_json
@pass_site
def sql(site: Site, query: str | None, as_csv: bool, as_json: bool) -> None:
    """Ask the index with read-only SQL.

    Without QUERY it is read from standard input; on a terminal the tables, views and
    their columns are listed. Nothing can be changed from here. As a table the first
    1,000 rows are shown, as CSV or JSON all of them.
    """
    if as_csv and as_json:
        raise click.UsageError("choose --csv or --json, not both")
    with open_index(site.settings) as index:
        if query is None and sys.stdin.isatty():
            _list_tables(index)
            return
        text = query if query is not None else sys.stdin.read()
        if not text.strip():
            raise click.UsageError(
                "there is no query; `ingester sql` on a terminal lists the tables"
            )
        columns, found = index.query(text)
        names = _unique(columns)
        try:
            if as_json:
                screen.answer_json([dict(zip(names, row, strict=True)) for row in found])
            elif as_csv:
                print_csv(names, found)
            else:
                _print_table(names, found)
        except sqlite3.Error as error:
            raise Fatal(f"SQL: {error}") from None


def _unique(names: Sequence[str]) -> list[str]:
    """Number names that come again, so that no column hides another in JSON."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique


def _print_table(names: Sequence[str], found: Iterator[tuple[Any, ...]]) -> None:
    if not names:
        return
    shown = list(islice(found, _MOST_ROWS_SHOWN))
    screen.table(names, [[_short(value) for value in row] for row in shown])
    if next(found, None) is not None:
        screen.say(
            f"only the first {_MOST_ROWS_SHOWN:,} rows are shown; --csv and --json print all"
        )


def _short(value: Any) -> screen.Cell:
    if value is None or isinstance(value, (int, float)):
        return value
    text = screen.printable(value)
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def print_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as CSV that a spreadsheet shows and does not execute."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([defused(name) for name in names])
    for row in rows:
        writer.writerow([defused(value) for value in row])
        if lines.tell() > 65536:
            click.echo(lines.getvalue(), nl=False)
            lines.seek(0)
            lines.truncate()
    click.echo(lines.getvalue(), nl=False)


def defused(value: Any) -> Any:
    """Return a cell that a spreadsheet shows and does not execute.

    Text that begins like a formula gets an apostrophe before it, unless it is a number.
    """
    if isinstance(value, bytes):
        return value.hex().upper()
    if isinstance(value, str) and value.startswith(_FORMULA):
        try:
            float(value)
        except ValueError:
            return "'" + value
    return value


def _list_tables(index: Reader) -> None:
    for row in index.rows(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite%' ORDER BY type, name"
    ):
        columns, _ = index.query(f'SELECT * FROM "{row["name"]}" LIMIT 0')
        screen.answer(f"{row['type']} {row['name']}: {', '.join(columns)}")
