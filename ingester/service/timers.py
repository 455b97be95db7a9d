"""What is done now and then, by the loop, at no moment of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ingester.model import Clock


@dataclass(slots=True)
class _Timer:
    seconds: float
    action: Callable[[], None]
    due_at: float


class Timers:
    """Actions that are due every so many seconds, by the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: list[_Timer] = []

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Run *action* every *seconds* from now on."""
        self._timers.append(_Timer(seconds, action, self._clock.monotonic() + seconds))

    def run(self) -> None:
        """Run what is due; what was missed while the loop was busy is run once."""
        now = self._clock.monotonic()
        for timer in self._timers:
            if timer.due_at <= now:
                timer.due_at = now + timer.seconds
                timer.action()

    def next_at(self) -> float | None:
        """Return when something is due next (monotonic)."""
        return min((timer.due_at for timer in self._timers), default=None)
