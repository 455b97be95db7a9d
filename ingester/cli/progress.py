"""Progress: a bar with rate and remaining time on a terminal, else plain lines.

Drawn on standard error, a few times a second at most; plain lines come every two
seconds, so that a log stays readable.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from ingester.cli import screen

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_LINE_EVERY_SECONDS = 2.0


class Progress:
    """What is done of how much; `with Progress("verify", "objects") as p: p.set(3, 10)`."""

    def __init__(self, what: str, unit: str, *, is_quiet: bool = False) -> None:
        self._what = what
        self._unit = unit
        self._is_quiet = is_quiet
        self._done = 0
        self._total: int | None = None
        self._note = ""
        self._began = time.monotonic()
        self._last_line = self._began
        self._bars: Bars | None = None
        self._bar: TaskID | None = None

    def __enter__(self) -> Progress:
        if not self._is_quiet and sys.stderr.isatty():
            self._draw()
        return self

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Drawn

        self._bars = Drawn(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=sys.stderr),
            refresh_per_second=4,
            transient=True,
        )
        self._bar = self._bars.add_task(self._what, total=None, rate="", note="")
        self._bars.start()

    def set(self, done: int, total: int | None = None, note: str = "") -> None:
        """Tell how far it is; *total* None where nobody knows.

        A count that goes back begins a new stage, with a rate and a time of its own.
        """
        if done < self._done:
            self._began = time.monotonic()
        self._done, self._total, self._note = done, total, note
        if self._bars is not None and self._bar is not None:
            self._bars.update(
                self._bar,
                completed=done,
                total=total,
                rate=self._rate(),
                note=screen.printable(note),
            )
        elif not self._is_quiet and time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            screen.say(self._line())

    def advance(self, note: str = "") -> None:
        """Tell that one more is done."""
        self.set(self._done + 1, self._total, note)

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._began, 0.001)
        return f"{self._done / seconds:,.0f} {self._unit}/s"

    def _line(self) -> str:
        of_all = f" of {self._total:,}" if self._total is not None else ""
        left = ""
        if self._total and self._done:
            seconds = (time.monotonic() - self._began) / self._done * (self._total - self._done)
            left = f", {seconds:,.0f} s left"
        note = f", {screen.printable(self._note)}" if self._note else ""
        return f"{self._what}: {self._done:,}{of_all} {self._unit}, {self._rate()}{left}{note}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
