"""What the doctor says: of each thing whether it is well, and the fix in one line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    NOTE = "note"  # it works; somebody should know
    PROBLEM = "problem"  # something will not work, or is not safe


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `fix` is one line that mends it, where one is needed."""

    name: str
    state: State
    message: str
    fix: str = ""

    @classmethod
    def ok(cls, name: str, message: str) -> Check:
        """Build a check that found nothing."""
        return cls(name, State.OK, message)

    @classmethod
    def note(cls, name: str, message: str, fix: str = "") -> Check:
        """Build a check that found something to know."""
        return cls(name, State.NOTE, message, fix)

    @classmethod
    def problem(cls, name: str, message: str, fix: str) -> Check:
        """Build a check that found something to mend."""
        return cls(name, State.PROBLEM, message, fix)
