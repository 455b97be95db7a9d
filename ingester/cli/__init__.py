"""The command line: the only code that prints and exits.

`main` is the program.  Each command lives in a module with its kin, which is only
imported when that command is asked for, so that `ingester --help` answers at once.
Answers go to standard output, progress and errors to standard error; `--json` prints
one JSON document on standard output and nothing else.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

from ingester import __version__
from ingester.cli.site import Site
from ingester.errors import Fatal, IngesterError

#: Every command: where it lives, and the line `ingester --help` shows.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("setup:init", "Make a site: ingest.toml, spool, archive."),
    "run": ("run:run", "Run the service: receivers, watcher, ingest, derivatives."),
    "demo": ("demo:demo", "Send two made images through the receiver and show the result."),
    "convert": ("convert:convert", "Convert one DICOM file to MP4 or JPEG, without any site."),
    "import": ("bring:bring", "Bring files, folders, archives and CDs into the archive."),
    "status": ("status:status", "Show what waits, what was archived, and what is wrong."),
    "receipt": (
        "receipt:receipt",
        "Say what became of every file of a batch, and what is missing.",
    ),
    "find": ("find:find", "Find studies by name, ID, accession, description, date, modality."),
    "show": ("show:show", "Show a study, a series or an instance."),
    "sql": ("sql:sql", "Ask the index with read-only SQL."),
    "quarantine": ("quarantine:quarantine", "List the files that could not be archived."),
    "retry": ("quarantine:retry", "Send quarantined files back."),
    "resolve": ("resolve:resolve", "Decide about quarantined files, conflicts, contradictions."),
    "derive": ("derive:derive", "Make thumbnails and videos again."),
    "verify": ("check:verify", "Compare archive and index, both ways."),
    "rebuild": ("rebuild:rebuild", "Make the index again from the archive."),
    "backup": ("backup:backup", "Copy archive and index elsewhere, while the service runs."),
    "doctor": ("doctor:doctor", "Look what is wrong with this machine or configuration."),
    "service": ("setup:service", "Print or install a systemd unit for this site."),
}

COULD_NOT_RUN = 2

#: What Ctrl-C means for a command that changes something.
_INTERRUPTED = {
    **dict.fromkeys(
        ("run", "import", "derive", "demo"),
        "interrupted; what was claimed is finished by the next run",
    ),
    "rebuild": "interrupted; the old index is as it was",
}


class Commands(click.Group):
    """A group that imports a command's module only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click passes it
        """Return the names in the order of a newcomer's day."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click passes it
        cmd_name: str,
    ) -> click.Command | None:
        """Return the command, imported now; None where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"ingester.cli.{module}"), name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click passes it
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of commands from the table alone, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # only a mistyped command pays for it

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see ingester --help"
            raise click.UsageError(f"there is no command {args[0]}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that is ours to explain becomes one sentence."""
        try:
            return super().invoke(ctx)
        except Fatal as error:
            _complain(str(error))
            ctx.exit(COULD_NOT_RUN)
        except IngesterError as error:
            _complain(" ".join(filter(None, (str(error), getattr(error, "remedy", None)))))
            ctx.exit(getattr(ctx, "refused_exit", COULD_NOT_RUN))
        except KeyboardInterrupt:
            _complain(_INTERRUPTED.get(ctx.invoked_subcommand or "", "interrupted"))
            ctx.exit(130)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            is_shut = isinstance(error, PermissionError)
            hint = "; run it as the service's own user, or one of its group" if is_shut else ""
            _complain(f"{where}{error.strerror or error}{hint}")
            ctx.exit(COULD_NOT_RUN)


def _complain(sentence: str) -> None:
    for line in sentence.splitlines():
        click.echo(f"ingester: {line}", err=True)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start here: ingester run, then ingester demo. Each command has its own --help.\n\n"
    "\b\nTab completes in bash after this (zsh, fish: docs/commands.md):\n"
    '  eval "$(_INGESTER_COMPLETE=bash_source ingester)"',
)
@click.option(
    "--config",
    metavar="FILE",
    help="The configuration; else $INGEST_CONFIG, else ./ingest.toml.",
)
@click.version_option(__version__, prog_name="ingester", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, config: str | None) -> None:
    """One drop folder becomes a DICOM archive: files, a SQLite index and pictures."""
    ctx.obj = Site(config)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding cannot show must not end the program.
            stream.reconfigure(errors="backslashreplace")
