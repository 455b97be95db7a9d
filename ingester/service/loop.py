"""The main loop: one thread that looks, commits, answers and keeps the time.

Everything that writes the index or starts a process happens here, in small steps; the
threads and signal handlers around it only ring the bell.  `step` is the body of the
loop and takes no time of its own: a test can step a day of work without sleeping.

    with opened(settings, ...) as service:
        service.start()
        while not service.is_over: service.wake.wait(service.step())
        service.finish()
"""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from ingester.archive import Archive
from ingester.completion import Completion, Key, Origin
from ingester.config import Settings
from ingester.control import Control, Document, Refused, Request
from ingester.errors import IngesterError, Retry
from ingester.hooks import Hooks
from ingester.index.connection import Corrupt, connect_reader
from ingester.index.writer import Writer
from ingester.ingest import Ingest
from ingester.model import ArrivalRecord, Clock
from ingester.observe import described
from ingester.service import answers, index, rooms, status
from ingester.service.announce import Announcer
from ingester.service.deriving import Deriving
from ingester.service.disks import Disks
from ingester.service.index import Progress
from ingester.service.notify import notify, watchdog_seconds
from ingester.service.receiving import Receivers
from ingester.service.timers import Timers
from ingester.service.waiting import lies_in_spool
from ingester.spool import Spool
from ingester.wake import Wake
from ingester.watch import Watcher

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
_SPACE_SECONDS = 5.0
_IDLE_SECONDS = 5.0
_LONGEST_SLEEP = 60.0


class Service:
    """One site at work; all methods on the main thread, the locks held.

    Parameters
    ----------
    is_once : no receivers, no watcher, no waiting for what may never come
    progress : told (done, total or None, note) now and then
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
        self.wake = Wake()
        self.timers = Timers(clock)
        self.disks = Disks(settings)
        self.writer: Writer | None = None
        self.ingest: Ingest | None = None
        self.deriving: Deriving | None = None
        self.watcher: Watcher | None = None
        self.control: Control | None = None
        self.receivers = Receivers(settings, spool, self._receiver_changed, self.wake.set)
        self.is_stopping = False
        self.started_at = clock.now()
        self.rates = status.Rates()
        self._is_once = is_once
        self._progress = progress
        self._must_look = True
        self._is_dirty = False
        self._snapshot_thread: threading.Thread | None = None
        self._trouble: str | None = None
        hooks = settings.hooks
        self._hooks = Hooks(
            {
                "study.complete": hooks.study_complete,
                "batch.complete": hooks.batch_complete,
                "arrival.quarantined": hooks.quarantined,
            },
            on_end=self.wake.set,
        )
        self.announcer = Announcer(
            lambda: self.writer,
            self.connect,
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
        rooms.make_folders(self.settings, self.spool, self.archive)
        self.control = Control(
            self.archive.root,
            on_request=self.wake.set,
            mode=0o660 if self.settings.spool.group else 0o600,
        )
        if not self._is_once:
            self.receivers.start()
        self._open_intake()
        if not self._is_once:
            self.watcher = Watcher(
                rooms.watched_folders(self.settings),
                choice=self.settings.spool.watch,
                on_event=self._look_soon,
            )
            self.watcher.refresh()
        self._set_timers()
        notify("READY=1")

    def _open_intake(self) -> None:
        """Open the index and all that writes to it; take up what was left half-done."""
        self.writer = index.open_index(
            self.settings, self.archive, self.clock, progress=self._meanwhile
        )
        self.ingest = Ingest(
            self.spool,
            self.archive,
            self.writer,
            rooms.pool_of(self.settings.workers.prepare_count),
            rooms.ingest_settings(self.settings, is_impatient=self._is_once),
            self.clock,
            on_ready=self.wake.set,
            on_recorded=self._recorded,
        )
        self.deriving = Deriving(
            self.settings, self.archive, self.writer, self.clock, on_ready=self.wake.set
        )
        if not self._is_once:
            self.announcer.recall()
        self._look_at_disks()
        self.ingest.recover()

    def _set_timers(self) -> None:
        timers, settings = self.timers, self.settings
        timers.every(settings.spool.rescan, self._rescan)
        timers.every(_SPACE_SECONDS, self._look_at_disks)
        timers.every(_IDLE_SECONDS, self._checkpoint_when_idle)
        if settings.index.snapshot is not None and not self._is_once:
            timers.every(settings.index.snapshot, self._snapshot)
        watchdog = watchdog_seconds()
        if watchdog is not None:
            timers.every(watchdog, lambda: notify("WATCHDOG=1"))

    # --------------------------------------------------------------------- loop

    @property
    def is_over(self) -> bool:
        """Return whether the loop has nothing more to do."""
        if self.is_stopping:
            return True
        if not self._is_once or self.ingest is None or self.deriving is None:
            return False
        return self.ingest.is_idle and self.deriving.is_idle and not self._must_look

    def step(self) -> float:
        """Do what is due; returns how many seconds to sleep unless rung."""
        try:
            return self._step()
        except Corrupt as error:
            log.error("%s It is kept aside and made again from the archive.", error)
            self._close_intake()
            self._open_intake()
            self._must_look = True
            return 0.0

    def _step(self) -> float:
        assert self.ingest is not None
        assert self.deriving is not None
        self.timers.run()
        if self.receivers.poll():
            self._must_look = True
        if self.watcher is not None:
            if self.watcher.needs_refresh:
                self.watcher.refresh()
                self._must_look = True
            if self.watcher.poll(self.clock.monotonic()):
                self._must_look = True
        look, self._must_look = self._must_look, False
        turn = self.ingest.turn(look=look)
        self._trouble = turn.trouble
        self.deriving.step()
        self._answer_requests()
        self.announcer.step()
        now = self.clock.monotonic()
        counts = self.ingest.counts
        self.rates.add(now, counts.arrived, counts.bytes)
        self._tell_progress()
        if turn.is_busy or self._must_look:
            return 0.0
        times = [
            turn.wake_at,
            self.timers.next_at(),
            self.announcer.next_due(),
            self.deriving.wake_at,
            self.watcher.next_poll() if self.watcher is not None else None,
            self.receivers.next_at(now),
        ]
        due = min((at for at in times if at is not None), default=now + _LONGEST_SLEEP)
        return min(max(0.0, due - now), _LONGEST_SLEEP)

    def _look_soon(self) -> None:
        self._must_look = True
        self.wake.set()

    def _recorded(self, records: Sequence[ArrivalRecord]) -> None:
        assert self.deriving is not None
        self._is_dirty = True
        self.deriving.look_again()
        self.announcer.saw(records)

    def _rescan(self) -> None:
        if self.watcher is not None:
            self.watcher.refresh()
        self._must_look = True

    def _look_at_disks(self) -> None:
        for name, detail in self.disks.look():
            self.announcer.add("disk.low", {"disk": name, **detail})
            log.warning("disk low: %s has %d bytes free", detail["path"], detail["free_bytes"])
        if self.ingest is not None:
            self.ingest.paused = self.disks.sentence

    def _checkpoint_when_idle(self) -> None:
        if not self._is_dirty or self.ingest is None or not self.ingest.is_idle:
            return
        assert self.writer is not None
        try:
            self.writer.checkpoint(idle=True)
        except Retry as error:
            log.warning("the index's log cannot be emptied now: %s", error)
        self._is_dirty = False
        self.spool.tidy(older_than_ns=int((self.clock.now().timestamp() - 2.0) * 1e9))

    def _snapshot(self) -> None:
        """Copy the index in a thread: reading it holds up nobody."""
        if self._snapshot_thread is not None and self._snapshot_thread.is_alive():
            return
        target = self.archive.root / "index-snapshot.db"
        self._snapshot_thread = threading.Thread(
            target=_take_snapshot, args=(self.settings.index.path, target), name="snapshot"
        )
        self._snapshot_thread.start()

    def _is_waiting(self, key: Key, origin: Origin) -> bool:
        assert self.ingest is not None
        if origin in self.ingest.batches_under_way() or self.receivers.has_association(key, origin):
            return True
        return lies_in_spool(self.spool, origin)

    def _receiver_changed(self, name: str, sentence: str, *, is_up: bool) -> None:
        kind = "receiver.up" if is_up else "receiver.down"
        self.announcer.add(kind, {"receiver": name, "message": sentence})
        if is_up:
            log.info("receiver %s: %s", name, sentence)
        else:
            log.error("receiver %s is down: %s", name, sentence)

    def _tell_progress(self) -> None:
        assert self.ingest is not None
        counts = self.ingest.counts
        waiting = self.ingest.claimed + self.ingest.waiting
        note = self._trouble or self.ingest.paused or ""
        if not note and not waiting and self.deriving is not None and not self.deriving.is_idle:
            note = "making thumbnails and videos"
        if self._progress is not None:
            self._progress(counts.arrived, counts.arrived + waiting, note)

    def _meanwhile(self, done: int, total: int | None, note: str) -> None:
        """Keep receivers, systemd and questions served while the index is rebuilt."""
        self._stay_alive()
        self._answer_requests()
        if self._progress is not None:
            self._progress(done, total, note)

    def _stay_alive(self) -> None:
        """Do what cannot wait while something long is done: receivers, systemd."""
        self._must_look |= self.receivers.poll()
        notify("WATCHDOG=1")

    # ---------------------------------------------------------------- questions

    def _answer_requests(self) -> None:
        assert self.control is not None
        for request in self.control.requests():
            try:
                request.answer(self._answer(request))
            except IngesterError as error:
                request.refuse(str(error))
            except (OSError, sqlite3.Error) as error:
                log.warning("%s: %s", request.command, described(error))
                request.refuse(getattr(error, "strerror", None) or type(error).__name__)

    def _answer(self, request: Request) -> Document:
        if request.command == "status":
            return self.status()
        if self.writer is None:
            raise Refused("the index is being made again from the archive; ask a little later")
        if request.command == "look":
            self._look_soon()
            return {}
        answer = answers.ANSWERS.get(request.command)
        if answer is None:
            raise Refused(f"the service knows no question {request.command}")
        document = answer(self.open_site(), request.arguments)
        self._look_soon()
        if self.deriving is not None:
            self.deriving.look_again()
        return document

    def open_site(self) -> answers.OpenSite:
        """Return what the answers work on."""
        assert self.writer is not None
        return answers.OpenSite(
            self.spool,
            self.archive,
            self.writer,
            self.clock,
            self.settings,
            meanwhile=self._stay_alive,
        )

    def connect(self) -> sqlite3.Connection:
        """Open a reading connection to the index."""
        return connect_reader(self.settings.index.path)

    def status(self) -> Document:
        """Return the status document."""
        return status.of_service(self)

    @property
    def held_up_by(self) -> str | None:
        """Return why nothing at all goes on, None where something does."""
        if self.ingest is None or self.ingest.is_idle:
            return None
        return self._trouble or self.ingest.paused

    @property
    def troubles(self) -> list[str]:
        """Return what holds things up, in sentences."""
        found = [self._trouble, self.disks.sentence, self.deriving and self.deriving.trouble]
        if self.writer is None:
            found.append("the index is being made again from the archive; files wait")
        files = [f"{path}: {why}" for path, why in sorted(self.spool.troubles.items())]
        return [each for each in found if each] + files

    def summary(self) -> dict[str, int | float]:
        """Return the summary's keys of the contract, without `seconds`."""
        assert self.ingest is not None
        assert self.deriving is not None
        counts, made = self.ingest.counts, self.deriving.counts
        outcomes = ("archived", "duplicate", "variant", "conflict")
        others = ("quarantined", "foreign", "unpacked")
        return {
            "arrived": counts.arrived,
            **{name: counts.outcomes[name] for name in (*outcomes, *others)},
            "thumbnails": made.thumbnails if made is not None else 0,
            "videos": made.videos if made is not None else 0,
            "derivative_failures": made.failures if made is not None else 0,
            "bytes": counts.bytes,
        }

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
        if self.ingest is not None and self.is_stopping:
            left = max(0.0, end - self.clock.monotonic() - 1.0)
            if not self.ingest.drain(left):
                log.info("what is claimed and not finished is taken up at the next start")
        self.announcer.step()

    def close(self) -> None:
        """Give everything back; also after an error, and at once."""
        if self.control is not None:
            self.control.close()
            self.control = None
        self.receivers.stop(0.0)
        if self.watcher is not None:
            self.watcher.close()
        self._hooks.close()
        self._close_intake()
        if self._snapshot_thread is not None:
            self._snapshot_thread.join()
        self.wake.close()

    def _close_intake(self) -> None:
        if self.deriving is not None:
            self.deriving.close()
        if self.ingest is not None:
            # A file of many gigabytes may still be read: nobody waits for it now.
            for child in multiprocessing.active_children():
                child.kill()
            self.ingest.close()
        if self.writer is not None:
            self.writer.close()
        self.deriving = self.ingest = self.writer = None


def _take_snapshot(path: Path, target: Path) -> None:
    try:
        index.snapshot(path, target)
    except (OSError, sqlite3.Error) as error:
        log.warning("the index's snapshot could not be made: %s", described(error))
