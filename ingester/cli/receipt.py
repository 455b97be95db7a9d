"""`ingester receipt`: whether everything of a batch got in, and what is missing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from ingester.cli import completing, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.sheets import print_csv
from ingester.cli.site import Site
from ingester.errors import Fatal
from ingester.index.readers import Reader, Row
from ingester.receipt import (
    OUTCOMES,
    BadList,
    BatchInSpool,
    Receipt,
    given,
    receipt_of,
    sources_in_spool,
)
from ingester.service import rooms
from ingester.spool import Spool

_NOT_COMPLETE = 1
_MOST_SHOWN = 50
_MOST_NEAR = 5
_COLUMNS = (
    "status", "name", "what", "sop_instance_uid", "sha256", "arrival_id", "reason",
    "explanation", "path", "size_bytes", "arrived_at", "finished_at", "resolved_at",
    "is_expected", "expected_by", "position",
)  # fmt: skip


@click.command(
    epilog=example(
        "ingester receipt CD_4711",
        "ingester receipt CD_4711 --expect /media/cdrom/DICOMDIR",
        "sha256sum *.dcm > ~/list && ingester receipt march --source CT1 --expect ~/list --csv",
    )
)
@click.argument("batch", shell_complete=completing.batches)
@click.option(
    "--expect",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What was expected: a DICOMDIR, the output of sha256sum, or one SOP Instance UID a line.",
)
@click.option(
    "--source",
    metavar="NAME",
    shell_complete=completing.sources,
    help="Whose batch, where several have one of this name.",
)
@click.option("--all", "everything", is_flag=True, help="Show every file, not only what is amiss.")
@click.option("--csv", "as_csv", is_flag=True, help="Every file as CSV, safe in a spreadsheet.")
@as_json
@pass_site
def receipt(
    site: Site,
    batch: str,
    expect: Path | None,
    source: str | None,
    everything: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Say what became of every file of a batch, and what is missing.

    A batch is the first folder below a drop folder, an archive file, an association, or
    what `import --batch` named. Without --expect it is compared with every DICOMDIR that
    came with it. It is complete when all that was expected is archived, and none of its
    files waits in the spool or lies in quarantine undecided; files that are no DICOM are
    no lack. Works with and without a running service. Exits with 1 where it is not
    complete.
    """
    if as_csv and as_json:
        raise click.UsageError("choose --csv or --json, not both")
    spool = rooms.make_spool(site.settings)
    status = site.ask("status")
    try:
        expectation = given(expect) if expect is not None else None
        with open_index(site.settings) as index:
            place = BatchInSpool(spool, _source_of(index, spool, batch, source), batch)
            with receipt_of(
                index,
                site.settings.archive.path,
                place,
                expect=expectation,
                is_open=_is_open(status, place),
            ) as told:
                if as_json:
                    _print_json(told)
                elif as_csv:
                    _print_csv(told)
                else:
                    _print(told, site.command, everything=everything)
    except BadList as error:
        raise Fatal(str(error)) from None
    if told.summary.waiting and status is None and not as_json and not as_csv:
        screen.say(f"no service is running to take what waits; run: {site.command} run --once")
    if not told.summary.is_complete:
        click.get_current_context().exit(_NOT_COMPLETE)


def _source_of(index: Reader, spool: Spool, batch: str, source: str | None) -> str:
    """Return whose batch is meant.

    Raises
    ------
    Fatal
        Nobody has such a batch, or several have one.
    """
    sources = index.sources_of_batch(batch) or sources_in_spool(spool, batch)
    if source is not None:
        if source in sources or next(BatchInSpool(spool, source, batch).lying(), None):
            return source
        others = f"; these have one: {', '.join(sources)}" if sources else _near(index, batch)
        raise Fatal(f"{source} has no batch {screen.printable(batch)}{others}")
    if len(sources) > 1:
        raise Fatal(
            f"several sources have a batch {screen.printable(batch)}; say which with --source: "
            + ", ".join(sources)
        )
    if not sources:
        raise Fatal(f"there is no batch {screen.printable(batch)}{_near(index, batch)}")
    return sources[0]


def _near(index: Reader, batch: str) -> str:
    names = index.batch_names()
    if not names:
        return "; no file has come in a batch yet (see: ingester sql 'SELECT * FROM batches')"
    lower = batch.lower()
    near = [name for name in names if lower in name.lower() or name.lower() in lower]
    near += difflib.get_close_matches(batch, names[:20_000], n=_MOST_NEAR)
    chosen = list(dict.fromkeys(near))[:_MOST_NEAR]
    if not chosen:
        return f"; the latest are: {', '.join(map(screen.printable, names[:_MOST_NEAR]))}"
    return f"; near in name are: {', '.join(map(screen.printable, chosen))}"


def _is_open(status: dict[str, Any] | None, place: BatchInSpool) -> bool:
    """Return whether the association that this batch is goes on, by the service's word."""
    receivers = status["receivers"] if status is not None else []
    return any(
        [place.source, place.batch] == list(each)
        for receiver in receivers
        for each in receiver.get("open", ())
    )


# ------------------------------------------------------------------------ for people


def _print(told: Receipt, command: str, *, everything: bool) -> None:
    summary = told.summary
    most = None if everything else _MOST_SHOWN
    parts = [
        f"{screen.printable(summary.batch)} of {summary.source}: "
        f"{screen.plural(summary.counts['arrived'], 'file')}",
        screen.size(summary.size_bytes),
    ]
    if summary.first_arrived_at is not None:
        parts.append(f"{summary.first_arrived_at} to {summary.last_finished_at}")
    screen.answer(", ".join(parts))
    counts = [f"{summary.counts[each]:,} {each}" for each in OUTCOMES if summary.counts[each]]
    if counts:
        screen.answer(", ".join(counts))
    for measured in summary.measured:
        screen.answer(screen.printable(measured.sentence))
    _print_lacking(told, most)
    if first := _print_files(told, "to be decided", _TO_BE_DECIDED, most):
        is_aside = first["outcome"] == "quarantined"
        other = f"{command} retry {first['arrival_id']}" if is_aside else "with --make-current"
        screen.answer(f"to decide: {command} resolve {first['arrival_id']}, or: {other}")
    _print_waiting(told, most)
    if summary.unexpected:
        _print_files(told, "not on the list", "s.is_expected = 0", most)
    if everything:
        _print_files(told, "all files", "1", None)
    if not summary.is_complete:
        screen.answer(screen.printable(f"NOT COMPLETE: {'; '.join(summary.lacks)}"))
    elif summary.measured:
        screen.answer("complete")
    else:
        screen.answer("complete, as far as is known: no DICOMDIR and no list says what to expect")


#: Undecided conflicts are archived, so they are no lack; but somebody has to look.
_TO_BE_DECIDED = "a.outcome IN ('quarantined', 'conflict') AND a.resolved_at IS NULL"


def _print_lacking(told: Receipt, most: int | None) -> None:
    rows = [
        [
            row["name"] or row["sop_instance_uid"] or row["sha256"],
            row["what"],
            row["sop_instance_uid"] or row["sha256"],
            row["message"],
        ]
        for row in islice(told.expected("lacking"), most)
    ]
    if rows:
        screen.table(["file", "what", "UID or SHA-256", "explanation"], rows, title="lacking")
        _say_rest(sum(each.lacking for each in told.summary.measured), len(rows))


def _print_files(told: Receipt, title: str, where: str, most: int | None) -> Row | None:
    """Print files as a table; returns the first of them, None where there is none."""
    found = told.files(where)
    shown = list(islice(found, most))
    if not shown:
        return None
    columns = ("arrival_id", "original_name", "outcome", "reason")
    rows = [[*(row[name] for name in columns), _explained(row)] for row in shown]
    screen.table(["id", "name", "outcome", "reason", "explanation"], rows, title=title)
    _say_rest(len(shown) + sum(1 for _ in found), len(shown))
    return shown[0]


def _explained(row: Row) -> str:
    sent_back = row["retried_from"]
    again = f" Sent back {len(sent_back)} times before." if len(sent_back) > 1 else ""
    if len(sent_back) == 1:
        again = f" Sent back before, from {sent_back[0]['arrival_id']}."
    return f"{row['explanation']}{again}"


def _print_waiting(told: Receipt, most: int | None) -> None:
    waiting = told.waiting()
    rows = [
        [row["name"], "a temporary name" if row["is_temporary"] else ""] for row in waiting[:most]
    ]
    if rows:
        screen.table(["name", ""], rows, title="still in the spool")
        _say_rest(len(waiting), len(rows))


def _say_rest(count: int, shown: int) -> None:
    if count > shown:
        screen.answer(f"and {count - shown:,} more; --all shows all, --csv and --json too")


# ---------------------------------------------------------------------- for programs


def _print_json(told: Receipt) -> None:
    summary = told.summary
    screen.stream_json(
        {
            "batch": summary.batch,
            "source": summary.source,
            "is_complete": summary.is_complete,
            "lacks": list(summary.lacks),
            "counts": dict(summary.counts),
            "size_bytes": summary.size_bytes,
            "first_arrived_at": summary.first_arrived_at,
            "last_finished_at": summary.last_finished_at,
            "expectations": [
                {
                    "kind": each.kind,
                    "name": each.name,
                    "expected": each.expected,
                    "lacking": each.lacking,
                    "statuses": dict(each.statuses),
                }
                for each in summary.measured
            ],
            "unexpected": summary.unexpected,
            "waiting": told.waiting(),
            "expected": told.expected(),
            "files": told.files(),
        }
    )


def _print_csv(told: Receipt) -> None:
    print_csv(_COLUMNS, _cells(told))


def _cells(told: Receipt) -> Iterator[list[Any]]:
    """Yield a row for each file, for each expected thing that none is, and for what waits."""
    words = {True: "yes", False: "no", None: ""}
    rows: Iterable[Row] = chain(
        (
            row
            | {"status": row["outcome"], "name": row["original_name"]}
            | {"is_expected": words[row["is_expected"]]}
            for row in told.files()
        ),
        (
            row | {"is_expected": "yes", "explanation": row["message"]}
            for row in told.expected("not here")
        ),
        ({"status": "waiting", "name": row["name"]} for row in told.waiting()),
    )
    for row in rows:
        yield [row.get(name) for name in _COLUMNS]
