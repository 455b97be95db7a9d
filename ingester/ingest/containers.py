"""What one step of an archive file does to the disk and the index.

An archive file stays claimed while its members, unpacked below its claim a page at
a time, go through the line as claims of their own.  It is let go when every
member's row is committed; a replay unpacks only those that have none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from ingester import durable
from ingester.archive import remove_tree
from ingester.claims import arrived_at
from ingester.index.writer import Writer
from ingester.ingest.values import ArchiveProgress, IngestSettings, Item, Unpacking
from ingester.model import (
    ArrivalRecord,
    Claim,
    Clock,
    Outcome,
    Prepared,
    moment,
    type_json,
)
from ingester.unpack import ExtractRequest, Member, extract


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 where it is gone or no file."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def ask(
    head: Unpacking,
    pool: Executor,
    writer: Writer,
    settings: IngestSettings,
    on_ready: Callable[[], None],
) -> None:
    """Ask the pool to unpack the next page of an archive file, the rest of it later.

    Members that have a row already (an earlier run got so far) are not unpacked again.
    """
    if head.next is None or head.future is not None:
        return
    claim = head.item.claim
    folder = claim.folder / "members"
    if head.done is None:
        if folder.exists():
            remove_tree(folder)
        done = writer.finished_members(claim.arrival_id)
        head.done = frozenset(done)
        head.finished = head.given_out = len(done)
        head.finished_bytes = sum(done.values())
    durable.make_folder(folder, 0o770)
    request = ExtractRequest(
        path=str(claim.path),
        kind=head.container.kind,
        folder=str(folder),
        first=head.next,
        done=head.done,
        limits=settings.unpack_limits,
    )
    head.future = pool.submit(extract, request)
    head.future.add_done_callback(lambda _: on_ready())


def members(head: Unpacking) -> list[Item]:
    """Take the unpacked page: its members as items for the line."""
    assert head.future is not None
    try:
        page = head.future.result()
    except OSError:
        head.future = None  # to be asked again
        raise
    parent = head.item
    items = [
        Item(
            _claim(parent.claim, each),
            each.size_bytes,
            refusal=each.refusal,
            is_repeated=parent.is_repeated,
            is_awaited=parent.is_awaited,
        )
        for each in page.members
    ]
    # Only now, when nothing can fail any more, does the page count as taken.
    head.future = None
    head.next = page.next
    if page.next is not None and head.done:
        head.done = frozenset(each for each in head.done if each >= page.next.number)
    head.refusal = page.refusal
    head.survey = page.survey or head.survey
    head.given_out += len(items)
    head.under_way += len(items)
    return items


def _claim(parent: Claim, member: Member) -> Claim:
    """Return a member as a claim: its file lies beside the others until it is set apart."""
    folder = parent.folder / "members"
    return Claim(
        arrival_id=f"{parent.arrival_id}.{member.number:06d}",
        folder=folder,
        path=folder / f"{member.number:06d}=member" if member.path is None else Path(member.path),
        source=parent.source,
        batch=parent.batch,
        original_name=f"{parent.original_name}/{member.name}",
        arrived_at=arrived_at(parent.arrival_id),
        is_received=False,
        parent_id=parent.arrival_id,
        is_shared=True,
    )


def progress_of(head: Unpacking) -> ArchiveProgress:
    """Return how far an archive file is."""
    claim, survey = head.item.claim, head.survey
    return ArchiveProgress(
        arrival_id=claim.arrival_id,
        original_name=claim.original_name,
        source=claim.source,
        batch=claim.batch,
        members=head.finished,
        members_total=survey.members if survey is not None else None,
        bytes=head.finished_bytes,
        bytes_total=survey.total_bytes if survey is not None else None,
    )


def record(head: Unpacking, clock: Clock) -> ArrivalRecord:
    """Return the row of an archive file whose members all have theirs."""
    return unpacked(head.item, head.prepared, clock, {"members": head.finished})


def unpacked(
    item: Item, prepared: Prepared, clock: Clock, detail: dict[str, type_json]
) -> ArrivalRecord:
    """Return the row of a file that brought others along."""
    claim = item.claim
    return ArrivalRecord(
        arrival_id=claim.arrival_id,
        source=claim.source,
        batch=claim.batch,
        original_name=claim.original_name,
        arrived_at=claim.arrived_at,
        finished_at=moment(clock.now()),
        size_bytes=prepared.identity.size,
        sha256=prepared.sha256,
        outcome=Outcome.UNPACKED,
        detail=detail,
    )
