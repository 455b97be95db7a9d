"""`ingester verify`: archive against index."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ingester.check import Findings
from ingester.check import verify as compare
from ingester.cli import logs, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.progress import Progress
from ingester.cli.site import Site
from ingester.errors import Fatal

_FOUND = 1
_MOST_SHOWN = 50


@click.command(
    epilog=example("ingester verify", "ingester verify --checksum", "ingester verify --repair")
)
@click.option("--checksum", is_flag=True, help="Read every byte and compare its SHA-256.")
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@as_json
@pass_site
def verify(site: Site, checksum: bool, repair: bool, as_json: bool) -> None:
    """Compare archive and index, both ways: files, sizes, derivatives, quarantine.

    Nothing is changed without --repair, which takes files without a row into the index
    and has missing pictures made again; what only a backup can mend stays and is named.
    With --checksum it takes as long as reading the whole archive. May run beside the
    service. Exits with 1 where anything was found (and not mended), 2 where it could
    not run.
    """
    logs.begin(site.settings, is_brief=True)
    found = _verified(site, checksum=checksum, is_quiet=as_json)
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


def _verified(site: Site, *, checksum: bool, is_quiet: bool) -> Findings:
    settings = site.settings
    if not settings.archive.path.is_dir():
        raise Fatal(f"there is no archive at {settings.archive.path}; is a disk not mounted?")
    with Progress("verify", "objects", is_quiet=is_quiet) as progress:
        return compare(
            settings.archive.path,
            settings.index.path,
            spool=settings.spool.path,
            checksum=checksum,
            is_live=site.ask("status") is not None,
            progress=progress.set,
        )


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
