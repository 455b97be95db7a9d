"""The index from the archive alone, into a new file that then takes the old one's place.

    note        the tree's files, and what the old index knows, where it can be read
    order       as the old index had them; what it does not know by (file time, path)
    read        the same `prepare` as for a file that arrives
    record      the same `Writer.record`
    carry over  what no file can tell, from the old index, and what people added to it
    compare     the new index with the old one
    swap        old files aside together, the new one in; nothing is deleted

With a whole old index at hand the new one has the same rows with the same keys.  A
crash before the swap leaves the old index untouched; the next attempt starts anew.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from ingester.archive import Archive
from ingester.check import swap
from ingester.check.additions import Carried, carry_additions
from ingester.check.aside import take_in_media
from ingester.check.carry import carry_over
from ingester.check.differences import Difference, compared
from ingester.check.findings import Finding, FindingKind, Progress
from ingester.check.former import FormerIndex
from ingester.check.notes import Known, Notes
from ingester.check.objects import Defaults, Found, ObjectReader, Pool, home_of, no_defaults
from ingester.check.repair import as_conflict, take_in
from ingester.check.replay import Replay
from ingester.check.tree import FileKind, all_files
from ingester.check.verify import our_names
from ingester.check.versions import tell_variants
from ingester.index.writer import Writer
from ingester.kept import kept as kept_media
from ingester.model import ArrivalRecord, Clock, Outcome, Version
from ingester.prepare import Limits
from ingester.quarantine import Quarantined
from ingester.spool import QUARANTINE

log = logging.getLogger(__name__)

_BATCH = 256
_GONE = (
    "The old index has this object, but its file is gone: it has no row any more. Restore the "
    "file from a backup and run `verify --repair`, or send it again."
)
_CHANGED = (
    "The file is not byte for byte what was archived, says the old index, and its row goes on to "
    "say so. Restore it from a backup, or remove it and send it again."
)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild made, what it could not take in, and what it had of the old index.

    `carried` counts rows by table, `gone_derivatives` those of thumbnails and videos whose
    file is gone, so that they are made again.  `damaged` names tables of the old index with
    gaps, all of them where none could be read; a page that denies its rows leaves no gap to
    see, and is told by `is_damaged` alone.  `differences` is None where there was no whole one.
    `lost` says what people had added to the old index and could not be made again.
    """

    objects: int
    findings: tuple[Finding, ...]
    carried: Mapping[str, int]
    kept_aside: Path | None
    gone_derivatives: int = 0
    former: Path | None = None
    is_damaged: bool = False
    damaged: tuple[str, ...] = ()
    differences: Mapping[str, Difference] | None = None
    lost: tuple[str, ...] = ()


def rebuild(
    archive_root: Path,
    index: Path,
    *,
    clock: Clock,
    spool: Path | None = None,
    columns: Sequence[str] = (),
    progress: Progress | None = None,
    executor: Callable[[], Executor] | None = None,
    defaults: Defaults = no_defaults,
    limits: Limits | None = None,
    mode: int = 0o640,
) -> Rebuilt:
    """Make the index again from the archive's tree, and put it in the old one's place.

    Nobody else may have the index open for writing.

    Parameters
    ----------
    spool : where set, quarantined files that no index knows get their row too
    columns : keywords with a column of their own; those that the old index had stay
    executor : makes what reads objects in other processes; None reads them here
    defaults : what the files of a source leave out, as for the ingest

    Raises
    ------
    Retry
        The disk does not let us; the old index is untouched.
    Fatal
        What lies in the index's place is a database of somebody else.
    """
    new = swap.scratch(index, "")
    with ExitStack() as stack:
        swap.tidy(index)
        stack.callback(swap.tidy, index)
        former = stack.enter_context(
            closing(FormerIndex.open(swap.latest(index), swap.scratch(index, "-former")))
        )
        notes = stack.enter_context(closing(Notes(swap.scratch(index, "-notes"))))
        pool = stack.enter_context(closing(Pool(executor)))
        findings = _note_tree(archive_root, our_names(archive_root, index), notes)
        former.tell(notes)
        with closing(
            Writer.open(new, columns=[*former.promoted_keywords(), *columns], mode=mode)
        ) as writer:
            reader = ObjectReader(archive_root, defaults, limits or Limits(), pool)
            replay = Replay.of(former, writer, lambda source: defaults(source)[1])
            filling = _Filling(writer, reader, notes, replay, progress)
            filling.fill()
            carried = carry_over(former, writer, notes)
            findings += filling.findings
            findings += [
                Finding(FindingKind.MISSING_OBJECT, path, _GONE) for path in notes.missing()
            ]
            media = list(kept_media(Archive(archive_root)))
            findings += take_in_media(archive_root, writer, media)
            if spool is not None:
                findings += _take_in_quarantine(writer, spool / QUARANTINE)
            objects = writer.run_in_transaction(_count)
            writer.checkpoint(idle=True)
        former.close()
        added = carry_additions(former.path, new) if former.was_there else Carried()
        if added.count:
            carried.rows["additions"] = added.count
        differences = _differences(former, new)
        kept = swap.swap(new, index, clock.now())
    return Rebuilt(
        objects=objects,
        findings=tuple(findings),
        carried=carried.rows,
        gone_derivatives=carried.gone_derivatives,
        kept_aside=kept,
        former=former.path if former.was_there else None,
        is_damaged=former.was_there and not former.is_whole,
        damaged=tuple(sorted(former.damaged)),
        differences=differences,
        lost=tuple(added.lost),
    )


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM instances").fetchone()[0])


def _note_tree(root: Path, ours: frozenset[str], notes: Notes) -> list[Finding]:
    strays: list[Finding] = []

    def files() -> Iterator[tuple[str, int, bool]]:
        for path, status, kind in all_files(root, ours):
            if kind is FileKind.STRAY:
                strays.append(Finding.of(FindingKind.STRAY_FILE, path))
            elif kind is not FileKind.DAMAGED:
                yield path, status.st_mtime_ns, kind is FileKind.OBJECT

    notes.add_files(files())
    return strays


@dataclass(slots=True)
class _Filling:
    """Takes the objects of the tree in, each as it was."""

    writer: Writer
    reader: ObjectReader
    notes: Notes
    replay: Replay
    progress: Progress | None
    done: int = 0
    findings: list[Finding] = field(default_factory=list)
    _misplaced: dict[str, Finding] = field(default_factory=dict)
    _put_off: list[str] = field(default_factory=list)
    _versions: list[str] = field(default_factory=list)
    _next_id: int | None = None

    def fill(self) -> None:
        """Take all of them in."""
        largest = self.notes.largest_id
        self._next_id = largest + 1 if largest else None
        self._take_in(self.notes.in_order(), self._remembered)
        # Last, so that of two copies the one in the right place is the first.
        copies = self._take_in(self._put_off, self._misplaced_one)
        for path in copies:
            del self._misplaced[path]
        self.findings += self._misplaced.values()
        tell_variants(self.writer, self.reader, self._versions)
        self.replay.rest()

    def _take_in(
        self, paths: Iterable[str], remember: Callable[[Found], Found | None]
    ) -> list[str]:
        """Take files in; returns those that are mere copies of others."""
        copies: list[str] = []
        read = self.reader.read(paths)
        total = self.notes.objects
        for found in self._batches(each for each in map(remember, read) if each is not None):
            refused = take_in(self.writer, found, announce=False)
            self.findings += refused
            for each in refused:
                if each.kind is FindingKind.SECOND_CURRENT:
                    self._versions.append(each.path)
                elif each.kind is FindingKind.SECOND_COPY:
                    copies.append(each.path)
            self.done += len(found)
            if self.progress is not None:
                self.progress(self.done, total, "")
        return copies

    def _batches(self, found: Iterator[Found]) -> Iterator[list[Found]]:
        """Yield objects together, but not across a decision, which is taken between them."""
        batch: list[Found] = []
        for each in found:
            instance_id = each.record.instance_id if each.record is not None else None
            is_due = self.replay.is_due(instance_id)
            if batch and (is_due or len(batch) == _BATCH):
                yield batch
                batch = []
            if is_due and instance_id is not None:
                self.replay.until(instance_id)
            batch.append(each)
        if batch:
            yield batch

    def _remembered(self, found: Found) -> Found | None:
        """Return an object as the old index knew it; None puts it off."""
        record = found.record
        if record is None or record.stored is None:
            return found
        known = self.notes.recall(found.path, record.stored.sha256)
        if known is not None:
            record = self._as_before(record, known)
        if home_of(record) != found.path:
            why = f"It belongs at {home_of(record)}"
            self._misplaced[found.path] = Finding.of(FindingKind.MISPLACED, found.path, why)
        if known is not None:
            return replace(found, record=record)
        if found.path in self._misplaced:
            self._put_off.append(found.path)
            return None
        return replace(found, record=self._as_new(record))

    def _misplaced_one(self, found: Found) -> Found:
        if found.record is None:
            return found
        return replace(found, record=self._as_new(found.record))

    def _as_new(self, record: ArrivalRecord) -> ArrivalRecord:
        """Return the record of an object that the old index does not know."""
        instance, stored = record.instance, record.stored
        assert instance is not None
        assert stored is not None
        if self._next_id is not None:
            # Never a number that meant another object before.
            record = replace(record, instance_id=self._next_id)
            self._next_id += 1
        if stored.version is Version.CONFLICT:
            self._versions.append(stored.path)
        elif self.notes.current_of(instance.sop_instance_uid) is not None:
            self._versions.append(stored.path)
            self.findings.append(Finding.of(FindingKind.SECOND_CURRENT, stored.path))
            return as_conflict(record)
        return record

    def _as_before(self, record: ArrivalRecord, known: Known) -> ArrivalRecord:
        """Return the record of an object with what the old index knew of it."""
        stored = record.stored
        assert stored is not None
        outcome = _outcome(known, record.outcome)
        if known.sha256 != stored.sha256:
            self.findings.append(Finding(FindingKind.WRONG_CHECKSUM, stored.path, _CHANGED))
            stored = replace(
                stored,
                sha256=known.sha256,
                size_bytes=known.size_bytes or stored.size_bytes,
                data_set_sha256=known.data_set_sha256 or stored.data_set_sha256,
            )
        stored = replace(
            stored,
            archived_at=known.archived_at or stored.archived_at,
            version=self._version_before(stored.path, known, outcome),
        )
        if known.version is None and known.outcome is None and "~" in stored.path:
            self._versions.append(stored.path)
        return replace(
            record,
            arrival_id=known.arrival_id or record.arrival_id,
            instance_id=known.instance_id,
            sha256=stored.sha256,
            outcome=outcome,
            stored=stored,
        )

    def _version_before(self, path: str, known: Known, outcome: Outcome) -> Version:
        """Return which version an object was: of decided ones, before anybody decided."""
        if known.version and not (known.outcome is not None and self.replay.is_about(path)):
            return Version(known.version)
        return _version(outcome)


def _outcome(known: Known, by_name: Outcome) -> Outcome:
    """Return what brought an object in: what is known of it, else what its name says."""
    if known.outcome is not None:
        return Outcome(known.outcome)
    return Outcome.VARIANT if known.version == Version.VARIANT else by_name


def _version(outcome: Outcome) -> Version:
    return Version.CURRENT if outcome is Outcome.ARCHIVED else Version(outcome.value)


def _take_in_quarantine(writer: Writer, folder: Path) -> list[Finding]:
    """Give quarantined files that no index knows their row again."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    known = writer.finished(names)
    told = {name: Quarantined.read(folder / name) for name in names if name not in known}
    writer.record([each.as_record() for each in told.values() if each], announce=False)
    return [
        Finding.of(FindingKind.QUARANTINED_WITHOUT_ROW, f"{QUARANTINE}/{name}")
        for name, each in told.items()
        if each is None
    ]


def _differences(former: FormerIndex, new: Path) -> Mapping[str, Difference] | None:
    """Compare the new index with the old one, where that is whole."""
    if former.database is None or not former.is_whole:
        return None
    found = compared(former.database, new)
    damaged = {table for table, each in found.items() if each.is_damaged}
    former.losses.tables |= damaged
    return None if damaged else found
