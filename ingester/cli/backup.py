"""`ingester backup`: a copy of the archive and its index elsewhere."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ingester import priority
from ingester.backup import BackedUp, Options, Origin
from ingester.backup import backup as copy_all
from ingester.cli import logs, screen
from ingester.cli.check import print_findings
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.progress import Progress
from ingester.cli.site import Site
from ingester.cli.stopping import asked_to_stop
from ingester.config import Settings
from ingester.config.text import toml_value
from ingester.model import SystemClock

_FOUND = 1
_STOPPED = 130

_CONFIG = """\
# Written by `ingester backup`: with it this backup is read, verified and rebuilt where it lies,
#     ingester --config {file} verify --checksum
# The site's own configuration is beside it, in site-ingest.toml.
"""


@click.command(
    epilog=example(
        "ingester backup /mnt/backup",
        "ingester backup /mnt/backup --checksum",
        "ingester --config /mnt/backup/ingest.toml verify",
    )
)
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--index-only", is_flag=True, help="Only the index: quick, to be run often.")
@click.option("--checksum", is_flag=True, help="Read all that the backup has, and mend it.")
@click.option("--new", is_flag=True, help="DEST is a new disk, where a backup was before.")
@as_json
@pass_site
def backup(
    site: Site, dest: Path, index_only: bool, checksum: bool, new: bool, as_json: bool
) -> None:
    """Copy the archive and its index to DEST, while the service runs.

    The first time everything is copied, later what is new. Each file is read back and
    compared with its SHA-256 before it gets its name; what is damaged in the archive is
    named, and never replaces a good copy. Nothing is ever deleted in DEST. Stopped at
    any time, it goes on when it is run again.

    DEST is a tree like the archive's, with an ordinary index.db and an ingest.toml to
    verify or rebuild it where it lies. Put it on another disk, better in another house.
    Exits with 1 where something could not be copied, with 2 where no backup was made.
    """
    logs.begin(site.settings, is_brief=True)
    if index_only and checksum:
        raise click.UsageError("choose --index-only or --checksum, not both")
    began = time.monotonic()
    origin = _origin(site.file, site.settings, dest)
    priority.step_back()
    try:
        with (
            asked_to_stop() as is_stopped,
            Progress("backup", "files", is_quiet=as_json) as progress,
        ):
            made = copy_all(
                origin,
                dest,
                Options(index_only=index_only, checksum=checksum, is_new=new),
                clock=SystemClock(),
                progress=progress.set,
                is_stopped=is_stopped,
            )
    except KeyboardInterrupt:
        screen.say("ingester: interrupted; what is copied stays, and the next backup goes on")
        click.get_current_context().exit(_STOPPED)
    seconds = time.monotonic() - began
    if as_json:
        screen.answer_json(_document(made, seconds, index_only=index_only))
    else:
        _print(made, seconds, index_only=index_only)
    if made.findings:
        click.get_current_context().exit(_FOUND)


def _origin(file: Path, settings: Settings, dest: Path) -> Origin:
    return Origin(
        archive=settings.archive.path,
        index=settings.index.path,
        spool=settings.spool.path,
        texts={
            "ingest.toml": _config_of_backup(settings, dest).encode(),
            "site-ingest.toml": file.read_bytes(),
        },
        others=tuple(share.path for share in settings.receiver.share),
        folder_mode=settings.archive.mode,
    )


def _config_of_backup(settings: Settings, dest: Path) -> str:
    """Return the text with which a backup is read: what `rebuild` asks of the site's own."""
    limits = settings.limits
    sections: dict[str, dict[str, Any]] = {
        "spool": {"path": ".spool", "default_source": settings.spool.default_source},
        "archive": {"path": "."},
        "index": {"columns": settings.index.columns, "snapshot": ""},
        "limits": {
            "object": f"{limits.object} B",
            "nesting": limits.nesting,
            "elements": limits.elements,
            "header": f"{limits.header} B",
        },
        "receiver.scp": {"enabled": False},
    }
    for name, source in settings.sources.items():
        sections[f"sources.{json.dumps(name)}"] = {
            "character_set": source.character_set,
            "issuer_of_patient_id": source.issuer_of_patient_id,
        }
    parts = [_CONFIG.format(file=dest.absolute() / "ingest.toml")]
    for heading, keys in sections.items():
        lines = [f"{key} = {toml_value(key, value)}" for key, value in keys.items()]
        parts.append("\n".join([f"[{heading}]", *lines, ""]))
    return "\n".join(parts)


def _document(made: BackedUp, seconds: float, *, index_only: bool) -> dict[str, Any]:
    return {
        "backup": str(made.root),
        "index_only": index_only,
        "index_at": made.index_at,
        "objects": made.objects,
        "present": made.present,
        "copied": made.copied,
        "bytes": made.bytes_copied,
        "seconds": round(seconds, 3),
        "kept_aside": str(made.kept_aside) if made.kept_aside is not None else None,
        "mended": [asdict(finding) for finding in made.mended],
        "findings": [asdict(finding) for finding in made.findings],
        "notes": made.notes,
    }


def _print(made: BackedUp, seconds: float, *, index_only: bool) -> None:
    for note in made.notes:
        screen.say(screen.printable(f"note: {note}"))
    print_findings([asdict(each) for each in made.mended], [asdict(each) for each in made.findings])
    holds = f"{made.root} holds the index of {screen.plural(made.objects, 'object')}"
    if index_only:
        screen.answer(screen.printable(f"{holds}, as of {made.index_at}; no files were copied"))
        return
    rate = made.bytes_copied / max(seconds, 0.001)
    copied = f"{screen.plural(made.copied, 'file')}, {screen.size(made.bytes_copied)}"
    screen.answer(screen.printable(f"{holds} and their files, as of {made.index_at}"))
    screen.answer(f"copied: {copied} in {seconds:,.1f} s, {screen.size(rate)}/s")
    if made.findings:
        screen.answer(
            f"{screen.plural(len(made.findings), 'file')} could not be copied: see above; "
            "`ingester verify --checksum` looks at the whole archive"
        )
