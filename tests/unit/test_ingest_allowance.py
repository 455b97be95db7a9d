"""What may be read besides: saved up while nobody asks, never more than the most."""

from __future__ import annotations

from datetime import UTC, datetime

from ingester.ingest.allowance import Allowance


class HandClock:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds


def test_an_allowance_is_used_up_and_grows_again() -> None:
    clock = HandClock()
    allowance = Allowance(clock, per_second=10, most=100)
    assert allowance.take(60)
    assert not allowance.take(60)  # which takes nothing off
    assert allowance.take(40)
    assert not allowance.take(1)
    clock.seconds += 2
    assert allowance.take(20)
    assert not allowance.take(1)
    clock.seconds += 1000
    assert not allowance.take(101)
    assert allowance.take(100)
