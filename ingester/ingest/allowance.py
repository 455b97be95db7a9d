"""How much reading may be done that is good to do and not needed."""

from __future__ import annotations

from ingester.model import Clock


class Allowance:
    """So many bytes a second, saved up to a limit while nobody asks.

    Parameters
    ----------
    per_second : bytes
    most : bytes; what is larger than that is never allowed
    """

    def __init__(self, clock: Clock, *, per_second: int, most: int) -> None:
        self._clock = clock
        self._per_second = per_second
        self._most = most
        self._saved = float(most)
        self._at = clock.monotonic()

    def take(self, count: int) -> bool:
        """Take *count* bytes off; False, and nothing is taken, where they are not there."""
        now = self._clock.monotonic()
        self._saved = min(self._saved + (now - self._at) * self._per_second, self._most)
        self._at = now
        if count > self._saved:
            return False
        self._saved -= count
        return True
