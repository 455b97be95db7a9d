"""`ingester status`: how the site is, now or again every second."""

from __future__ import annotations

import sys
import threading

import click

from ingester.cli import screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.site import Site
from ingester.control import Document
from ingester.errors import Fatal

_NEEDS_A_LOOK = 1
_COULD_NOT_TELL = 2
_SECONDS = 1.0


@click.command(
    epilog=example("ingester status", "ingester status --watch", "ingester status --json")
)
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@as_json
@pass_site
def status(site: Site, watch: bool, as_json: bool) -> None:
    """Show what waits, what was archived, what is wrong.

    Works with and without a running service. Exits with 1 where there are unresolved
    problems or a receiver is down, with 2 where it could not tell.
    """
    if watch and as_json:
        raise click.UsageError("choose --watch or --json, not both")
    if not site.settings.spool.path.is_dir():
        raise Fatal(
            f"there is no spool at {site.settings.spool.path} yet; `ingester run` makes it, "
            "or is a disk not mounted?"
        )
    if watch:
        _watch(site)
        return
    told = read(site)
    if as_json:
        screen.answer_json(told)
    else:
        for line in lines(told):
            screen.answer(line)
    click.get_current_context().exit(exit_code(told))


def read(site: Site) -> Document:
    """Return the status document; `running` says whether a service told it."""
    told = site.ask("status")
    if told is None:
        from ingester import service  # only where none runs: the whole house takes a while

        told = service.read_status(site.settings)
    return {"running": told["service"] is not None, **told}


def exit_code(told: Document) -> int:
    """Return 1 where something is unresolved or a receiver is down, 2 where nobody knows."""
    if told["unresolved_problems"] is None and told["troubles"]:
        return _COULD_NOT_TELL
    is_down = any(not receiver["is_up"] for receiver in told["receivers"])
    return _NEEDS_A_LOOK if told["unresolved_problems"] or is_down else 0


def _watch(site: Site) -> None:
    pause = threading.Event()
    while True:
        text = "\n".join(lines(read(site)))
        if sys.stdout.isatty():
            click.clear()
        screen.answer(text)
        pause.wait(_SECONDS)


def lines(told: Document) -> list[str]:
    """Return the document as lines for people."""
    found = [_service_line(told)]
    rates = told["rates"]
    found.append(
        f"spool        {_count(told['waiting'])} waiting, {_count(told['claimed'])} claimed, "
        f"{rates['files_per_second']:g} files/s, {screen.size(rates['bytes_per_second'])}/s"
    )
    found += [_unpacking_line(each) for each in told.get("unpacking", ())]
    found.append(
        f"archive      {_count(told['archived_today'])} archived today, "
        f"{_count(told['instances'])} in all"
    )
    found.append(f"derivatives  {_count(told['pending_derivatives'])} pending")
    problems = told["unresolved_problems"]
    look = "; all: ingester sql 'SELECT kind, message FROM problems'" if problems else ""
    found.append(f"problems     {_count(problems)} unresolved{look}")
    found += [
        screen.printable(f"             {each['kind']}: {each['message']}")
        for each in told["latest_problems"]
    ]
    found += [_receiver_line(receiver) for receiver in told["receivers"]]
    for name, space in told["free_space"].items():
        if space is not None:
            free, total = space["free_bytes"], space["total_bytes"]
            share = 100 * free / total if total else 0
            found.append(f"free space   {name}: {screen.size(free)} ({share:.0f} %)")
    found += [f"trouble      {screen.printable(trouble)}" for trouble in told["troubles"]]
    return found


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _service_line(told: Document) -> str:
    running = told["service"]
    if running is None:
        return "service      not running; start it with: ingester run"
    return (
        f"service      running since {running['started_at']}, process {running['process']}, "
        f"version {running['version']}"
    )


def _unpacking_line(archive: Document) -> str:
    name = screen.printable(archive["original_name"])
    if archive["members_total"] is None:
        return f"unpacking    {name}: looking through it"
    return (
        f"unpacking    {name}: {archive['members']:,} of {archive['members_total']:,} members,"
        f" {screen.size(archive['bytes'])} of {screen.size(archive['bytes_total'])}"
    )


def _receiver_line(receiver: Document) -> str:
    if not receiver["is_up"]:
        return f"receiver     {receiver['name']} is DOWN: {receiver['message']}"
    return (
        f"receiver     {receiver['name']} on {receiver['host']} port {receiver['port']}: "
        f"{screen.plural(receiver['associations'], 'association')}, "
        f"{screen.plural(receiver['objects'], 'object')} received"
    )
