"""A process that dies before its n-th durable effect, as if it had been killed.

It is forked, so that it starts warm: died = run_and_die(root, 40).
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from ingester import durable
from tests.site import Site

KILLED = 77


def dying_at(n: int) -> Callable[[str, str], None]:
    """Return an observer that ends the process before its n-th effect, without a farewell."""
    lock, seen = threading.Lock(), [0]

    def observer(name: str, path: str) -> None:
        with lock:
            seen[0] += 1
            if seen[0] >= n:
                os._exit(KILLED)

    return observer


def in_another_process(work: Callable[[], object], observer: Callable[[str, str], None]) -> int:
    """Do something in a forked process; returns its exit code, 0 or `KILLED`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            with durable.observe(observer):
                work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), "it failed by itself"
    return code


def run_and_die(root: Path, n: int) -> bool:
    """Ingest in a forked process that dies before its n-th effect; True if it did."""
    return in_another_process(Site(root).ingest_all, dying_at(n)) == KILLED
