from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingester.errors import Retry
from ingester.observe import JsonFormatter, Repeats, TextFormatter, described, set_up_logging


def record(message: str, *values: object, created: float = 1_795_000_000.0) -> logging.LogRecord:
    made = logging.LogRecord("ingester.x", logging.WARNING, __file__, 1, message, values, None)
    made.created = created
    return made


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    yield
    for handler in list(root.handlers):
        if getattr(handler, "is_ours", False):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(before)


def test_a_record_is_one_line_whatever_it_holds() -> None:
    line = TextFormatter().format(record("got %s", "a\nb\x1b[2J\x9b\u202e"))
    assert line.endswith("Z WARNING ingester.x: got a\\x0ab\\x1b[2J\\x9b\\u202e")
    assert "\n" not in line


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(record("two\nlines"))
    assert "\n" not in line
    fields = json.loads(line)
    assert list(fields) == ["at", "level", "logger", "message"]
    assert (fields["level"], fields["message"]) == ("warning", "two\\x0alines")


def test_an_error_is_told_without_words_of_a_file() -> None:
    try:
        try:
            Path("/nowhere/MEYER^HANS.dcm").read_bytes()
        except OSError as error:
            raise ValueError("Invalid value 'MEYER^HANS'") from error
    except ValueError as error:
        told = described(error)
    assert "MEYER" not in told
    assert "ValueError" in told
    assert "FileNotFoundError: No such file or directory" in told
    assert "test_observe.py" in told


def test_our_own_errors_are_told_whole() -> None:
    assert described(Retry("the disk is full")).startswith("Retry: the disk is full")


def test_repeats_are_counted_not_written() -> None:
    repeats = Repeats()
    passed = [repeats.filter(record("low: %d", n, created=float(n))) for n in range(50)]
    assert passed == [True] * 5 + [False] * 45
    other = record("another")
    assert repeats.filter(other)
    later = record("low: %d", 99, created=61.0)
    assert repeats.filter(later)
    assert later.getMessage() == "low: 99 (and 45 more like it before)"
    assert repeats.filter(record("low: %d", 7, created=62.0))


@pytest.mark.usefixtures("root_logger")
def test_setting_up_twice_writes_once_and_to_the_file(tmp_path: Path) -> None:
    stream = io.StringIO()
    file = tmp_path / "ingester.log"
    set_up_logging(level="info", style="json", stream=io.StringIO())
    set_up_logging(level="info", style="text", file=file, stream=stream)
    logging.getLogger("ingester.x").info("ready")
    logging.getLogger("ingester.x").debug("not this")
    logging.getLogger("pydicom").warning("Invalid value for VR UI: 'MEYER'")
    logging.getLogger("watchdog.observers").error("in-event b'/spool/MEYER.dcm'")
    logging.getLogger("py.warnings").warning("RuntimeWarning: the path MEYER.dcm")
    assert stream.getvalue().count("\n") == 1
    assert file.read_text() == stream.getvalue()
    assert file.stat().st_mode & 0o027 == 0


@pytest.mark.usefixtures("root_logger")
def test_a_warning_of_lost_events_is_kept_out_and_still_heard_by_who_listens() -> None:
    stream = io.StringIO()
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    set_up_logging(level="error", style="text", stream=stream)
    listener = Listener(logging.WARNING)
    logging.getLogger("watchdog").addHandler(listener)
    try:
        logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")
    finally:
        logging.getLogger("watchdog").removeHandler(listener)
    assert heard == ["Inotify queue overflowed"]
    assert stream.getvalue() == ""


@pytest.mark.usefixtures("root_logger")
def test_a_log_file_that_was_rotated_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "ingester.log"
    set_up_logging(level="info", style="text", file=file, stream=io.StringIO())
    logging.getLogger("ingester.x").info("one")
    file.rename(tmp_path / "ingester.log.1")
    logging.getLogger("ingester.x").info("two")
    assert file.read_text().endswith("two\n")
