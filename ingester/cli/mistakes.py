"""What is wrong with a query, in words, with the place and what was perhaps meant."""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections.abc import Iterator

from ingester.errors import Retry
from ingester.index.connection import Corrupt
from ingester.index.readers import Reader

_NEAR = re.compile(r'near "(.+?)": syntax error', re.DOTALL)
_NO_COLUMN = re.compile(r"no such column: (?:\w+\.)*\"?([^\".]+)\"?$")
_NO_TABLE = re.compile(r"no such table: (?:\w+\.)*(.+)$")
_WITHOUT_VALUES = ("number of bindings", "did not supply a value", "has no name")
_LONGEST_LINE = 120
_MOST_NEAR = 3


def explained(error: BaseException, query: str, index: Reader) -> Iterator[str]:
    """Yield the lines that say what is wrong with *query*.

    Raises
    ------
    KeyboardInterrupt
        Nothing is: somebody pressed Ctrl-C.
    Retry, Corrupt
        Nothing is: the index cannot be read now, or is damaged.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    words = str(error)
    if code == sqlite3.SQLITE_INTERRUPT:
        raise KeyboardInterrupt
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        raise Corrupt(f"The index {index.path} is damaged ({words}).")
    if code == sqlite3.SQLITE_AUTH:
        yield "SQL: the index can only be read from here."
    elif code == sqlite3.SQLITE_BUSY:
        raise Retry(f"the index cannot be read now ({words})")
    elif query.lstrip().startswith("."):
        yield (
            "SQL: commands that begin with a dot are those of sqlite3's own program: "
            f"sqlite3 -readonly {index.path}"
        )
    elif isinstance(error, UnicodeError):
        yield "SQL: the query is not UTF-8"
    elif "one statement at a time" in words:
        yield "SQL: one statement at a time, please."
    elif (
        "number of bindings" in words or "did not supply a value" in words or "has no name" in words
    ):
        yield "SQL: the query has parameters; give each a value with -p NAME=VALUE."
    else:
        yield f"SQL: {words}"
        yield from _place(words, query)
        yield from _meant(words, index)


def _place(words: str, query: str) -> Iterator[str]:
    """Yield the line of the query in which SQLite stumbled, and a mark below the place."""
    near = _NEAR.search(words)
    if near is None:
        return
    places = [each.start() for each in re.finditer(re.escape(near[1]), query)]
    if len(places) != 1:
        return
    begin = query.rfind("\n", 0, places[0]) + 1
    end = query.find("\n", places[0])
    line = query[begin : end if end >= 0 else len(query)].replace("\t", " ")
    if len(line) <= _LONGEST_LINE:
        yield f"    {line}"
        yield f"    {'^':>{places[0] - begin + 1}}"


def _meant(words: str, index: Reader) -> Iterator[str]:
    """Yield what was perhaps meant by a name that is not there."""
    if (found := _NO_COLUMN.search(words)) is not None:
        columns = _columns(index)
        for name in difflib.get_close_matches(found[1].lower(), columns, n=_MOST_NEAR):
            yield f"    did you mean {name}? It is in {', '.join(columns[name])}."
    elif (found := _NO_TABLE.search(words)) is not None:
        tables = _tables(index)
        near = difflib.get_close_matches(found[1].lower(), tables, n=_MOST_NEAR)
        yield f"    there are: {', '.join(near or tables)}"


def _tables(index: Reader) -> list[str]:
    rows = index.rows(
        "SELECT name FROM pragma_table_list WHERE schema = 'main'"
        " AND type IN ('table', 'view', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " ORDER BY name"
    )
    return [row["name"] for row in rows]


def _columns(index: Reader) -> dict[str, list[str]]:
    """Return each column's name, and the tables and views that have it."""
    found: dict[str, list[str]] = {}
    for table in _tables(index):
        for row in index.rows("SELECT name FROM pragma_table_info(?)", (table,)):
            found.setdefault(row["name"].lower(), []).append(table)
    return found
