"""`ingester import`: files from anywhere through the same pipeline as the spool."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from ingester.cli import completing, follow, screen, summary
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.progress import Progress
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.config.values import source as checked_source
from ingester.handover import Found, Handed, Handover, is_foreign, take_away, walk
from ingester.ignore import Ignore
from ingester.index.readers import Row
from ingester.model import Outcome, SystemClock
from ingester.service import rooms, run_once
from ingester.site import Space

_MOST_NAMED = 20


@click.command(
    name="import",
    epilog=example(
        "ingester import /media/cdrom",
        "ingester import ~/Downloads/*.zip --source CT1 --batch march",
        "ingester import /mnt/old --move --json",
    ),
)
@click.argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--source",
    metavar="NAME",
    shell_complete=completing.sources,
    help="The source; else [spool] default_source.",
)
@click.option("--batch", metavar="NAME", help="The batch; else a folder's own name.")
@click.option("--move", is_flag=True, help="Take each original away once its outcome is durable.")
@as_json
@pass_site
def bring(
    site: Site,
    paths: tuple[Path, ...],
    source: str | None,
    batch: str | None,
    move: bool,
    as_json: bool,
) -> None:
    """Bring files, folders, archives and CDs into the archive, by copy.

    They take the same road as everything in the spool, beside a running service or
    without one. What is not DICOM stays where it is and is counted as foreign. Needs
    room for a copy of everything in the spool, for a while. Exits with 1 where something
    was quarantined, in conflict, or a derivative failed.
    """
    began = time.monotonic()
    _refuse_own(site, paths)
    importing = _Import(site, _source(site, source), batch, is_quiet=as_json)
    is_running = site.ask("status") is not None
    if is_running:
        importing.copy(paths)
        site.ask("look")
    else:
        with rooms.held_site(site.settings, command="import") as (spool, archive):
            rooms.make_folders(site.settings, spool, archive)
            importing.copy(paths)
    ids = follow.Ids(tuple(handed.arrival_id for handed in importing.handed))
    if ids.values and is_running:
        follow.until_done(site, ids, is_quiet=as_json)
    elif ids.values:
        importing.ingest()
    importing.finish(ids, move=move, as_json=as_json, began=began)


def _source(site: Site, given: str | None) -> str:
    if given is None:
        return site.settings.spool.default_source
    try:
        return checked_source(given)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--source") from None


def _refuse_own(site: Site, paths: tuple[Path, ...]) -> None:
    """Refuse to import what is in our own folders: `--move` would take the only copy."""
    for own in (site.settings.archive.path, site.settings.spool.path):
        ours = Path(os.path.realpath(own))
        for path in paths:
            real = Path(os.path.realpath(path))
            if real.is_relative_to(ours) or ours.is_relative_to(real):
                raise click.BadParameter(
                    f"{path} lies in {own} or holds it; name what is to be brought from elsewhere",
                    param_hint="PATH",
                )


class _Import:
    """One import: what was handed over, what was left where it is."""

    def __init__(self, site: Site, source: str, batch: str | None, *, is_quiet: bool) -> None:
        self._site = site
        self._source = source
        self._batch = batch
        self._is_quiet = is_quiet
        self._bytes = 0
        self.handed: list[Handed] = []
        self.foreign: list[int] = []
        self.skipped: list[tuple[Path, str]] = []

    def copy(self, paths: tuple[Path, ...]) -> None:
        """Copy everything that may be DICOM into the spool."""
        settings = self._site.settings
        is_ignored = Ignore(settings.spool.ignore)
        space = Space.of(settings.spool.path)
        with (
            Handover(
                settings.spool.path,
                self._source,
                SystemClock(),
                folder_mode=settings.spool.mode,
                min_free_bytes=settings.spool.min_free.of(space.total_bytes),
            ) as handover,
            Progress("copy", "files", is_quiet=self._is_quiet) as progress,
        ):
            for found in walk(paths, is_ignored, self._skip):
                self._copy_one(handover, found)
                progress.advance(screen.size(self._bytes))
            handover.flush()

    def _copy_one(self, handover: Handover, found: Found) -> None:
        try:
            if is_foreign(found.path):
                self.foreign.append(found.path.stat().st_size)
                return
        except OSError as error:
            self._skip(found.path, f"it cannot be read: {error.strerror}")
            return
        self.handed.append(handover.bring(found, self._batch or found.batch))
        self._bytes += self.handed[-1].size_bytes

    def _skip(self, path: Path, why: str) -> None:
        self.skipped.append((path, why))

    def ingest(self) -> None:
        """Run the pipeline here, as no service does."""
        run_once(self._site.settings)

    def finish(self, ids: follow.Ids, *, move: bool, as_json: bool, began: float) -> None:
        """Say what became of everything; take originals away where that was asked for."""
        if ids.values:
            with open_index(self._site.settings) as index:
                arrivals = follow.outcomes(index, ids)
                seconds = time.monotonic() - began
                told = follow.summary(index, ids, foreign=self.foreign, seconds=seconds)
        else:
            arrivals = []
            told = dict.fromkeys(summary.KEYS, 0)
            told |= {"arrived": len(self.foreign), "foreign": len(self.foreign)}
            told |= {"bytes": sum(self.foreign), "seconds": round(time.monotonic() - began, 3)}
        if move:
            self._take_away(arrivals)
        self._name_troubles(arrivals)
        summary.show(told, as_json=as_json)
        code = summary.exit_code(told) or (1 if self.skipped else 0)
        click.get_current_context().exit(code)

    def _take_away(self, arrivals: list[Row]) -> None:
        outcomes = {arrival["arrival_id"]: arrival["outcome"] for arrival in arrivals}
        for handed in self.handed:
            outcome = outcomes.get(handed.arrival_id)
            if outcome is None or outcome == Outcome.FOREIGN:
                continue
            try:
                if not take_away(handed):
                    self._skip(handed.found.path, "it has changed since it was copied: it stays")
            except OSError as error:
                self._skip(handed.found.path, f"archived, but not taken away: {error.strerror}")

    def _name_troubles(self, arrivals: list[Row]) -> None:
        """Name what needs a look, on standard error."""
        troubles = [
            f"{arrival['original_name']}: {arrival['outcome']}"
            + (f" ({arrival['reason']})" if arrival["reason"] else "")
            for arrival in arrivals
            if arrival["outcome"] in (Outcome.QUARANTINED, Outcome.CONFLICT)
        ]
        troubles += [f"{path}: {why}" for path, why in self.skipped]
        for trouble in troubles[:_MOST_NAMED]:
            screen.say(screen.printable(trouble))
        if len(troubles) > _MOST_NAMED:
            screen.say(f"and {len(troubles) - _MOST_NAMED:,} more; see: ingester quarantine")
        if len(self.foreign):
            screen.say(f"{screen.plural(len(self.foreign), 'file')} without DICOM left in place")
