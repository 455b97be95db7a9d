"""The bell that ends the main loop's sleep, safe to ring from anywhere.

The service has one loop on the main thread; watcher, control socket, pool and
signal handlers only say "look".  A pipe carries that word, because a pipe can be
waited for with a time limit and written to from a thread or a signal handler
without a lock.

    wake = Wake()
    thread: wake.set()          main: wake.wait(30.0) -> True, and silent again
"""

from __future__ import annotations

import os
import select
import signal
from types import TracebackType


class Wake:
    """A bell: many may ring it, one waits; several rings are one."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._signal_descriptor: int | None = None

    def set(self) -> None:
        """Ring: the present or the next `wait` returns at once."""
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # the pipe is full of rings nobody has heard yet
        except OSError:
            if self._writer >= 0:
                raise
            # Closed: whoever rings after the loop has ended is told nothing.

    def wait(self, timeout: float | None) -> bool:
        """Sleep until rung or *timeout* seconds passed; True where it was rung."""
        milliseconds = None if timeout is None else max(0.0, timeout) * 1000
        if not self._poll.poll(milliseconds):
            return False
        try:
            while os.read(self._reader, 65536):
                pass
        except BlockingIOError:
            pass  # drained
        return True

    def hear_signals(self) -> None:
        """Ring on every signal too, with no gap between handler and sleep.

        Python runs a handler some time after the signal; one that comes just before
        the sleep would be seen only after it.  The interpreter writes to this pipe
        the moment the signal comes.
        """
        self._signal_descriptor = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def close(self) -> None:
        """Give the pipe back; rings after this go nowhere."""
        if self._signal_descriptor is not None:
            signal.set_wakeup_fd(self._signal_descriptor)
            self._signal_descriptor = None
        reader, writer = self._reader, self._writer
        self._reader = self._writer = -1
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> Wake:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
