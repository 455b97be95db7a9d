"""A clock that a test winds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass
class HandClock:
    """Shows `seconds` (monotonic), and as date `begin` and so many seconds."""

    seconds: float = 1000.0
    begin: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the date and time."""
        return self.begin + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return self.seconds
