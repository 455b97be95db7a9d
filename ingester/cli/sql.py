"""`ingester sql`: read-only SQL on the index, as a table, CSV or JSON."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import click

from ingester.cli import screen
from ingester.cli.mistakes import explained
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.sheets import print_csv
from ingester.cli.site import Site
from ingester.errors import Fatal
from ingester.index import NOT_PROMISED
from ingester.index.readers import Reader

_MOST_ROWS_SHOWN = 1000
_LONGEST_CELL = 200
_LONGEST_VALUE = 2000


class _Asking(click.Command):
    """A query may begin with a comment, which looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what holds a space and begins with "--" for the query."""
        for position, each in enumerate(args):
            word = each.partition("=")[0]
            if each.startswith("--") and any(character.isspace() for character in word):
                args = [*args[:position], *args[position + 1 :], "--", each]
                break
        return super().parse_args(ctx, args)


@click.command(
    cls=_Asking,
    epilog=example(
        "ingester sql 'SELECT modality, count(*) FROM images GROUP BY modality'",
        "ingester sql --csv 'SELECT * FROM study_list' > studies.csv",
        "ingester sql --json < query.sql",
        "ingester sql -p id=4711 'SELECT * FROM study_list WHERE patient_id = :id'",
    ),
)
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, safe to open in a spreadsheet.")
@click.option(
    "-p", "--param", "parameters", metavar="NAME=VALUE", multiple=True,
    help="Put VALUE where the query says :NAME; may be given several times.",
)  # fmt: skip
@as_json
@pass_site
def sql(
    site: Site, query: str | None, as_csv: bool, parameters: tuple[str, ...], as_json: bool
) -> None:
    """Ask the index with read-only SQL.

    Without QUERY it is read from standard input; on a terminal the tables, views and
    their columns are listed. Nothing can be changed from here. As a table the first
    1,000 rows are shown, row by row where they are too wide for the terminal; as CSV or
    JSON all of them, as they come.
    """
    if as_csv and as_json:
        raise click.UsageError("choose --csv or --json, not both")
    values = dict(_parameter(each) for each in parameters)
    with open_index(site.settings) as index:
        if query is None and sys.stdin.isatty():
            _list_tables(index)
            return
        text = query if query is not None else _read_query()
        if _is_empty(text):
            raise click.UsageError(
                "there is no query; `ingester sql` on a terminal lists the tables"
            )
        try:
            columns, found = index.query(text, values)
            names = _unique(columns)
            if as_json:
                _print_json(names, found)
            elif as_csv:
                print_csv(names, found)
            else:
                _print_table(names, found)
        except (Fatal, sqlite3.Error, ValueError) as error:
            cause = error.__cause__ if isinstance(error, Fatal) else error
            raise Fatal("\n".join(explained(cause or error, text, index))) from None


def _parameter(raw: str) -> tuple[str, str | int | float]:
    name, is_there, value = raw.partition("=")
    name = name.strip().lstrip(":@$")
    if not is_there or not name:
        raise click.BadParameter(f"{raw} is not NAME=VALUE", param_hint="--param")
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        if str(number) == value:  # "0815" is no number: a patient ID is a text
            return name, number
    return name, value


def _read_query() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise Fatal("SQL: the query is not UTF-8") from None


def _is_empty(text: str) -> bool:
    """Tell whether there is nothing to ask: only spaces, comments and semicolons."""
    rest = text.lstrip(" \t\r\n\f;\ufeff")
    while rest.startswith(("--", "/*")):
        end = "\n" if rest.startswith("--") else "*/"
        rest = rest.partition(end)[2].lstrip(" \t\r\n\f;")
    return not rest


def _unique(names: Sequence[str]) -> list[str]:
    """Number names that come again, so that no column hides another in JSON."""
    taken = set(names)
    seen: set[str] = set()
    unique = []
    for name in names:
        new, number = name, 2
        while new in seen:
            new = f"{name}_{number}"
            number += 1
            if new in taken:
                new = name
        seen.add(new)
        unique.append(new)
    return unique


# -- the three ways to print -------------------------------------------------------------


def _print_table(names: Sequence[str], found: Iterator[tuple[Any, ...]]) -> None:
    from ingester.cli.tables import fits, fitted, records  # rich takes its time

    shown = list(islice(found, _MOST_ROWS_SHOWN))
    headings = [screen.printable(name) for name in names]
    rows = [[_short(value, _LONGEST_CELL) for value in row] for row in shown]
    numbers, width = screen.numbers_in(shown, len(names)), screen.width_of()
    is_table = fits(headings, rows, numbers=numbers, width=width)
    lines = (
        fitted(headings, rows, numbers=numbers, width=width)
        if is_table
        else records(headings, (map(_whole, row) for row in shown), width=width)
    )
    for line in lines:
        screen.answer(line)
    if next(found, None) is not None:
        screen.say(
            f"only the first {_MOST_ROWS_SHOWN:,} rows are shown; --csv and --json print all"
        )


def _short(value: Any, most: int) -> str:
    text = screen.printable(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _whole(value: Any) -> str:
    return _short(value, _LONGEST_VALUE)


def _print_json(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print an array of objects, row by row: it may be longer than memory."""
    before = "["
    for row in rows:
        values = (_plain(value) for value in row)
        text = json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False)
        click.echo(f"{before}\n  {text}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: bytes as hex digits, infinities as null."""
    if isinstance(value, bytes):
        return value.hex().upper()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# -- without a query ---------------------------------------------------------------------


def _list_tables(index: Reader) -> None:
    """List what can be asked: views, then tables; those that are the program's own last."""
    ours = []
    for row in index.rows(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main'"
        " AND type IN ('table', 'view', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " ORDER BY type DESC, name"
    ):
        if row["name"] in NOT_PROMISED:
            ours.append(row["name"])
            continue
        name = row["name"].replace('"', '""')
        columns, _ = index.query(f'SELECT * FROM "{name}" LIMIT 0')
        screen.paragraph(f"{row['type']} {row['name']}: {', '.join(columns)}")
    screen.paragraph(f"the program's own, which may change: {', '.join(ours)}")
    screen.say("each column is described in docs/index.md")
