"""`ingester quarantine` and `ingester retry`: what was set aside, and sending it back."""

from __future__ import annotations

from collections import Counter

import click

from ingester.cli import completing, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.index.readers import Row
from ingester.model import Reason
from ingester.quarantine import file_in
from ingester.spool import QUARANTINE

_NOT_ALL = 1


@click.command(epilog=example("ingester quarantine", "ingester quarantine --foreign --json"))
@click.option("--foreign", is_flag=True, help="List what is not DICOM too.")
@as_json
@pass_site
def quarantine(site: Site, foreign: bool, as_json: bool) -> None:
    """List the files that could not be archived, and why.

    Each lies in spool/quarantine/ID/ beside its reason.json. What to do about each
    reason stands in docs/reasons.md; `ingester retry` sends files back.
    """
    listed = _listed(site, with_foreign=foreign)
    if as_json:
        screen.answer_json(listed)
        return
    if not listed:
        screen.say("nothing is in quarantine")
        return
    screen.table(
        ["id", "reason", "source", "batch", "name", "size", "arrived"],
        [
            [
                each["arrival_id"],
                each["reason"],
                each["source"],
                each["batch"],
                each["original_name"],
                screen.size(each["size_bytes"]),
                each["arrived_at"],
            ]
            for each in listed
        ],
    )
    for message, count in Counter(each["message"] for each in listed).most_common():
        screen.answer(f"{screen.plural(count, 'file')}: {screen.printable(message)}")
    screen.answer(f"They lie in {site.settings.spool.path / QUARANTINE}.")


def _listed(site: Site, *, with_foreign: bool) -> list[Row]:
    """Return what the index says was set aside, each with the path where it lies now."""
    home = site.settings.spool.path / QUARANTINE
    with open_index(site.settings) as index:
        listed = index.quarantine(with_foreign=with_foreign)
    for each in listed:
        folder = home / each["arrival_id"]
        path = file_in(folder) if folder.is_dir() else None
        each["path"] = str(path) if path is not None else None
    return listed


@click.command(
    epilog=example(
        "ingester retry 00063a1f2b3c4d5e6f708192",
        "ingester retry --reason incomplete",
        "ingester retry --all",
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=completing.quarantined)
@click.option("--all", "everything", is_flag=True, help="Send back all that is quarantined.")
@click.option(
    "--reason",
    type=click.Choice([reason.value for reason in Reason]),
    metavar="CODE",
    help="Send back what was set aside for this reason.",
)
@as_json
@pass_site
def retry(
    site: Site, ids: tuple[str, ...], everything: bool, reason: str | None, as_json: bool
) -> None:
    """Send quarantined files back: each becomes a new arrival.

    The old row in the index keeps its outcome and names the new arrival in retried_as.
    Exits with 1 where a file could not be sent back.
    """
    if bool(ids) + everything + bool(reason) != 1:
        raise click.UsageError(
            "name files by their ID (see ingester quarantine), or say --all or --reason CODE"
        )
    told = site.perform("retry", ids=list(ids), all=everything, reason=reason)
    if as_json:
        screen.answer_json(told)
    else:
        for each in told["retried"]:
            screen.answer(f"{each['arrival_id']} is back in the spool as {each['retried_as']}")
        for each in told["failed"]:
            screen.say(screen.printable(f"{each['arrival_id']}: {each['message']}"))
        if not told["retried"] and not told["failed"]:
            screen.say("there was nothing to send back")
        elif told["retried"] and site.ask("status") is None:
            screen.say(f"no service is running to take them; run: {site.command} run --once")
    if told["failed"]:
        click.get_current_context().exit(_NOT_ALL)
