"""What writes to the index: the writer, the ingest and the derivatives, as one.

They are opened together, after the receivers, and closed together: where the index
turns out to be damaged, all three begin anew on the one made from the archive.  Where
the world does not let them open (a full disk), the service stays up without them and
tries again, while the receivers go on.
"""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from ingester.archive import Archive
from ingester.config import Settings
from ingester.errors import IngesterError, Retry
from ingester.index.connection import Corrupt
from ingester.index.writer import Writer
from ingester.ingest import Ingest
from ingester.model import ArrivalRecord, Clock
from ingester.observe import described
from ingester.service import rooms
from ingester.service.deriving import Deriving
from ingester.service.index import Progress, open_index
from ingester.service.waiting import lies_in_spool
from ingester.spool import Spool

log = logging.getLogger(__name__)

_LONGEST_BACK_OFF = 60.0
#: So many claimed files and more mean a backlog: pictures wait until it is smaller.
_BACKLOG = 64


class Stopped(IngesterError):
    """A signal came while something long was being done that can be begun anew."""


class Intake:
    """The writing half of the service; all methods on the main thread.

    Parameters
    ----------
    on_ready : rung from any thread when `step` has something to do
    on_recorded : told the rows of each commit
    on_opened : called each time the index has been opened, before what was claimed
    meanwhile : called now and then while an index is being made again
    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        archive: Archive,
        clock: Clock,
        *,
        is_impatient: bool,
        on_ready: Callable[[], None],
        on_recorded: Callable[[Sequence[ArrivalRecord]], None],
        on_opened: Callable[[], None],
        meanwhile: Progress,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._archive = archive
        self._clock = clock
        self._is_impatient = is_impatient
        self._on_ready = on_ready
        self._on_recorded = on_recorded
        self._on_opened = on_opened
        self._meanwhile = meanwhile
        self._paused: str | None = None
        self._trouble: str | None = None
        self._failures = 0
        self._resume_at = 0.0
        self.writer: Writer | None = None
        self.ingest: Ingest | None = None
        self.deriving: Deriving | None = None
        self.counts_before = (0, 0)  # files and bytes of those closed since the start

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is under way and nothing is known to wait."""
        if self.ingest is None or self.deriving is None:
            return False
        return self.ingest.is_idle and self.deriving.is_idle

    @property
    def trouble(self) -> str | None:
        """Return why files wait, None where they do not."""
        return self._trouble or self._paused

    @property
    def held_up_by(self) -> str | None:
        """Return why nothing at all goes on, None where something does or nothing waits."""
        if self.ingest is not None and self.ingest.is_idle:
            return None
        return self.trouble

    def pause(self, sentence: str | None) -> None:
        """Claim nothing new, because of *sentence*; None to go on."""
        self._paused = sentence
        if self.ingest is not None:
            self.ingest.paused = sentence

    def open(self) -> None:
        """Open the index, take up what was left half-done; a world at fault is noted.

        Raises
        ------
        Fatal : a database of somebody else, or of a newer version
        Stopped : a signal came while the index was being made again
        """
        try:
            self._open()
        except (Retry, OSError, sqlite3.OperationalError) as error:
            self.close()
            self._hold_up(error)
        else:
            self._trouble, self._failures = None, 0

    def _open(self) -> None:
        self.writer = open_index(
            self._settings, self._archive, self._clock, progress=self._meanwhile
        )
        self.ingest = Ingest(
            self._spool,
            self._archive,
            self.writer,
            rooms.pool_of(self._settings.workers.prepare_count),
            rooms.ingest_settings(self._settings, is_impatient=self._is_impatient),
            self._clock,
            make_unpacking_pool=rooms.pool_of(1),
            on_ready=self._on_ready,
            on_recorded=self._recorded,
            lies_in_spool=partial(lies_in_spool, self._spool),
        )
        self.ingest.paused = self._paused
        self.deriving = Deriving(
            self._settings, self._archive, self.writer, self._clock, on_ready=self._on_ready
        )
        self._on_opened()
        if not self._is_impatient:
            self.ingest.warm()
        self.ingest.recover()

    def _recorded(self, records: Sequence[ArrivalRecord]) -> None:
        if self.deriving is not None:
            self.deriving.look_again()
        self._on_recorded(records)

    def step(self, *, look: bool) -> tuple[bool, float | None]:
        """Take one bounded step of ingest, then of derivatives.

        Returns whether the next step has something to do at once, and else when
        (monotonic; None: an event will tell).
        """
        if self.ingest is None or self.deriving is None:
            if self._clock.monotonic() < self._resume_at:
                return False, self._resume_at
            self.open()
            return self.ingest is not None, self._resume_at
        try:
            turn = self.ingest.turn(look=look)
            self._trouble = turn.trouble
            self.deriving.step(feed=self.ingest.claimed < _BACKLOG)
        except Corrupt as error:
            log.error("%s It is kept aside and made again from the archive.", error)
            self.close()
            self.open()
            return True, None
        times = [at for at in (turn.wake_at, self.deriving.wake_at) if at is not None]
        return turn.is_busy, min(times, default=None)

    def drain(self, timeout: float) -> bool:
        """Finish what is claimed, within *timeout* seconds; False where some is left."""
        return self.ingest is None or self.ingest.drain(timeout)

    def close(self) -> None:
        """Give all back, at once; what is claimed is taken up at the next start."""
        if self.deriving is not None:
            self.deriving.close()
        if self.ingest is not None:
            # A file of many gigabytes may still be read: nobody waits for it now.
            for child in multiprocessing.active_children():
                child.kill()
            counts = self.ingest.counts
            files, size_bytes = self.counts_before
            self.counts_before = (files + counts.arrived, size_bytes + counts.bytes)
            self.ingest.close()
        if self.writer is not None:
            try:
                self.writer.close()
            except (Corrupt, Retry) as error:
                log.warning("the index did not close well: %s", error)
        self.deriving = self.ingest = self.writer = None

    def _hold_up(self, error: Exception) -> None:
        words = described(error) if not isinstance(error, Retry) else str(error)
        if self._failures == 0:
            log.warning("the index cannot be opened: %s", words)
        self._failures += 1
        self._trouble = f"the index cannot be opened, files wait: {words}"
        pause = min(2.0 ** (self._failures - 1), _LONGEST_BACK_OFF)
        self._resume_at = self._clock.monotonic() + pause
