"""`ingester verify`: archive against index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from ingester import priority
from ingester.check import Findings, Part
from ingester.check import verify as compare
from ingester.cli import logs, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.progress import Progress
from ingester.cli.site import Site
from ingester.cli.stopping import asked_to_stop
from ingester.control import Refused
from ingester.errors import Fatal
from ingester.site import is_backup

_FOUND = 1
_STOPPED = 130
_MOST_SHOWN = 50


@click.command(
    epilog=example(
        "ingester verify",
        "ingester verify --checksum",
        "ingester verify --checksum --part $(date +%-d)/31",
        "ingester verify --repair",
    )
)
@click.option("--checksum", is_flag=True, help="Read every byte and compare its SHA-256.")
@click.option("--part", metavar="N/M", help="With --checksum: read the N-th of M parts only.")
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@as_json
@pass_site
def verify(site: Site, checksum: bool, part: str | None, repair: bool, as_json: bool) -> None:
    """Compare archive and index, both ways: files, sizes, derivatives, quarantine.

    Nothing is changed without --repair, which takes files without a row into the index
    and has missing pictures made again; what only a backup can mend stays and is named.
    With --checksum it takes as long as reading the whole archive, after the service has
    had the disk; --part spreads that over so many nights. May run beside the service.
    Exits with 1 where anything was found (and not mended), 2 where it could not run.
    """
    logs.begin(site.settings, is_brief=True)
    if part is not None and not checksum:
        raise click.UsageError("--part goes with --checksum")
    wanted = None if part is None else _part(part)
    if repair and is_backup(site.settings.archive.path):
        raise Fatal(
            "this is a backup, and nothing is mended in it: `ingester backup DEST --checksum` "
            "copies again what is not whole, `rebuild` makes its index again"
        )
    try:
        with asked_to_stop() as is_stopped:
            found = _verified(site, checksum, wanted, is_stopped, is_quiet=as_json)
    except KeyboardInterrupt:
        screen.say("ingester: interrupted; nothing was changed")
        click.get_current_context().exit(_STOPPED)
    mended: list[dict[str, Any]] = []
    left = [asdict(finding) for finding in found.found]
    if repair and left:
        told = site.perform("repair", findings=left)
        mended, left = told["mended"], told["left"]
    if as_json:
        screen.answer_json(
            {
                "objects": found.objects,
                "derivatives": found.derivatives,
                "bytes_read": found.bytes_read,
                "mended": mended,
                "findings": left,
            }
        )
    else:
        _print(found, mended, left)
    if left:
        click.get_current_context().exit(_FOUND)


def _verified(
    site: Site,
    checksum: bool,
    part: Part | None,
    is_stopped: Callable[[], bool],
    *,
    is_quiet: bool,
) -> Findings:
    settings = site.settings
    if not settings.archive.path.is_dir():
        raise Fatal(f"there is no archive at {settings.archive.path}; is a disk not mounted?")
    if checksum:
        priority.step_back()
    with Progress("verify", "objects", is_quiet=is_quiet) as progress:
        return compare(
            settings.archive.path,
            settings.index.path,
            spool=settings.spool.path,
            checksum=checksum,
            part=part,
            is_live=_is_live(site),
            progress=progress.set,
            is_stopped=is_stopped,
        )


def _part(text: str) -> Part:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise click.BadParameter(
            f'{text} is no part; write for example "3/30", the third of thirty',
            param_hint="--part",
        )
    return Part(int(number), int(count))


def _is_live(site: Site) -> bool:
    """Return whether a service runs beside us, perhaps one that we may not speak to."""
    try:
        return site.ask("status") is not None
    except Refused:
        return True


def print_findings(mended: list[dict[str, Any]], left: list[dict[str, Any]]) -> None:
    """Print what was mended and what was found, the first of them."""
    for finding in mended[:_MOST_SHOWN]:
        screen.answer(screen.printable(f"mended: {finding['kind']}: {finding['path']}"))
    for finding in left[:_MOST_SHOWN]:
        screen.answer(screen.printable(f"{finding['kind']}: {finding['path']}"))
        screen.answer(screen.printable(f"    {finding['message']}"))
    if len(left) > _MOST_SHOWN:
        screen.answer(f"and {len(left) - _MOST_SHOWN:,} more; --json names all")


def _print(found: Findings, mended: list[dict[str, Any]], left: list[dict[str, Any]]) -> None:
    print_findings(mended, left)
    read = f", {screen.size(found.bytes_read)} read" if found.bytes_read else ""
    verdict = f"{screen.plural(len(left), 'finding')}" if left else "clean"
    screen.answer(
        f"{verdict}: {screen.plural(found.objects, 'object')}, "
        f"{screen.plural(found.derivatives, 'derivative')}{read}"
    )
