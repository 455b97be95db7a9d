"""Executors that are made at the first need, and again after a crash in them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool

from ingester.errors import Retry
from ingester.pool import is_alive


class Pool:
    """One executor at a time.

    Parameters
    ----------
    make : makes it; called again after a crash in it
    """

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make
        self._executor: Executor | None = None

    def get(self) -> Executor:
        """Return the executor, made at the first need.

        Raises
        ------
        Retry : where its processes die although they were given no file to read
        """
        if self._executor is None:
            executor = self._make()
            try:
                executor.submit(is_alive).result()
            except BrokenProcessPool as error:
                raise Retry("the reading processes end as soon as they are started") from error
            self._executor = executor
        return self._executor

    def warm(self) -> None:
        """Start it before there is work, so that the first file does not wait."""
        if self._executor is None:
            self._executor = self._make()
            self._executor.submit(is_alive)

    def drop(self) -> None:
        """Give up an executor whose process died; the next need makes another."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def close(self) -> None:
        """End it."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
