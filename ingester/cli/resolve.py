"""`ingester resolve`: a person's decision, and where it is written down."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence

import click

from ingester.cli import completing, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.control import Document
from ingester.index.named import NotNamed, named

_NOT_ALL = 1
_MOST_SAID = 20


@click.command(
    epilog=example(
        "ingester resolve 00063a1f2b3c4d5e6f708192 --note 'damaged on the CD, no other copy'",
        "ingester resolve 00063a1f2b3c4d5e6f708192 --discard",
        "ingester resolve --study 1.2.840.113619.2.55.3 --make-current --note 'name corrected'",
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=completing.undecided)
@click.option(
    "--study",
    metavar="UID",
    shell_complete=completing.undecided_studies,
    help="All undecided conflicts and contradictions of a study.",
)
@click.option("--discard", is_flag=True, help="Remove quarantined files for good.")
@click.option("--make-current", is_flag=True, help="Let the other version be the current one.")
@click.option("--note", metavar="TEXT", help="Why: kept with the decision.")
@as_json
@pass_site
def resolve(
    site: Site,
    ids: tuple[str, ...],
    study: str | None,
    discard: bool,
    make_current: bool,
    note: str | None,
    as_json: bool,
) -> None:
    """Decide about what `status` and `quarantine` show as a problem.

    ID is an arrival's id or its beginning, or a SOP Instance UID. Without an option
    things are accepted as they are: a quarantined file stays where it is, of a conflict
    both versions stay; neither is a problem any more. With --make-current the other
    version becomes the current one, and study and patient show what it says. No archived
    version is ever removed. Who decided, when and why is kept, and shown by
    `ingester show`. On a terminal --discard asks before it removes anything. Exits with 1
    where something could not be decided so.
    """
    if not ids and study is None:
        raise click.UsageError(
            "name arrivals by their ID (see ingester quarantine, ingester status), "
            "or a study with --study UID"
        )
    if discard and make_current:
        raise click.UsageError("choose --discard or --make-current, not both")
    words = [last_part(text) for text in ids]
    if discard and ids and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        _ask(site, words)
    told = site.perform(
        "resolve",
        ids=list(dict.fromkeys(words)),
        study=study,
        discard=discard,
        make_current=make_current,
        note=note,
        by=login_name(),
    )
    if as_json:
        screen.answer_json(told)
    else:
        _print(told, discard=discard, make_current=make_current)
    if told["failed"]:
        click.get_current_context().exit(_NOT_ALL)


def last_part(text: str) -> str:
    """Return the id where somebody named the folder in quarantine, by its path."""
    return text.rstrip("/").rpartition("/")[2]


def login_name() -> str:
    """Return who is at the keyboard: also where they became another user by sudo."""
    by_sudo = os.environ.get("SUDO_USER")
    if by_sudo:
        return by_sudo
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _ask(site: Site, words: Sequence[str]) -> None:
    """Show what is about to be removed, and let a person think again."""
    found = []
    with open_index(site.settings) as index:
        for text in words:
            try:
                found += named(index.connection, text, "discard")
            except NotNamed:
                continue  # the answer will say so
        rows = [index.arrival(arrival_id) for arrival_id in dict.fromkeys(found)]
    shown = [row for row in rows if row is not None]
    screen.table(
        ["id", "outcome", "reason", "batch", "name", "size"],
        [
            [row[name] for name in ("arrival_id", "outcome", "reason", "batch", "original_name")]
            + [screen.size(row["size_bytes"])]
            for row in shown[:_MOST_SAID]
        ],
        to_stderr=True,
    )
    count = screen.plural(len(shown), "file")
    click.confirm(f"Remove {count} for good? There is no copy of what was quarantined", abort=True)


def _print(told: Document, *, discard: bool, make_current: bool) -> None:
    done = "is settled, and stays as it is"
    if discard:
        done = "is removed"
    elif make_current:
        done = "is settled: what it brought is the current version"
    _say_each(told["resolved"], done)
    _say_each(told["resolved_before"], "was settled so before")
    _say_each([f"study {uid}" for uid in told["studies"]], "is settled")
    _say_each([f"study {uid}" for uid in told["studies_before"]], "had nothing undecided")
    for where in told["stay"]:
        screen.answer(f"the file itself never came here; it lies in {screen.printable(where)}")
    for each in told["failed"]:
        screen.say(screen.printable(f"{each['id']}: {each['message']}"))


def _say_each(names: Sequence[str], what: str) -> None:
    for name in names[:_MOST_SAID]:
        screen.answer(f"{name} {what}")
    if len(names) > _MOST_SAID:
        screen.answer(f"and {len(names) - _MOST_SAID:,} more")
