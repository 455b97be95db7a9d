"""Reading the index for commands, which may end with Ctrl-C.

A question may take long, and SQLite answers without coming back to Python.  So it is
told to come back now and then, which is when Python hears of Ctrl-C.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from ingester.config import Settings
from ingester.errors import Retry
from ingester.index.readers import Reader

#: So many steps of SQLite's machine take some milliseconds.
_STEPS = 200_000


@contextmanager
def open_index(settings: Settings) -> Iterator[Reader]:
    """Open the index for reading.

    Raises
    ------
    Fatal
        there is no index yet, or it is of another schema.
    Corrupt
        it is damaged.
    KeyboardInterrupt
        somebody pressed Ctrl-C during a question.
    """
    try:
        with Reader.open(settings.index.path) as reader:
            reader.connection.set_progress_handler(_come_back, _STEPS)
            yield reader
    except (Retry, sqlite3.OperationalError) as error:
        if _is_interrupted(error) or _is_interrupted(error.__cause__):
            raise KeyboardInterrupt from error
        raise


def _come_back() -> int:
    """Let Python see to signals; goes on where there is none."""
    return 0


def _is_interrupted(error: BaseException | None) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_INTERRUPT
