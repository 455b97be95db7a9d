"""Options that several commands share, and the command class with its exit code."""

from __future__ import annotations

import click

from ingester.cli.site import Site

#: Passes the `Site` as the first argument.
pass_site = click.make_pass_decorator(Site)

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


def example(*lines: str) -> str:
    """Return the examples of a command, kept as they are below its help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
