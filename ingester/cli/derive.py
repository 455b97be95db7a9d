"""`ingester derive`: thumbnails and videos again."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import click

from ingester import service
from ingester.cli import logs, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.progress import Progress
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.errors import Retry
from ingester.model import Kind, moment

_SOME_FAILED = 1
_POLL_SECONDS = 0.25
_ALIVE_EVERY = 20

_PENDING = """
  SELECT (SELECT count(*) FROM instances) * 2 - (SELECT count(*) FROM derivatives)"""
_MADE = """
  SELECT kind, status, count(*) AS n FROM derivatives WHERE made_at >= ? GROUP BY kind, status"""


@click.command(
    epilog=example(
        "ingester derive", "ingester derive --failed", "ingester derive --all --kind video"
    )
)
@click.option("--missing", "which", flag_value="missing", default=True, help="Those not there.")
@click.option("--failed", "which", flag_value="failed", help="Those that failed, too.")
@click.option("--all", "which", flag_value="all", help="All of them.")
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="Only this kind.")
@as_json
@pass_site
def derive(site: Site, which: str, kind: str | None, as_json: bool) -> None:
    """Make thumbnails and videos again.

    Needed after an upgrade of a decoder, or a changed setting; what is merely missing
    is made by the service anyway. Costs about as long as the archive took to make
    them. Beside a running service it does the work; else it is done here, and what lies
    in the spool is taken too. Exits with 1 where one failed.
    """
    logs.begin(site.settings, is_brief=True)
    began = moment(datetime.now(UTC))
    is_running = site.ask("status") is not None
    site.perform("derive", which=which, kind=kind)
    if is_running:
        _follow(site, is_quiet=as_json)
    else:
        with Progress("derive", "files", is_quiet=as_json) as progress:
            service.run_once(site.settings, progress=progress.set, command="derive")
    with open_index(site.settings) as index:
        rows = index.rows(_MADE, (began,))
    told = {
        each.value: {row["status"]: row["n"] for row in rows if row["kind"] == each}
        for each in Kind
    }
    if as_json:
        screen.answer_json(told)
    else:
        for name, counts in told.items():
            shown = ", ".join(f"{n:,} {status}" for status, n in counts.items())
            screen.answer(f"{name}s: {shown or 'nothing to do'}")
    if any("failed" in counts for counts in told.values()):
        click.get_current_context().exit(_SOME_FAILED)


def _follow(site: Site, *, is_quiet: bool) -> None:
    """Wait until a running service has made them."""
    pause = threading.Event()
    polls = 0
    with (
        open_index(site.settings) as index,
        Progress("derive", "derivatives", is_quiet=is_quiet) as progress,
    ):
        total = index.connection.execute(_PENDING).fetchone()[0]
        while left := index.connection.execute(_PENDING).fetchone()[0]:
            progress.set(total - left, total)
            polls += 1
            if polls % _ALIVE_EVERY == 0 and site.ask("status") is None:
                raise Retry("the service has stopped; the next one makes the rest")
            pause.wait(_POLL_SECONDS)
