"""What a receiving process has done so far, told to its parent as JSON lines.

Threads count; the main thread of the process writes, at most every 20 ms, a line
with all figures (not with changes: a line that does not fit into a full pipe is
dropped, and the next one tells the same).  Log records take the same way, so that
the service writes them in its own format to its own place.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Figures:
    """The figures of one process."""

    associations: int = 0  # now
    associations_total: int = 0
    objects: int = 0
    bytes: int = 0
    refused_associations: int = 0  # rejected, aborted for nonsense, no TLS handshake
    failed_objects: int = 0
    last_source: str = ""
    trouble: str = ""
    open: tuple[tuple[str, str], ...] = ()  # (source, association id) of those now

    @classmethod
    def read(cls, values: dict[str, Any]) -> Figures:
        """Build figures from a line that `Tally.line` wrote."""
        known = {each.name for each in fields(cls)}
        figures = cls(**{name: value for name, value in values.items() if name in known})
        figures.open = tuple((source, each) for source, each in figures.open)
        return figures


class Tally:
    """Counts, from any thread."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._figures = Figures()
        self._open: dict[str, str] = {}

    def entered(self, source: str, association_id: str) -> None:
        """An association was accepted."""
        with self._lock:
            self._open[association_id] = source
            self._figures.associations_total += 1
            self._figures.last_source = source
        self._changed()

    def left(self, association_id: str) -> None:
        """An association has ended."""
        with self._lock:
            self._open.pop(association_id, None)
        self._changed()

    def refused(self) -> None:
        """A connection was rejected or broke the protocol."""
        with self._lock:
            self._figures.refused_associations += 1
        self._changed()

    def stored(self, source: str, size_bytes: int) -> None:
        """An object is durable in the spool."""
        with self._lock:
            self._figures.objects += 1
            self._figures.bytes += size_bytes
            self._figures.last_source = source
        self._changed()

    def failed(self) -> None:
        """An object was refused."""
        with self._lock:
            self._figures.failed_objects += 1
        self._changed()

    def line(self, trouble: str) -> bytes:
        """Return all figures as one line of JSON."""
        with self._lock:
            self._figures.trouble = trouble
            self._figures.associations = len(self._open)
            self._figures.open = tuple((source, each) for each, source in self._open.items())
            return json.dumps(asdict(self._figures)).encode() + b"\n"


class Reporter:
    """Writes lines to the parent's pipe, whole or not at all, never waiting for it."""

    def __init__(self, descriptor: int) -> None:
        """Write to *descriptor*, which is made non-blocking."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._rest = b""

    def write(self, line: bytes) -> bool:
        """Write *line*; False where the pipe is full, and the line is lost.

        Raises
        ------
        BrokenPipeError : the parent is gone
        """
        with self._lock:
            try:
                if self._rest:
                    self._rest = self._rest[os.write(self._descriptor, self._rest) :]
                if self._rest:
                    return False
                self._rest = line[os.write(self._descriptor, line) :]
            except BlockingIOError:
                return False
            return True


class _Handler(logging.Handler):
    """Writes each log record as one line to the parent."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter
        self.setFormatter(logging.Formatter())  # message, then traceback if any

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; where the pipe is full or gone it is lost."""
        message = self.format(record)[:_LONGEST_MESSAGE]
        line = {"log": record.name, "level": record.levelno, "message": message}
        try:
            self._reporter.write(json.dumps(line).encode() + b"\n")
        except BrokenPipeError:
            return


_LONGEST_MESSAGE = 8000


def log_through(reporter: Reporter, level: int) -> None:
    """Send this process's log records to the parent; silence the libraries'.

    pynetdicom and pydicom put values of headers into theirs.
    """
    root = logging.getLogger()
    root.handlers[:] = [_Handler(reporter)]
    root.setLevel(level)
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def relog(line: dict[str, object]) -> bool:
    """Log, in the parent, what a child has logged; False where it is no log record."""
    name, level, message = line.get("log"), line.get("level"), line.get("message")
    if not (isinstance(name, str) and isinstance(level, int) and isinstance(message, str)):
        return False
    logging.getLogger(name).log(level, "%s", message)
    return True
