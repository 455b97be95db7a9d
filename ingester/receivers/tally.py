"""What a receiving process has done so far, told to its parent as JSON lines.

Threads count; the main thread of the process writes, at most every 20 ms, a line
with all figures (not with changes: a line that does not fit into a full pipe is
dropped, and the next one tells the same).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass


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


class Tally:
    """Counts, from any thread."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._figures = Figures()

    def entered(self, source: str) -> None:
        """An association was accepted."""
        with self._lock:
            self._figures.associations += 1
            self._figures.associations_total += 1
            self._figures.last_source = source
        self._changed()

    def left(self) -> None:
        """An accepted association has ended."""
        with self._lock:
            self._figures.associations -= 1
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
            return json.dumps(asdict(self._figures)).encode() + b"\n"
