"""`ingester quarantine` and `ingester retry`: what was set aside, and sending it back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from ingester.cli import completing, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.resolve import last_part
from ingester.cli.site import Site
from ingester.index.readers import Row
from ingester.model import Reason
from ingester.quarantine import file_in
from ingester.spool import QUARANTINE

_NOT_ALL = 1
_MOST_SHOWN = 1000
_MOST_SAID = 20


@click.command(
    epilog=example(
        "ingester quarantine",
        "ingester quarantine --foreign --json",
        "ingester quarantine --settled",
    )
)
@click.option("--foreign", is_flag=True, help="List what is not DICOM too.")
@click.option("--settled", is_flag=True, help="List what a person has settled where it lies.")
@as_json
@pass_site
def quarantine(site: Site, foreign: bool, settled: bool, as_json: bool) -> None:
    """List the files that could not be archived, and why.

    Each lies in spool/quarantine/ID/ beside its reason.json. What to do about each
    reason stands in docs/reasons.md; `ingester retry` sends files back, `ingester
    resolve` settles or removes them. As a table the first 1,000 are shown, as JSON all.
    """
    with open_index(site.settings) as index:
        listed = index.quarantine(with_foreign=foreign, settled=settled)
        settled_count = 0 if settled else index.settled_files()
    home = site.settings.spool.path / QUARANTINE
    if as_json:
        screen.answer_json([each | {"path": _path_in(home, each)} for each in listed])
        return
    if listed:
        _print(site, listed, home)
    else:
        screen.say("nothing is in quarantine" if not settled else "nothing is settled there")
    if settled_count:
        screen.say(
            f"{screen.plural(settled_count, 'file')} more that somebody has settled; "
            f"see: {site.command} quarantine --settled"
        )


def _path_in(home: Path, each: Row) -> str | None:
    """Return where a file lies now, None where only its reason is left, or nothing."""
    folder = home / each["arrival_id"]
    path = file_in(folder) if folder.is_dir() else None
    return str(path) if path is not None else None


def _print(site: Site, listed: list[Row], home: Path) -> None:
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
            for each in listed[:_MOST_SHOWN]
        ],
    )
    if len(listed) > _MOST_SHOWN:
        screen.answer(f"and {len(listed) - _MOST_SHOWN:,} more; --json lists all")
    for message, count in Counter(each["message"] for each in listed).most_common(_MOST_SAID):
        screen.answer(f"{screen.plural(count, 'file')}: {screen.printable(message)}")
    screen.answer(f"They lie in {home}.")
    some = listed[0]["arrival_id"]
    for what, command in (
        ("once mended", f"retry {some}"),
        ("or settle it where it lies", f"resolve {some} --note TEXT"),
        ("or remove it for good", f"resolve {some} --discard"),
    ):
        screen.answer(f"{what + ':':<28}{site.command} {command}")


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

    ID is an arrival's id, or its beginning, or the folder in quarantine. --all and
    --reason leave out what somebody has settled (see ingester resolve). The old row in
    the index keeps its outcome and names the new arrival in retried_as. Exits with 1
    where a file could not be sent back.
    """
    if bool(ids) + everything + bool(reason) != 1:
        raise click.UsageError(
            "name files by their ID (see ingester quarantine), or say --all or --reason CODE"
        )
    words = [last_part(text) for text in ids]
    told = site.perform("retry", ids=words, all=everything, reason=reason)
    if as_json:
        screen.answer_json(told)
    else:
        for each in told["retried"][:_MOST_SAID]:
            screen.answer(f"{each['arrival_id']} is back in the spool as {each['retried_as']}")
        if len(told["retried"]) > _MOST_SAID:
            screen.answer(f"{len(told['retried']):,} files in all are back in the spool")
        for each in told["failed"]:
            screen.say(screen.printable(f"{each['arrival_id']}: {each['message']}"))
        if not told["retried"] and not told["failed"]:
            screen.say("there was nothing to send back")
        elif told["retried"] and site.ask("status") is None:
            screen.say(f"no service is running to take them; run: {site.command} run --once")
    if told["failed"]:
        click.get_current_context().exit(_NOT_ALL)
