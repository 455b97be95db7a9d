"""The service: starts, watches and stops everything; the only starter of processes.

run(settings)               in the foreground, until a signal; see `loop.Service`
run_once(settings)          what lies in the spool now, and all derivatives
perform(settings, "retry")  ask the running service, else do it under the locks
read_status(settings)       the status document, of a running service or without one
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ingester.config import Settings
from ingester.control import Document, Refused, ask
from ingester.errors import Fatal
from ingester.model import Clock, SystemClock, type_json
from ingester.service import answers, index, rooms, snapshots, status
from ingester.service.index import Progress
from ingester.service.intake import Stopped
from ingester.service.loop import Service

__all__ = ["Service", "Summary", "perform", "read_status", "run", "run_once"]

log = logging.getLogger(__name__)

Summary = dict[str, int | float]

#: How long `run --once` waits for the world (a full disk) before it gives up.
_PATIENCE_SECONDS = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(
    settings: Settings,
    *,
    on_ready: Callable[[Document], None] | None = None,
    clock: Clock | None = None,
) -> None:
    """Run the service until SIGTERM, SIGINT or SIGHUP; a second one ends it at once.

    *on_ready* is told the status document once everything runs: what is watched, where
    it listens.

    Raises
    ------
    Fatal : the site cannot be used, or another process holds it
    KeyboardInterrupt : the second signal
    """
    with (
        suppress(Stopped),
        _open_service(settings, "run", clock or SystemClock(), is_once=False) as service,
        _signals_stop(service),
    ):
        service.start()
        if on_ready is not None:
            on_ready(status.of_service(service))
        while not service.is_over:
            service.wake.wait(service.step())
        service.finish()


def run_once(
    settings: Settings,
    *,
    progress: Progress | None = None,
    clock: Clock | None = None,
    command: str = "run --once",
    on_left: Callable[[list[str]], None] | None = None,
) -> Summary:
    """Ingest everything that lies in the spool now, make all pending derivatives.

    No receiver is started; growing files are waited for.  Returns the counts of the
    contract's summary; *progress* is told (done, known total, note) after each step, and
    *on_left* at the end what could not be taken from the spool, in sentences.

    Raises
    ------
    Fatal : the site cannot be used, another process holds it, or the world (a full
        disk) has held everything up for a minute
    KeyboardInterrupt : a signal came before the end; what was claimed is finished
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    with _open_service(settings, command, clock, is_once=True, progress=progress) as service:
        with _signals_stop(service):
            service.start()
            _turn_until_over(service, clock)
            service.finish()
        left = service.spool.troubles
        if left:
            # Paths may name patients: they are for the person who asked, not for a log.
            log.warning("what could not be taken is left in the spool: %d paths", len(left))
        if on_left is not None:
            on_left([f"{path}: {why}" for path, why in sorted(left.items())])
        summary = status.summary_of(service.intake)
        if service.is_stopping:
            raise KeyboardInterrupt  # what is left is no result that a script should take for one
    return {**summary, "seconds": round(clock.monotonic() - began, 3)}


def _turn_until_over(service: Service, clock: Clock) -> None:
    since: float | None = None
    while True:
        timeout = service.step()
        if service.is_over:
            return
        if not service.intake.held_up_by:
            since = None
        elif since is None:
            since = clock.monotonic()
        elif clock.monotonic() - since > _PATIENCE_SECONDS:
            raise Fatal(
                f"{service.intake.held_up_by}; nothing is lost, run it again once that is mended"
            )
        service.wake.wait(timeout)


@contextmanager
def _open_service(
    settings: Settings,
    command: str,
    clock: Clock,
    *,
    is_once: bool,
    progress: Progress | None = None,
) -> Iterator[Service]:
    with rooms.held_site(settings, command=command) as (spool, archive):
        service = Service(settings, spool, archive, clock, is_once=is_once, progress=progress)
        try:
            yield service
        finally:
            service.close()


@contextmanager
def _signals_stop(service: Service) -> Iterator[None]:
    """Let the first signal end the loop in order, and the second at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        if service.is_stopping:
            raise KeyboardInterrupt
        service.stop()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    service.wake.hear_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def perform(
    settings: Settings, command: str, *, clock: Clock | None = None, **arguments: type_json
) -> Document:
    """Ask the running service for *command*; where none runs, do it under the locks.

    The commands are those of `answers.ANSWERS`.

    Raises
    ------
    Refused : it cannot be done, in a sentence
    Fatal : the site cannot be used
    """
    if settings.archive.path.is_dir():
        told = ask(settings.archive.path, command, **arguments)
        if told is not None:
            return told
    clock = clock or SystemClock()
    answer = answers.ANSWERS.get(command)
    if answer is None:
        raise Refused(f"no service runs that could be asked for {command}")
    with rooms.held_site(settings, command=command) as (spool, archive):
        rooms.make_folders(settings, spool, archive)
        writer = index.open_index(settings, archive, clock)
        try:
            document = answer(answers.OpenSite(spool, archive, writer, clock, settings), arguments)
        finally:
            writer.close()
        snapshots.refresh(settings, clock)
        return document


def read_status(settings: Settings, *, clock: Clock | None = None) -> Document:
    """Return the status document: of the running service, else of the folders and index."""
    told = ask(settings.archive.path, "status") if os.path.isdir(settings.archive.path) else None
    return told if told is not None else status.of_folders(settings, clock or SystemClock())
