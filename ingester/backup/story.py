"""Making a backup: the order of these lines is what makes it whole at any moment.

    open       the folder: ours, this site's, alone
    snapshot   the index as it is now, checked, without its name
    compare    what it names with what is there
    copy       what is lacking; each file whole and durable before it has its name
    again      where the service replaced something meanwhile
    name       the index: every file that it names is there

Stopped or killed anywhere, the backup is the former one and some files more; the next
run goes on from there.  Nothing in a backup is ever deleted or overwritten but
derivatives, reasons of quarantined files and the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ingester import durable, site
from ingester.backup import plan as planning
from ingester.backup import snapshot
from ingester.backup.copying import Copier, Told, missing
from ingester.backup.destination import Destination, opened, remember
from ingester.backup.origin import INDEX, SPOOL, Origin, Wish, WishKind
from ingester.backup.plan import Plan
from ingester.check.findings import Finding, FindingKind, Progress
from ingester.errors import Fatal
from ingester.index.readers import Reader
from ingester.model import Clock, moment
from ingester.site import Space

#: How many files, or bytes, are given their names together.
_BATCH_FILES = 64
_BATCH_BYTES = 256 << 20
#: So often the index is looked at again for what was replaced while we copied.
_ROUNDS = 3
#: What must stay free on the backup's disk.
_MARGIN_BYTES = 16 << 20


@dataclass(slots=True)
class BackedUp:
    """What a backup holds now, and what this run did."""

    root: Path
    objects: int = 0  # that its index names
    present: int = 0  # of them were there already
    copied: int = 0  # files
    bytes_copied: int = 0
    mended: list[Finding] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    index_at: str = ""
    kept_aside: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How a person wants it.

    index_only : no files, the index alone
    checksum : read all that the backup has, and mend it
    is_new : DEST is a new disk, although a backup was there before
    """

    index_only: bool = False
    checksum: bool = False
    is_new: bool = False


def backup(
    origin: Origin,
    path: Path,
    options: Options,
    *,
    clock: Clock,
    progress: Progress,
    is_stopped: Callable[[], bool] = lambda: False,
) -> BackedUp:
    """Bring the backup at *path* up to date with the site; a service may run meanwhile.

    Raises
    ------
    Fatal : it cannot be made there, or not now; the sentence says why
    Corrupt : the index is damaged
    OSError : the disk of the backup does not let us
    KeyboardInterrupt : *is_stopped* said so
    """
    apart = site.why_apart(origin.spool, origin.archive)
    if apart is not None:
        raise Fatal(apart)
    with opened(path, origin, is_new=options.is_new) as destination:
        made = BackedUp(destination.root, notes=destination.notes)
        stamp = clock.now().strftime("%Y%m%dT%H%M%S%fZ")
        for turn in range(_ROUNDS):
            progress(0, None, "copying the index")
            _refuse_without_room(destination, snapshot.size_of(origin.index))
            made.index_at = moment(clock.now())
            copy = snapshot.take(origin.index, destination, is_stopped)
            with closing(Plan()) as plan, snapshot.read(copy) as reader:
                if options.index_only:
                    made.objects = planning.count(reader)
                    break
                made.objects = planning.make(
                    plan,
                    origin,
                    destination.root,
                    reader,
                    checksum=options.checksum and turn == 0,
                    changed=snapshot.changed(copy, destination.root / INDEX),
                    keeps_times=destination.marker.get("keeps_times", True),
                    is_stopped=is_stopped,
                    progress=progress,
                )
                made.findings = []  # what is still so is found again
                run = _Run(origin, destination, stamp, progress, is_stopped)
                if not run.copy(plan, made, is_last=turn == _ROUNDS - 1):
                    break
        _put_texts(origin, destination)
        made.kept_aside = snapshot.put(destination, copy, stamp)
        if made.kept_aside is not None:
            why = f"The former index is kept as {made.kept_aside.name}, and all files are."
            made.findings.append(Finding.of(FindingKind.FEWER_OBJECTS, INDEX, why))
        _record(origin, destination, made, is_whole=not options.index_only)
        return made


def _put_texts(origin: Origin, to: Destination) -> None:
    """Put what a person needs to read this backup where it lies, and to restore from it."""
    durable.make_folder(to.root / SPOOL, to.folder_mode)
    site_id = f"{to.marker['site']}\n".encode()
    for name in (site.SITE_NAME, f"{SPOOL}/{site.SITE_NAME}"):
        to.put_text(name, site_id)
    for name, text in origin.texts.items():
        to.put_text(name, text)


def _record(origin: Origin, to: Destination, made: BackedUp, *, is_whole: bool) -> None:
    to.write_marker(index_at=made.index_at, objects=made.objects)
    if is_whole:
        to.write_marker(objects_at=made.index_at, findings=len(made.findings))
        remember(origin, to.root, to.marker, made.notes)


def _refuse_without_room(destination: Destination, needed: int) -> None:
    """Refuse before anything is written what cannot fit; a disk that cannot tell may try."""
    space = Space.of(destination.root)
    if space.total_bytes and space.free_bytes < needed + _MARGIN_BYTES:
        raise Fatal(
            f"{destination.root} has no room: {needed + _MARGIN_BYTES:,} bytes are needed, "
            f"{space.free_bytes:,} are free; nothing was copied"
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """One turn of copying."""

    origin: Origin
    destination: Destination
    stamp: str
    progress: Progress
    is_stopped: Callable[[], bool]

    def copy(self, plan: Plan, made: BackedUp, *, is_last: bool) -> bool:
        """Copy what the plan lacks; True where the index must be looked at again."""
        _refuse_without_room(self.destination, plan.lacking_bytes)
        made.present = plan.present
        gone: list[Wish] = []
        done = 0
        copier = Copier(self.origin, self.destination, stamp=self.stamp, is_stopped=self.is_stopped)
        try:
            for batch in _batches(plan.wishes()):
                told = copier.copy(batch)
                done += len(batch)
                self._add(told, made)
                gone += told.gone
                self.progress(done, plan.count, f"{made.bytes_copied / 1e6:,.0f} MB")
        finally:
            copier.close()
            made.notes += [note for note in copier.notes if note not in made.notes]
            if copier.lost_times and self.destination.marker.get("keeps_times", True):
                self.destination.write_marker(keeps_times=False)
        return self._judge(gone, made, is_last=is_last)

    def _add(self, told: Told, made: BackedUp) -> None:
        made.copied += told.copied
        made.bytes_copied += told.bytes_copied
        made.present += told.present
        made.mended += told.mended
        made.findings += told.findings
        if told.gone and site.id_of(self.origin.archive) is None:
            raise Fatal(f"{self.origin.archive} has gone while it was copied; was it unmounted?")

    def _judge(self, gone: list[Wish], made: BackedUp, *, is_last: bool) -> bool:
        """Say what is missing; True where the live index has forgotten some of it, too."""
        if not gone:
            return False
        with Reader.open(self.origin.index) as live:
            stale = [wish for wish in gone if not is_last and not _is_named(live, wish)]
        made.findings += [missing(wish) for wish in gone if wish not in stale]
        return bool(stale)


def _is_named(live: Reader, wish: Wish) -> bool:
    """Return whether the index, as it is now, says that this file is there."""
    if wish.kind is WishKind.DERIVATIVE:
        return bool(live.rows("SELECT 1 FROM derivatives WHERE path = ?", (wish.path,)))
    if wish.kind is WishKind.QUARANTINED:
        arrival_id = wish.path.removeprefix(f"{SPOOL}/").split("/")[1]
        return bool(
            live.rows(
                "SELECT 1 FROM arrivals WHERE arrival_id = ? AND resolved_at IS NULL"
                " AND retried_as IS NULL AND outcome IN ('quarantined', 'foreign')",
                (arrival_id,),
            )
        )
    return True


def _batches(wishes: Iterator[Wish]) -> Iterator[list[Wish]]:
    batch: list[Wish] = []
    size = 0
    for wish in wishes:
        batch.append(wish)
        size += wish.size_bytes
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
