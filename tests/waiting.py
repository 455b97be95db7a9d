"""Waiting for what another process brings about: a condition with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_bell = threading.Event()


def until(found: Callable[[], T | None], *, within: float = 30.0, what: str = "") -> T:
    """Return the first true answer of *found*; fails after *within* seconds."""
    deadline = time.monotonic() + within
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within} s: {what or found}"
        _bell.wait(0.05)
