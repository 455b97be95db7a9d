"""`ingester rebuild`: the index made again from the archive's files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from ingester.check import Difference, Rebuilt
from ingester.check import rebuild as build_again
from ingester.cli import logs, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.progress import Progress
from ingester.cli.site import Site
from ingester.model import SystemClock
from ingester.service import rooms, snapshots

_FOUND = 1
_MOST_SHOWN = 50


@click.command(
    epilog=example("ingester rebuild", "ingester --config /srv/dicom/ingest.toml rebuild --json")
)
@as_json
@pass_site
def rebuild(site: Site, as_json: bool) -> None:
    """Make the index again from the archive's files.

    Into a new file that takes the old one's place when it is complete; the old one is
    kept aside. With the old one at hand every row comes back with its keys; without it
    original names, batches, arrival times and decisions are lost, and pictures are made
    again by the next run. Reads every file once, and needs room for a second index.
    Refused beside a running service. Exits with 1 where something was found that does
    not belong, is missing or could not be taken in, 2 where it could not run.
    """
    logs.begin(site.settings, is_brief=True)
    settings = site.settings
    with (
        rooms.held_site(settings, command="rebuild") as (spool, _),
        Progress("rebuild", "objects", is_quiet=as_json) as progress,
    ):
        made = build_again(
            settings.archive.path,
            settings.index.path,
            clock=SystemClock(),
            spool=spool.root,
            progress=progress.set,
            executor=rooms.pool_of(settings.workers.prepare_count),
            defaults=rooms.source_defaults(settings),
            limits=rooms.ingest_settings(settings, is_impatient=True).limits,
            columns=settings.index.columns,
        )
        snapshots.refresh(settings, SystemClock(), at_any_size=True)
    if as_json:
        screen.answer_json(_document(made))
    else:
        for line in _lines(made):
            screen.answer(screen.printable(line))
    if made.findings:
        click.get_current_context().exit(_FOUND)


def _document(made: Rebuilt) -> dict[str, Any]:
    compared = None
    if made.differences is not None:
        compared = {
            table: {
                "equal": each.equal,
                "changed": each.changed,
                "gone": each.gone,
                "new": each.new,
                "changed_columns": dict(each.columns),
            }
            for table, each in made.differences.items()
        }
    return {
        "objects": made.objects,
        "old_index": str(made.former) if made.former is not None else None,
        "is_damaged": made.is_damaged,
        "damaged_tables": list(made.damaged),
        "carried_over": dict(made.carried),
        "gone_derivatives": made.gone_derivatives,
        "not_carried_over": list(made.lost),
        "compared": compared,
        "kept_aside": str(made.kept_aside) if made.kept_aside is not None else None,
        "findings": [asdict(finding) for finding in made.findings],
    }


def _lines(made: Rebuilt) -> Iterator[str]:
    for finding in made.findings[:_MOST_SHOWN]:
        yield f"{finding.kind}: {finding.path}"
        yield f"    {finding.message}"
    if len(made.findings) > _MOST_SHOWN:
        yield f"and {len(made.findings) - _MOST_SHOWN:,} more; --json names all"
    yield f"the index is made again: {screen.plural(made.objects, 'object')}"
    if made.carried:
        carried = ", ".join(f"{count:,} {what}" for what, count in made.carried.items())
        yield f"carried over from the old index: {carried}"
    if made.gone_derivatives:
        gone = screen.plural(made.gone_derivatives, "thumbnail or video", "thumbnails or videos")
        yield f"{gone} gone from the archive: made again by the next run"
    for sentence in made.lost:
        yield f"not carried over: {sentence}"
    yield from _of_the_old_one(made)
    if made.kept_aside is not None:
        yield f"the old index is kept at {made.kept_aside}"


def _of_the_old_one(made: Rebuilt) -> Iterator[str]:
    if made.former is None:
        yield (
            "there was no old index: original names, batches, arrival times and decisions are not "
            "known any more; thumbnails and videos are made again by the next run"
        )
    elif made.is_damaged:
        lost = f": parts of {', '.join(made.damaged)} could not be read" if made.damaged else ""
        yield f"the old index is damaged{lost}; all else was taken over"
    elif made.differences is not None:
        differing = {t: each for t, each in made.differences.items() if not each.is_equal}
        for table, each in differing.items():
            yield f"compared with the old index: {table}: {_told(each)}"
        if not differing:
            yield "compared with the old index: every row is the same"


def _told(difference: Difference) -> str:
    parts = []
    if difference.changed:
        columns = ", ".join(sorted(difference.columns))
        parts.append(f"{screen.plural(difference.changed, 'row')} changed ({columns})")
    if difference.gone:
        parts.append(f"{screen.plural(difference.gone, 'row')} gone")
    if difference.new:
        parts.append(f"{screen.plural(difference.new, 'row')} new")
    return ", ".join(parts)
