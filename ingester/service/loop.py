"""The main loop: one thread that looks, commits, answers and keeps the time.

Everything that writes the index or starts a process happens here, in small steps; the
threads and signal handlers around it only ring the bell.  `step` is the body of the
loop and never sleeps: a test can step a day of work with a clock of its own.

    service = Service(settings, spool, archive, clock, is_once=False)
    service.start()
    while not service.is_over:
        service.wake.wait(service.step())
    service.finish()
    service.close()
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Sequence

from ingester.archive import Archive
from ingester.completion import Completion, Key
from ingester.config import Settings
from ingester.control import Control, Document, Refused, Request
from ingester.errors import IngesterError, Retry
from ingester.hooks import Hooks
from ingester.index.connection import connect_reader
from ingester.ingest import ArchiveProgress
from ingester.model import ArrivalRecord, Clock, Origin, Outcome
from ingester.observe import described
from ingester.service import answers, rooms, status
from ingester.service.announce import Announcer
from ingester.service.disks import Disks
from ingester.service.index import Progress, held_log
from ingester.service.intake import Intake, Stopped
from ingester.service.notify import notify, watchdog_seconds
from ingester.service.receiving import Receivers
from ingester.service.snapshots import Snapshots
from ingester.service.timers import Timers
from ingester.service.waiting import lies_in_spool
from ingester.spool import Spool
from ingester.wake import Wake
from ingester.watch import Watcher

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
_SPACE_SECONDS = 5.0
_IDLE_SECONDS = 5.0
_TIDY_SECONDS = 2.0
_LONGEST_SLEEP = 60.0
#: How often the log tells of an index that takes long to be ready.
_TELL_SECONDS = 10.0
_MAKING_AGAIN = "making it again from the archive"
_FIRST_SANE_YEAR = 2020
_STORED = (Outcome.ARCHIVED, Outcome.VARIANT, Outcome.CONFLICT)


def _unpacking(archives: Sequence[ArchiveProgress]) -> str:
    """Return in words how far archive files are; no names, which may be patients'."""
    if not archives:
        return ""
    of = archives[-1]  # the innermost: it is the one that goes on
    total = f" of {of.members_total:,}" if of.members_total is not None else ""
    return f"unpacking: {of.members:,}{total} members of an archive file"


class Service:
    """One site at work; all methods on the main thread, the site held.

    Parameters
    ----------
    is_once : no receivers, no watcher, no waiting for what may never come
    progress : told (done, total or None, note) after each step
    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        archive: Archive,
        clock: Clock,
        *,
        is_once: bool,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.archive = archive
        self.clock = clock
        self.started_at = clock.now()
        self.wake = Wake()
        self.rates = status.Rates()
        self.watcher: Watcher | None = None
        self.is_stopping = False
        self._is_once = is_once
        self._idle_since: float | None = None  # with `is_once`
        self._progress = progress
        self._making_index = _MAKING_AGAIN
        self._tell_again_at = 0.0
        self._expected = 0  # files that lay in the spool at the start, for the progress
        self._must_look = True
        self._timers = Timers(clock)
        self._disks = Disks(settings)
        self._control: Control | None = None
        self._snapshots = Snapshots.of(settings, clock)
        self.receivers = Receivers(settings, spool, self._receiver_changed, self.wake.set)
        self.intake = Intake(
            settings,
            spool,
            archive,
            clock,
            is_impatient=is_once,
            on_ready=self.wake.set,
            on_recorded=self._recorded,
            on_opened=self._opened,
            meanwhile=self._meanwhile,
        )
        hooks = settings.hooks
        self._hooks = Hooks(
            {
                "study.complete": hooks.study_complete,
                "batch.complete": hooks.batch_complete,
                "arrival.quarantined": hooks.quarantined,
            },
            on_end=self.wake.set,
        )
        self._announcer = Announcer(
            lambda: self.intake.writer,
            lambda: connect_reader(settings.index.path),
            archive.root,
            Completion(quiet=hooks.study_quiet, at_most=settings.spool.incomplete_after),
            self._hooks,
            clock,
            is_waiting=self._is_waiting,
        )

    # ---------------------------------------------------------------- beginning

    def start(self) -> None:
        """Begin in the order that loses nothing; returns when the loop may turn.

        Folders wiped of half-received files, receivers (they need the spool alone, and
        go on while an index is rebuilt), index, what a crash left claimed, watches, and
        only then the first look.
        """
        if self.started_at.year < _FIRST_SANE_YEAR:
            log.warning("the clock says %s; is it set?", self.started_at.date())
        rooms.make_folders(self.settings, self.spool, self.archive)
        self._snapshots.tidy()
        self._control = Control(
            self.archive.root,
            on_request=self.wake.set,
            mode=0o660 if self.settings.spool.group else 0o600,
        )
        if not self._is_once:
            self.receivers.start()
        self._look_at_disks()
        if self._progress is not None:
            self._expected = sum(1 for _ in self.spool.look())
        self.intake.open()
        if not self._is_once:
            self.watcher = Watcher(
                rooms.watched_folders(self.settings),
                choice=self.settings.spool.watch,
                on_event=self._look_soon,
            )
            self.watcher.refresh()
        self._set_timers()
        notify("READY=1")

    def _opened(self) -> None:
        self._announcer.recall()

    def _set_timers(self) -> None:
        timers, settings = self._timers, self.settings
        timers.every(settings.spool.rescan, self._rescan)
        timers.every(_SPACE_SECONDS, self._look_at_disks)
        timers.every(_TIDY_SECONDS, self._tidy)
        timers.every(_IDLE_SECONDS, self._settle_when_idle)
        if settings.index.snapshot is not None:
            timers.every(settings.index.snapshot, self._snapshots.take)
        watchdog = watchdog_seconds()
        if watchdog is not None:
            timers.every(watchdog, lambda: notify("WATCHDOG=1"))

    # --------------------------------------------------------------------- loop

    @property
    def is_over(self) -> bool:
        """Return whether the loop has nothing more to do."""
        if self.is_stopping:
            return True
        if not self._is_once or not self.intake.is_idle or self._must_look:
            self._idle_since = None
            return False
        now = self.clock.monotonic()
        self._idle_since = self._idle_since or now
        # Folders that we emptied are removed before the end, unless somebody fills them.
        return self.spool.is_tidy or now - self._idle_since > 2 * _TIDY_SECONDS

    def step(self) -> float:
        """Do what is due; returns how many seconds to sleep unless rung."""
        self._timers.run()
        self._notice()
        look, self._must_look = self._must_look, False
        is_busy, wake_at = self.intake.step(look=look)
        if self.intake.ingest is None:
            self._must_look = True  # once it is open again
        if self._idle_since is not None:
            self._tidy()
        self._answer_requests()
        self._announce()
        now = self.clock.monotonic()
        self.rates.add(now, *self.counts)
        self._tell_progress()
        if is_busy or (self._must_look and self.intake.ingest is not None):
            return 0.0
        times = [
            wake_at,
            self._timers.next_at(),
            self._announcer.next_due(),
            self.watcher.next_poll() if self.watcher is not None else None,
            self.receivers.next_at(now),
        ]
        due = min((at for at in times if at is not None), default=now + _LONGEST_SLEEP)
        return min(max(0.0, due - now), _LONGEST_SLEEP)

    def _notice(self) -> None:
        """See to receivers and watches; a look is due where they say so."""
        if self.receivers.poll():
            self._must_look = True
        if self.watcher is None:
            return
        if self.watcher.needs_refresh:
            self.watcher.refresh()
            self._must_look = True
        if self.watcher.poll(self.clock.monotonic()):
            self._must_look = True

    def _look_soon(self) -> None:
        self._must_look = True
        self.wake.set()

    def _recorded(self, records: Sequence[ArrivalRecord]) -> None:
        self._announcer.saw(records)

    def _rescan(self) -> None:
        if self.watcher is not None:
            self.watcher.refresh()
        self._must_look = True

    def _look_at_disks(self) -> None:
        for name, detail in self._disks.look():
            self._announcer.add("disk.low", {"disk": name, **detail})
            log.warning("disk low: %s has %d bytes free", detail["path"], detail["free_bytes"])
        self.intake.pause(self._disks.sentence)

    def _tidy(self) -> None:
        """Remove folders that we emptied, once nobody copies into them any more."""
        before = self.clock.now().timestamp() - _TIDY_SECONDS
        self.spool.tidy(older_than_ns=int(before * 1e9))

    def _settle_when_idle(self) -> None:
        writer = self.intake.writer
        if writer is None or not (writer.has_log and self.intake.is_idle):
            return
        try:
            writer.checkpoint(idle=True)
        except Retry as error:
            log.warning("the index's log cannot be emptied now: %s", error)
        self._snapshots.take_first()

    def _announce(self, *, is_last: bool = False) -> None:
        try:
            if is_last:
                self._announcer.conclude()
            else:
                self._announcer.step()
        except (OSError, sqlite3.OperationalError) as error:
            log.warning("what is complete cannot be told now: %s", described(error))

    def _is_waiting(self, key: Key, origin: Origin) -> bool:
        ingest = self.intake.ingest
        if ingest is None or self.receivers.has_association(key, origin):
            return True
        # What storescp dropped gets its true source when it is read.
        dcmtk = self.settings.receiver.dcmtk
        sources = {origin[0], dcmtk.source} if dcmtk.enabled else {origin[0]}
        under_way = ingest.batches_under_way()
        return any(
            (source, origin[1]) in under_way or lies_in_spool(self.spool, (source, origin[1]))
            for source in sources
        )

    def _receiver_changed(self, name: str, sentence: str, *, is_up: bool) -> None:
        kind = "receiver.up" if is_up else "receiver.down"
        self._announcer.add(kind, {"receiver": name, "message": sentence})
        if is_up:
            log.info("receiver %s: %s", name, sentence)
        else:
            log.error("receiver %s is down: %s", name, sentence)

    def _tell_progress(self) -> None:
        if self._progress is None or self.intake.ingest is None:
            return
        ingest, deriving = self.intake.ingest, self.intake.deriving
        waiting = ingest.claimed + ingest.waiting + ingest.to_come
        arrived = ingest.counts.arrived
        counts = deriving.counts if deriving is not None else None
        if waiting or counts is None or self.intake.trouble:
            total = max(self._expected, arrived + waiting)
            self._progress(arrived, total, self.intake.trouble or _unpacking(ingest.archives))
        elif deriving is not None and not deriving.is_idle:
            made = counts.thumbnails + counts.failures
            stored = sum(ingest.counts.outcomes[each] for each in _STORED)
            self._progress(made, max(stored, made), "making thumbnails and videos")

    def _meanwhile(self, done: int, total: int | None, note: str) -> None:
        """Serve receivers, systemd and questions while the index is rebuilt or filled."""
        if self.is_stopping:
            raise Stopped("stopped while the index was being made ready; nothing is lost")
        of_all = f" of {total:,}" if total is not None else ""
        self._making_index = f"{note or _MAKING_AGAIN} ({done:,}{of_all})"
        now = self.clock.monotonic()
        if now >= self._tell_again_at:
            self._tell_again_at = now + _TELL_SECONDS
            log.info("index: %s", self._making_index)
        self._stay_alive()
        self._answer_requests()
        if self._progress is not None:
            self._progress(done, total, note or _MAKING_AGAIN)

    def _stay_alive(self) -> None:
        """Do what cannot wait while something long is done: receivers, systemd."""
        if self.receivers.poll():
            self._must_look = True
        notify("WATCHDOG=1")

    # ---------------------------------------------------------------- questions

    def _answer_requests(self) -> None:
        if self._control is None:
            return
        for request in self._control.requests():
            try:
                request.answer(self._answer(request))
            except IngesterError as error:
                request.refuse(str(error))
            except (OSError, sqlite3.Error) as error:
                log.warning("%s: %s", request.command, described(error))
                request.refuse(getattr(error, "strerror", None) or type(error).__name__)

    def _answer(self, request: Request) -> Document:
        if request.command == "status":
            return status.of_service(self)
        if self.intake.writer is None:
            raise Refused("the index is not open yet; ask a little later (see: ingester status)")
        if request.command == "look":
            self._look_soon()
            return {}
        answer = answers.ANSWERS.get(request.command)
        if answer is None:
            raise Refused(f"the service knows no question {request.command}")
        document = answer(
            answers.OpenSite(
                self.spool,
                self.archive,
                self.intake.writer,
                self.clock,
                self.settings,
                meanwhile=self._stay_alive,
            ),
            request.arguments,
        )
        self._look_soon()
        if self.intake.deriving is not None:
            self.intake.deriving.look_again()
        return document

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many files and bytes met an outcome since the start."""
        files, size_bytes = self.intake.counts_before
        if self.intake.ingest is not None:
            files += self.intake.ingest.counts.arrived
            size_bytes += self.intake.ingest.counts.bytes
        return files, size_bytes

    @property
    def troubles(self) -> list[str]:
        """Return what holds things up, in sentences."""
        deriving = self.intake.deriving
        found = [self.intake.trouble, deriving.trouble if deriving is not None else None]
        if self.intake.writer is None and self.intake.trouble is None:
            found.append(f"the index is not ready: {self._making_index}; files wait")
        found.append(held_log(self.intake.writer))
        found += [f"the disk of the {name} is nearly full" for name in self._disks.low]
        files = [f"{path}: {why}" for path, why in sorted(self.spool.troubles.items())]
        return [each for each in found if each] + files

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """Ask the loop to end; safe in a signal handler."""
        self.is_stopping = True
        self.wake.set()

    def finish(self) -> None:
        """Finish what is claimed, within the time that systemd and people grant."""
        notify("STOPPING=1")
        end = self.clock.monotonic() + DRAIN_SECONDS
        self.receivers.stop(DRAIN_SECONDS / 2)
        if self.watcher is not None:
            self.watcher.close()
            self.watcher = None
        if self.is_stopping:
            left = max(0.0, end - self.clock.monotonic() - 1.0)
            if not self.intake.drain(left):
                log.info("what is claimed and not finished is taken up at the next start")
        is_done = self._is_once and not self.is_stopping
        self._announce(is_last=is_done)
        self._tidy()
        self._settle_when_idle()
        self._take_last_snapshot(end)
        self._see_hooks_off(None if is_done else end)

    def _see_hooks_off(self, end: float | None) -> None:
        """Let hooks run to their ends, or until *end* (monotonic); each has its own limit."""
        while self._hooks.is_busy:
            now = self.clock.monotonic()
            if (end is not None and now >= end) or (end is None and self.is_stopping):
                log.warning("hooks that had not ended are ended with the service")
                return
            self._hooks.step(now)
            due = min(self._hooks.next_deadline() or now, end or math.inf)
            if self._hooks.is_busy:
                self.wake.wait(max(0.0, due - now))

    def _take_last_snapshot(self, end: float) -> None:
        """Leave a copy of the index as it is now, if there is time for it until *end*.

        `run --once` has the time to copy a large index too, once its copy is old.
        """
        if self.intake.writer is None:
            return
        self._snapshots.take_if_quick()
        if self._is_once and not self.is_stopping:
            self._snapshots.take_if_old()
            self._snapshots.finish(None, lambda: self.is_stopping)
        elif self._snapshots.is_quick:
            self._snapshots.finish(max(0.0, end - self.clock.monotonic() - 3.0))
        else:
            self._snapshots.finish(0.0)  # it would hardly be ready in time

    def close(self) -> None:
        """Give everything back; also after an error, and at once."""
        if self._control is not None:
            self._control.close()
            self._control = None
        self.receivers.stop(0.0)
        if self.watcher is not None:
            self.watcher.close()
            self.watcher = None
        self._hooks.close()
        self.intake.close()
        self._snapshots.finish(0.0)
        self.wake.close()
