"""What the shell offers while somebody types: values out of the index and configuration.

Pressing Tab must never print an error, change anything or make anybody wait: whatever
goes wrong, nothing is offered.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import click
from click.shell_completion import CompletionItem

from ingester.cli.site import Site
from ingester.errors import IngesterError

_MOST = 50
_PATIENCE_MS = 200

#: What a shell would take for more than a part of a word; such a value has to be quoted.
_MEANT_FOR_THE_SHELL = re.compile(r"[\s|&;()<>$`\\\"'*?\[\]#~!{}]")


def _completing(sql: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completion of what *sql* finds: the value, and a word about it.

    `?1` stands for what is typed so far, `?2` for the text behind all that begins so.
    """

    def complete(
        ctx: click.Context, _parameter: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        try:
            return list(_found(ctx, sql, typed))
        except (IngesterError, OSError, sqlite3.Error, ValueError):
            return []  # see above

    return complete


def _found(ctx: click.Context, sql: str, typed: str) -> Iterator[CompletionItem]:
    from ingester.index.connection import connect_reader  # only where it is asked for

    path = _site(ctx).settings.index.path
    if not path.exists():
        return
    with closing(connect_reader(path)) as connection:
        connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        rows = connection.execute(f"{sql} LIMIT {_MOST}", (typed, f"{typed}\U0010ffff"))
        for value, about in rows:
            if value.isprintable() and not _MEANT_FOR_THE_SHELL.search(value):
                yield CompletionItem(value, help=about)


def _site(ctx: click.Context) -> Site:
    return Site(ctx.find_root().params.get("config"))


#: Study Instance UIDs, the latest studies first.
studies = _completing(
    "SELECT study_instance_uid, coalesce(study_date, '') FROM studies"
    " WHERE study_instance_uid >= ?1 AND study_instance_uid < ?2"
    " ORDER BY study_date DESC, study_instance_uid"
)
#: Studies about which something is undecided.
undecided_studies = _completing(
    "SELECT i.study_instance_uid, group_concat(DISTINCT p.kind) FROM problems AS p"
    " JOIN instances AS i ON i.instance_id = p.instance_id"
    " WHERE p.kind <> 'derivative' AND i.study_instance_uid >= ?1 AND i.study_instance_uid < ?2"
    " GROUP BY i.study_instance_uid ORDER BY i.study_instance_uid"
)
#: Arrivals that lie in quarantine.
quarantined = _completing(
    "SELECT arrival_id, reason FROM arrivals WHERE outcome IN ('quarantined', 'foreign')"
    " AND resolved_at IS NULL AND retried_as IS NULL AND arrival_id >= ?1 AND arrival_id < ?2"
    " ORDER BY arrival_id"
)
#: Arrivals that somebody has to decide about.
undecided = _completing(
    "SELECT arrival_id, coalesce(reason, outcome) FROM arrivals"
    " WHERE outcome IN ('quarantined', 'foreign', 'conflict') AND resolved_at IS NULL"
    " AND retried_as IS NULL AND arrival_id >= ?1 AND arrival_id < ?2 ORDER BY arrival_id"
)
#: Batches, the latest first.
batches = _completing(
    "SELECT batch, source FROM batches WHERE batch >= ?1 AND batch < ?2"
    " ORDER BY last_finished_at DESC"
)


def sources(ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the sources that the configuration declares, and its default one."""
    try:
        settings = _site(ctx).settings
    except (IngesterError, OSError, ValueError):
        return []
    names = [*settings.sources, settings.spool.default_source]
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(typed)]
