"""`ingester run` and `ingester run --once`."""

from __future__ import annotations

import ipaddress

import click

from ingester import service
from ingester.cli import logs, screen, summary
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.progress import Progress
from ingester.cli.site import Site
from ingester.config import Settings
from ingester.control import Document


@click.command(
    epilog=example(
        "ingester run",
        "ingester --config /srv/dicom/ingest.toml run",
        "ingester run --once --json",
    )
)
@click.option(
    "--once", is_flag=True, help="Take what lies in the spool now, print the summary, end."
)
@as_json
@pass_site
def run(site: Site, once: bool, as_json: bool) -> None:
    """Run the service in the foreground: receivers, watcher, ingest, derivatives.

    Ctrl-C or SIGTERM ends it: what is claimed is finished, for at most 10 seconds, and
    the next start takes up the rest. A second service on the same folders is refused.

    With --once no receiver is started: everything that lies in the spool now is taken
    (files that still grow are waited for), all pending thumbnails and videos are made,
    and the summary is printed; exits with 1 where something was quarantined, in
    conflict or left in the spool, or a derivative failed.
    """
    settings = site.settings
    if not once:
        if as_json:
            raise click.UsageError("--json goes with --once; a running service is asked by status")
        logs.begin(settings)
        service.run(settings, on_ready=lambda told: _announce(settings, told))
        return
    logs.begin(settings, is_brief=True)
    with Progress("ingest", "files", is_quiet=as_json) as progress:
        left: list[str] = []
        told = service.run_once(settings, progress=progress.set, on_left=left.extend)
    for sentence in left:
        screen.say(screen.printable(f"left in the spool: {sentence}"))
    summary.show(told, as_json=as_json)
    click.get_current_context().exit(summary.exit_code(told) or int(bool(left)))


def _announce(settings: Settings, told: Document) -> None:
    """Say what is watched, where it listens, and who can reach it."""
    for folder in told["watched"]:
        note = f" ({folder['note']})" if folder["note"] else ""
        screen.say(screen.printable(f"watching   {folder['path']}, {folder['how']}{note}"))
    for receiver in told["receivers"]:
        if receiver["is_up"]:
            where = f"{receiver['host']} port {receiver['port']}"
            screen.say(f"receiving  {receiver['name']} on {where}, {reach(settings, receiver)}")
        else:
            screen.say(f"receiving  {receiver['name']} is down: {receiver['message']}")
    if not told["receivers"]:
        screen.say("receiving  nothing from the network: no receiver is enabled")
    screen.say(f"archive    {settings.archive.path}")
    screen.say(f"index      {settings.index.path}")
    screen.say("Drop files, or try `ingester demo` in a second terminal. Ctrl-C ends the service.")


def reach(settings: Settings, receiver: Document) -> str:
    """Return who can reach a receiver, in words."""
    scp = settings.receiver.scp
    title = f"AE title {scp.ae_title}" if receiver["name"] == "scp" else "DCMTK"
    try:
        is_local = ipaddress.ip_address(receiver["host"]).is_loopback
    except ValueError:
        is_local = receiver["host"] == "localhost"
    if is_local:
        return f"{title}; only this machine can reach it"
    if receiver["name"] == "scp" and scp.allow:
        return f"{title}; open to {', '.join(scp.allow)}"
    return f"{title}; OPEN TO EVERYBODY who reaches this machine: see [receiver.scp] allow"
