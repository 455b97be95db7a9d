"""Claimed files that are not finished wait here, outside the line.

A file may be claimed and then turn out to be growing still, or be unreadable for a
while, or lie on a share that has gone.  It must not hold up those behind it, so it
leaves the line, is looked at again after growing pauses, and has waited enough when
it was unchanged for as long as its kind of trouble allows.
"""

from __future__ import annotations

from collections.abc import Iterator

from ingester.ingest.values import LONGEST_BACK_OFF, Item
from ingester.model import Clock, Prepared, WriterState


class Waiting:
    """Claimed files, each with the time at which it is looked at again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._items: list[Item] = []

    def __len__(self) -> int:
        """Return how many files wait."""
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the files that wait."""
        return iter(self._items)

    @property
    def next_due(self) -> float | None:
        """Return when the next file is to be looked at, None where none waits."""
        return min((item.due for item in self._items), default=None)

    def park(self, item: Item, prepared: Prepared | None, most: float) -> bool:
        """Let a file that is not finished wait in its claim; False when it waited enough.

        It waits until it was unchanged for *most* seconds, looked at after 2, 4, … 60 s.
        """
        now = self._clock.monotonic()
        seen = prepared.identity if prepared is not None else None
        is_moving = prepared is not None and not prepared.is_steady
        if item.tries == 0 or is_moving or seen != item.still:
            item.still, item.still_since, item.tries = seen, now, 0
        if now - item.still_since >= most:
            return False
        item.tries += 1
        pause = min(2.0**item.tries, LONGEST_BACK_OFF)
        if is_moving or (prepared is not None and prepared.writer is WriterState.WRITING):
            pause = min(pause, 1.0)
        item.due = now + min(pause, most)
        self._items.append(item)
        return True

    def take_due(self, now: float) -> list[Item]:
        """Take out those that are to be looked at now."""
        due = [item for item in self._items if item.due <= now]
        if due:
            self._items = [item for item in self._items if item.due > now]
        return due
