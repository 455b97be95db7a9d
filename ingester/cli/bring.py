"""`ingester import`: files from anywhere through the same pipeline as the spool."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import click

from ingester.cli import completing, follow, outcomes, screen, summary
from ingester.cli.brought import Left, report
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.outcomes import Ids
from ingester.cli.progress import Progress
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.config.values import source as checked_source
from ingester.errors import Fatal, Retry
from ingester.handover import (
    CannotRead,
    Found,
    Handed,
    Handover,
    Scroll,
    is_foreign,
    take_away,
    walk,
)
from ingester.ignore import Ignore
from ingester.index.readers import Reader
from ingester.model import Outcome, SystemClock
from ingester.service import rooms, run_once
from ingester.site import Space
from ingester.spool import RECEIVING


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
    room for a copy of everything in the spool, for a while, and says so beforehand.
    Exits with 1 where something was quarantined, in conflict or could not be read, or a
    derivative failed.
    """
    began = time.monotonic()
    _refuse_own(site, paths)
    importing = _Import(site, _source(site, source), batch, is_quiet=as_json, is_moved=move)
    is_running = site.ask("status") is not None
    if is_running:
        importing.copy(paths)
        site.ask("look")
    else:
        with rooms.held_site(site.settings, command="import") as (spool, archive):
            rooms.make_folders(site.settings, spool, archive)
            importing.copy(paths)
    importing.ingest(is_running=is_running)
    importing.finish(as_json=as_json, began=began)


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

    def __init__(
        self, site: Site, source: str, batch: str | None, *, is_quiet: bool, is_moved: bool
    ) -> None:
        self._site = site
        self._source = source
        self._batch = batch
        self._is_quiet = is_quiet
        self._is_moved = is_moved
        self._originals: Scroll[Handed] | None = None  # to be taken away in the end
        self._ids: list[str] = []
        self._left = Left()

    # ---------------------------------------------------------------------- copying

    def copy(self, paths: tuple[Path, ...]) -> None:
        """Copy everything that may be DICOM into the spool."""
        settings = self._site.settings.spool
        aside = settings.path / RECEIVING
        with closing(Scroll[Found](aside)) as listing, self._handover() as handover:
            size_bytes = self._list(paths, listing)
            self._make_sure_of_room(handover, listing, size_bytes)
            if self._is_moved:
                self._originals = Scroll(aside)
            try:
                self._copy_all(handover, listing, size_bytes)
            except KeyboardInterrupt:
                self._say_interrupted()
                raise

    def _handover(self) -> Handover:
        settings = self._site.settings.spool
        return Handover(
            settings.path,
            self._source,
            SystemClock(),
            folder_mode=settings.mode,
            min_free_bytes=settings.min_free.of(Space.of(settings.path).total_bytes),
        )

    def _list(self, paths: tuple[Path, ...], listing: Scroll[Found]) -> int:
        """List what there is, once; returns its size in bytes."""
        size_bytes = 0
        is_ignored = Ignore(self._site.settings.spool.ignore)
        with Progress("look", "files", is_quiet=self._is_quiet) as progress:
            for found in walk(paths, is_ignored, self._left.skip):
                listing.append(found)
                size_bytes += found.size_bytes
                progress.advance(screen.size(size_bytes))
        return size_bytes

    def _make_sure_of_room(
        self, handover: Handover, listing: Scroll[Found], size_bytes: int
    ) -> None:
        """Say before the first copy that they do not fit; what is foreign needs no room."""
        try:
            handover.make_sure_of_room(size_bytes)
        except Retry:
            handover.make_sure_of_room(sum(each.size_bytes for each in listing if _may_be(each)))

    def _copy_all(self, handover: Handover, listing: Scroll[Found], size_bytes: int) -> None:
        done_bytes = 0
        with Progress("copy", "files", is_quiet=self._is_quiet) as progress:
            for number, found in enumerate(listing, start=1):
                self._copy_one(handover, found)
                done_bytes += found.size_bytes
                note = f"{screen.size(done_bytes)} of {screen.size(size_bytes)}"
                progress.set(number, len(listing), note)
            handover.flush()

    def _copy_one(self, handover: Handover, found: Found) -> None:
        try:
            if is_foreign(found.path):
                self._left.note_foreign(found.size_bytes)
                return
            handed = handover.bring(found, self._batch or found.batch)
        except CannotRead as error:
            self._left.skip(found.path, str(error))
            return
        self._ids.append(handed.arrival_id)
        if self._originals is not None:
            self._originals.append(handed)

    def _say_interrupted(self) -> None:
        copied = screen.plural(len(self._ids), "file")
        screen.say(
            f"{copied} copied so far; the next `{self._site.command} run` takes up those that"
            " are whole. Import the same again for the rest: what is there already becomes a"
            " duplicate, nothing is stored twice."
        )

    # -------------------------------------------------------------------- ingesting

    def ingest(self, *, is_running: bool) -> None:
        """See it through: follow the service, or run the pipeline here as none runs."""
        if not self._ids:
            return
        if not is_running:
            try:
                with Progress("ingest", "files", is_quiet=self._is_quiet) as progress:
                    run_once(self._site.settings, progress=progress.set, command="import")
                return
            except Fatal:
                if self._site.ask("status") is None:
                    raise
                # A service was started between the copying and now: it has them.
        follow.until_done(self._site, Ids(tuple(self._ids)), is_quiet=self._is_quiet)

    def finish(self, *, as_json: bool, began: float) -> None:
        """Say what became of everything; take originals away where that was asked for."""
        ids, left = Ids(tuple(self._ids)), self._left
        told: dict[str, int | float] = dict.fromkeys(summary.KEYS, 0)
        if self._ids:
            with open_index(self._site.settings) as index:
                self._take_away(index)
                told |= outcomes.summary(index, ids, left.foreign)
                report(self._site, index, ids)
        else:
            files, size_bytes = left.foreign.files, left.foreign.bytes
            told |= {"arrived": files, "foreign": files, "bytes": size_bytes}
        left.say()
        told["seconds"] = round(time.monotonic() - began, 3)
        summary.show(told, as_json=as_json)
        code = summary.exit_code(told) or int(bool(left.skipped))
        click.get_current_context().exit(code)

    def _take_away(self, index: Reader) -> None:
        if self._originals is None:
            return
        with closing(self._originals) as originals:
            for handed in originals:
                outcome = outcomes.outcome_of(index, handed.arrival_id)
                if outcome in (None, Outcome.FOREIGN):
                    continue
                try:
                    if not take_away(handed):
                        self._left.skip(handed.found.path, "it has changed since it was copied")
                except OSError as error:
                    why = f"it was archived, but cannot be taken away: {error.strerror}"
                    self._left.skip(handed.found.path, why)


def _may_be(found: Found) -> bool:
    try:
        return not is_foreign(found.path)
    except CannotRead:
        return False
