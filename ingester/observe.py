"""What the service says: one line an event, no patient's data, no flood.

Lines carry UIDs, ids and hashes, never a name, a header value or an original file
name; control characters are written as escapes, so one record is always one line.
An error's words are left out where they may quote a file: its type and the place in
our code say enough.  A sentence that repeats is said a few times a minute at most.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Literal, TextIO

from ingester.errors import IngesterError
from ingester.model import moment

_MOST_REPEATS = 5
_REPEAT_SECONDS = 60.0
_MOST_REMEMBERED = 1000

#: Libraries that quote header values or file names in their messages, and Python's warnings.
_TALKATIVE = ("pydicom", "pynetdicom", "PIL", "imageio", "imageio_ffmpeg", "py.warnings")
#: So does this one, but its warning of lost events must still reach `watch.py`.
_OVERHEARD = "watchdog"


def one_line(text: str) -> str:
    """Return *text* with everything that could steer a terminal or a log as escapes."""
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def described(error: BaseException) -> str:
    """Return an error's type and where it came from, without words of a file.

    Our own errors are sentences written for people and are told whole; the system's
    are told without the file's name.
    """
    if isinstance(error, IngesterError):
        words = f": {error}"
    elif isinstance(error, OSError):
        words = f": {error.strerror}"
    else:
        words = ""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    cause = error.__cause__ or error.__context__
    because = f" because of {described(cause)}" if cause is not None else ""
    return f"{type(error).__name__}{words} [{places}]{because}"


class TextFormatter(logging.Formatter):
    """`2026-11-22T09:00:00.000Z WARNING ingester.watch: what happened`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return f"{_at(record)} {record.levelname} {record.name}: {one_line(_words(record))}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at`, `level`, `logger`, `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        fields: Mapping[str, str] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(_words(record)),
        }
        return json.dumps(fields, ensure_ascii=False)


def _at(record: logging.LogRecord) -> str:
    return moment(datetime.fromtimestamp(record.created, UTC))


def _words(record: logging.LogRecord) -> str:
    words = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        words += f": {described(record.exc_info[1])}"
    return words


class Repeats(logging.Filter):
    """Lets a sentence through a few times a minute, then only counts it."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record shall be written, the count of the silent ones added."""
        key = (record.name, record.levelno, str(record.msg))
        since, count = self._seen.get(key, (record.created, 0))
        if record.created - since >= _REPEAT_SECONDS:
            if count > _MOST_REPEATS:
                silent = count - _MOST_REPEATS
                record.msg = f"{record.getMessage()} (and {silent} more like it before)"
                record.args = None
            since, count = record.created, 0
        if key not in self._seen and len(self._seen) >= _MOST_REMEMBERED:
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        return count < _MOST_REPEATS


def set_up_logging(
    *,
    level: Literal["debug", "info", "warning", "error"],
    style: Literal["text", "json"],
    file: Path | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send our log to standard error, and to *file* where one is named.

    The file may be renamed by logrotate at any time.  Calling this again replaces
    what an earlier call has set up.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if getattr(handler, "is_ours", False):
            root.removeHandler(handler)
            handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stderr)]
    if file is not None:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640))
        handlers.append(WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace"))
    for handler in handlers:
        handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
        handler.addFilter(Repeats())
        handler.is_ours = True  # type: ignore[attr-defined]  # a mark for the next call
        root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    overheard = logging.getLogger(_OVERHEARD)
    overheard.setLevel(logging.WARNING)
    overheard.propagate = False
    overheard.addHandler(logging.NullHandler())
