"""`ingester init` and `ingester service`: a new site, and how it runs for good."""

from __future__ import annotations

import ipaddress
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from ingester import durable
from ingester.cli import screen, unit
from ingester.cli.options import example, pass_site
from ingester.cli.site import Site
from ingester.config import Settings, example_text, load, parse
from ingester.errors import Fatal
from ingester.service import rooms

_DEFAULT_USER = "dicom"


@click.command(
    epilog=example(
        "ingester init", "ingester init /srv/dicom", "ingester init /srv/dicom --listen 0.0.0.0:104"
    )
)
@click.argument("folder", metavar="[DIR]", default=".")
@click.option(
    "--listen", metavar="ADDRESS", help="Receive on this address, ADDRESS or ADDRESS:PORT."
)
def init(folder: str, listen: str | None) -> None:
    """Make a site: ingest.toml, spool and archive, tied by a site id.

    Nothing that is there is overwritten: an ingest.toml is kept, and what is missing
    beside it is made.
    """
    file = Path(folder).absolute() / "ingest.toml"
    changes = {} if listen is None else {"[receiver.scp]": _address(listen)}
    if file.exists():
        if changes:
            raise Fatal(
                f"{file} is there already and is not overwritten; change [receiver.scp] in it"
            )
        screen.say(f"{file} is there already and stays as it is")
    else:
        text = example_text(changes).encode()
        parse(text, file)
        file.parent.mkdir(parents=True, exist_ok=True)
        durable.replace_file(file, text, 0o640)
        screen.answer(f"made {file}")
    settings = load(file)
    make_folders(settings)
    screen.answer(f"files go into {settings.spool.path}")
    screen.answer(f"and come to live in {settings.archive.path}")
    screen.answer(f"start it with: ingester --config {file} run")


def make_folders(settings: Settings) -> None:
    """Make spool and archive, tie them together, and make the folders within."""
    modes = {settings.spool.path: settings.spool.mode, settings.archive.path: settings.archive.mode}
    new = [folder for folder in modes if not folder.is_dir()]
    with rooms.held_site(settings, command="init") as (spool, archive):
        for folder in new:
            # With the setgid bit, which what is made below inherits: the service itself,
            # under systemd, may not set it.
            os.chmod(folder, modes[folder])
        rooms.make_folders(settings, spool, archive)


def _address(raw: str) -> dict[str, Any]:
    """Read ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT."""
    host, port = raw, ""
    if raw.startswith("["):
        host, _, port = raw[1:].partition("]")
        port = port.removeprefix(":")
    elif raw.count(":") == 1:
        host, _, port = raw.partition(":")
    try:
        if host != "localhost":
            ipaddress.ip_address(host)
        if port and not 1 <= int(port) <= 65535:
            raise ValueError(port)
    except ValueError:
        raise click.BadParameter(
            f'{raw} is no address; write for example "0.0.0.0" or "192.168.10.5:104"',
            param_hint="--listen",
        ) from None
    return {"host": host, **({"port": int(port)} if port else {})}


@click.command(
    epilog=example(
        "ingester --config /srv/dicom/ingest.toml service",
        "sudo /opt/ingester/bin/ingester --config /srv/dicom/ingest.toml service --install",
    )
)
@click.option("--install", is_flag=True, help="Install it, enable it and start it (as root).")
@pass_site
def service(site: Site, install: bool) -> None:
    """Print a hardened systemd unit for this configuration, or install it.

    What may be written, reached and run is taken from the configuration. The service
    runs as the owner of the archive's folder; where that is root, as the user dicom,
    which --install makes. Refused inside a git work tree: that is no place for
    patients' data.
    """
    settings = site.settings
    for folder in (site.file, settings.spool.path, settings.archive.path):
        _refuse_work_tree(folder)
    place = place_of(site.file, settings)
    text = unit.unit(settings, place)
    if not install:
        screen.answer(text.rstrip("\n"))
        return
    if os.geteuid() != 0:
        raise Fatal("installing a unit needs root; run it again with sudo")
    _install(settings, place, text)


def _refuse_work_tree(path: Path) -> None:
    for folder in (path, *path.parents):
        if (folder / ".git").exists():
            raise Fatal(
                f"{path} lies in the git work tree {folder}; make a site elsewhere with "
                "`ingester init /srv/dicom` and use its ingest.toml"
            )


def place_of(config: Path, settings: Settings) -> unit.Place:
    """Return where a site and this program are, and whom the service would run as."""
    user = group = _DEFAULT_USER
    if settings.archive.path.is_dir():
        owner = settings.archive.path.owner()
        if owner != "root":
            user, group = owner, settings.archive.path.group()
    program = shutil.which(sys.argv[0]) or str(Path(sys.executable).with_name("ingester"))
    return unit.Place(
        config=config,
        program=Path(os.path.abspath(program)),
        user=user,
        group=settings.spool.group or group,
    )


def _install(settings: Settings, place: unit.Place, text: str) -> None:
    if shutil.which("systemctl") is None:
        raise Fatal("this machine has no systemd; print the unit with `ingester service` instead")
    make_folders(settings)
    unit.UNIT_PATH.write_text(text)
    screen.say(f"wrote {unit.UNIT_PATH}")
    for command in unit.installation(settings, place, has_user=_has_user(place.user)):
        screen.say(unit.shown(command))
        if shutil.which(command[0]) is None:
            if command[0] != "setfacl":
                raise Fatal(f"{command[0]} is missing; install it and run this again")
            screen.say("setfacl is missing (package acl): files dropped by others may not be ours")
            continue
        found = subprocess.run(command, check=False, capture_output=True, text=True)
        if found.returncode != 0:
            raise Fatal(f"{unit.shown(command)}: {found.stderr.strip() or found.returncode}")
    screen.answer(f"{unit.NAME} is running; see: systemctl status {unit.NAME}")


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
