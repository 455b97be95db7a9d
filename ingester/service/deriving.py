"""Derivatives, begun only when something lacks one.

The making is the derivatives' own business (`derivatives.schedule`); here it is
decided when to look for work, and their imports, which cost half a second, are left
until there may be some.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingester.archive import Archive, derivative_path
from ingester.config import Settings
from ingester.derivatives.version import PIPELINE_VERSION
from ingester.errors import IngesterError, Retry
from ingester.index.writer import Writer
from ingester.model import Clock

if TYPE_CHECKING:
    from ingester.derivatives.schedule import Counts, Derivations
    from ingester.derivatives.worker import Deriver

log = logging.getLogger(__name__)

_LONGEST_BACK_OFF = 60.0


class Deriving:
    """Steps the derivations from the main loop; `on_ready` rings it."""

    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        writer: Writer,
        clock: Clock,
        *,
        on_ready: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._writer = writer
        self._clock = clock
        self._on_ready = on_ready
        self._deriver: Deriver | None = None
        self._derivations: Derivations | None = None
        self._may_lack = True
        self._is_busy = False
        self._trouble: str | None = None
        self._failures = 0
        self._resume_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is under way and nothing new may be lacking.

        What the world has put off (`trouble`) does not count: it may take for ever.
        """
        return not (self._is_busy or self._may_lack)

    @property
    def trouble(self) -> str | None:
        """Return why derivatives wait, None where they do not."""
        if self._trouble is not None:
            return self._trouble
        return self._derivations.trouble if self._derivations is not None else None

    @property
    def wake_at(self) -> float | None:
        """Return when `step` has something to do though nobody rang (monotonic)."""
        if self._trouble is not None:
            return self._resume_at
        return self._derivations.wake_at if self._derivations is not None else None

    @property
    def counts(self) -> Counts | None:
        """Return what was made since the start; None where nothing was to be made."""
        return self._derivations.counts if self._derivations is not None else None

    def look_again(self) -> None:
        """Ask the index anew: something was archived, or rows were removed."""
        self._may_lack = True

    def step(self, *, feed: bool = True) -> None:
        """Take what is ready and, with *feed*, hand out more; never waits.

        Where the index cannot be written now, it is tried again after a pause: what was
        finished and not recorded is made again.
        """
        if self._trouble is not None and self._clock.monotonic() < self._resume_at:
            return
        try:
            self._step(feed=feed)
        except (Retry, OSError, sqlite3.OperationalError) as error:
            words = getattr(error, "strerror", None) or str(error)
            if self._failures == 0:
                log.warning("derivatives wait: %s", words)
            self._failures += 1
            self._trouble = f"derivatives wait: {words}"
            pause = min(2.0 ** (self._failures - 1), _LONGEST_BACK_OFF)
            self._resume_at = self._clock.monotonic() + pause
            self._may_lack = True
        else:
            self._trouble, self._failures = None, 0

    def _step(self, *, feed: bool) -> None:
        if self._derivations is None:
            if not (feed and self._may_lack):
                return
            if not self._writer.pending_derivatives(PIPELINE_VERSION, 1):
                self._may_lack = False
                return
            self._derivations = self._make()
        wakes = self._derivations.wake_at
        is_due = wakes is not None and wakes <= self._clock.monotonic()
        begun = feed and (self._may_lack or self._is_busy or is_due)
        self._is_busy = self._derivations.turn(feed=begun)
        if begun and not self._is_busy:
            self._may_lack = False

    def close(self) -> None:
        """Record what is finished, stop the workers; the rest is made another time."""
        if self._derivations is not None:
            try:
                self._derivations.finish()
            except (IngesterError, OSError, sqlite3.Error) as error:
                log.warning("finished derivatives are made again another time: %s", error)
        if self._deriver is not None:
            self._deriver.close()
            self._deriver = None
        if self._derivations is not None:
            self._derivations.abandon()
            self._derivations = None

    def _make(self) -> Derivations:
        from ingester.derivatives.mapping import ThumbnailSettings
        from ingester.derivatives.plan import VideoSettings
        from ingester.derivatives.schedule import Derivations, DerivationSettings
        from ingester.derivatives.worker import Deriver

        self._deriver = Deriver(self._settings.workers.derive_count, on_ready=self._on_ready)
        return Derivations(
            self._writer,
            self._archive.root,
            self._deriver,
            DerivationSettings(
                ThumbnailSettings(**self._settings.thumbnails.model_dump()),
                VideoSettings(**self._settings.videos.model_dump()),
            ),
            self._clock,
            path_of=derivative_path,
        )
