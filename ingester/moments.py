"""Moments of archiving: text in the index, a file's time in the tree, never the same twice.

An object's file bears the moment of its archiving as its modification time, exact to
the microsecond, so that a rebuild finds it there and takes the objects in this order.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ingester.model import Clock


class Moments:
    """Gives out moments of archiving, each later than every one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_us = 0

    def next(self) -> str:
        """Return the moment of archiving: later than every one before, to the µs.

        A rebuild takes the objects in the order of these moments, so no two may be
        equal.
        """
        now = int(self._clock.now().timestamp() * 1_000_000)
        self._last_us = max(self._last_us + 1, now)
        return moment_of(self._last_us * 1000)


def moment_of(mtime_ns: int) -> str:
    """Return the moment of archiving that a file's time (ns since 1970) stands for."""
    seconds, rest = divmod(mtime_ns // 1000, 1_000_000)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def mtime_ns_of(archived_at: str) -> int:
    """Return the file time (ns since 1970) that stands for a moment of archiving."""
    at = datetime.fromisoformat(archived_at)
    whole = int(at.replace(microsecond=0).timestamp())
    return (whole * 1_000_000 + at.microsecond) * 1000
