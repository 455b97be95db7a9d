"""Readers beside the writer: the write-ahead log is kept short, and nobody meets a lock."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingester import durable
from ingester.errors import Retry
from ingester.index import Event, Reader, Writer
from ingester.index.connection import connect_writer
from ingester.index.migrations import MIGRATIONS, migrate
from tests.unit.index.records import archived, at, header

#: A checkpoint is due after so many changed rows.
DUE = 8000


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer.open(tmp_path / "index.db")
    yield writer
    writer.close()


def reading(path: Path) -> sqlite3.Connection:
    """Open the index as a user's tool does, without any patience."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0, isolation_level=None)


def log_of(writer: Writer) -> int:
    return writer.path.with_name("index.db-wal").stat().st_size


def events(count: int, width: int = 1) -> list[Event]:
    return [Event(at(0), "disk.low", None, {"text": "x" * width})] * count


def effects_of_a_start(path: Path, *columns: str) -> list[str]:
    """Open and close a writer; at each of its steps a user's tool reads the index."""
    seen = []

    def look(effect: str, _: str) -> None:
        seen.append(effect)
        if path.exists():
            with closing(reading(path)) as user:
                assert user.execute("SELECT count(*) FROM images").fetchone() == (0,)

    with durable.observe(look):
        Writer.open(path, columns=columns).close()
    return seen


def test_a_new_index_is_whole_before_it_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    assert "replace" in effects_of_a_start(path)
    assert os.listdir(tmp_path) == ["index.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "replace" not in effects_of_a_start(path)


def test_an_index_is_read_while_it_is_migrated_and_gets_columns(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with closing(connect_writer(path)) as old:
        migrate(old, path, MIGRATIONS[:1])
        old.execute("DROP VIEW IF EXISTS images")
        old.execute("CREATE VIEW images AS SELECT * FROM instances")
    seen = effects_of_a_start(path, "KVP", "Exposure")
    assert seen.count("commit") >= len(MIGRATIONS[1:]) + 1
    with Reader.open(path) as reader:
        assert reader.rows("SELECT kvp, exposure, modality FROM images") == []


def test_an_empty_file_becomes_an_index(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    path.touch()
    Writer.open(path).close()
    with Reader.open(path) as reader:
        assert reader.rows("SELECT count(*) AS n FROM images") == [{"n": 0}]


def test_the_log_of_an_index_that_is_gone_is_not_taken_for_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    writer = Writer.open(path)
    writer.checkpoint(idle=True)
    writer.add_events(events(3))
    kept = path.with_name("index.db-wal").read_bytes()
    writer.close()
    path.unlink()
    path.with_name("index.db-wal").write_bytes(kept)
    writer = Writer.open(path)
    assert writer.run_in_transaction(lambda c: c.execute("SELECT * FROM events").fetchall()) == []
    writer.close()


def test_whatever_is_written_moves_the_log_into_the_database(writer: Writer) -> None:
    seen = []
    with durable.observe(lambda effect, _: seen.append(effect)):
        writer.add_events(events(DUE - 1))
        writer.add_events(events(1))
        assert "checkpoint" not in seen
        writer.add_events(events(1))
    assert seen.count("checkpoint") == 1


def test_a_reader_keeps_the_log_only_as_long_as_it_reads(writer: Writer) -> None:
    user = reading(writer.path)
    user.execute("BEGIN")
    assert user.execute("SELECT count(*) FROM events").fetchone() == (0,)
    writer.add_events(events(500))
    writer.checkpoint(idle=True)
    assert writer.has_log
    assert log_of(writer) > 0
    assert user.execute("SELECT count(*) FROM events").fetchone() == (0,)
    user.close()
    writer.checkpoint(idle=True)
    assert not writer.has_log
    assert log_of(writer) == 0
    writer.add_events(events(1))
    assert writer.has_log


def test_a_log_that_grew_behind_readers_begins_anew(writer: Writer) -> None:
    """Somebody is always reading, but nobody for long: the log must end somewhere."""
    is_over = threading.Event()
    answers = []

    def read_on_and_on() -> None:
        before = None
        while not is_over.is_set():
            user = reading(writer.path)
            user.execute("BEGIN")
            answers.append(user.execute("SELECT max(event_id) FROM events").fetchone())
            if before is not None:
                before.close()
            before = user
        if before is not None:
            before.close()

    users = threading.Thread(target=read_on_and_on)
    users.start()
    longest = written = 0
    try:
        while written < 8 * DUE:
            writer.add_events(events(1000, 3000))
            written += 1000
            longest = max(longest, log_of(writer))
    finally:
        is_over.set()
        users.join()
    assert len(set(answers)) > 10
    assert longest < 6 * DUE * 4096


def test_a_locked_index_is_said_to_be_locked(writer: Writer) -> None:
    with closing(sqlite3.connect(writer.path, isolation_level=None)) as user:
        user.execute("BEGIN IMMEDIATE")
        with pytest.raises(Retry, match="another program is changing it"):
            writer.record([archived(header())])
        user.execute("ROLLBACK")
    assert writer.record([archived(header())]) == [1]


def test_who_may_only_read_reads_beside_the_writer_and_without_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.db"
        writer = Writer.open(path, mode=0o644)
        writer.record([archived(header())])
        path.parent.chmod(0o555)
        assert read_as_nobody(path) == 1
        path.parent.chmod(0o755)
        writer.close()
        path.parent.chmod(0o555)
        assert read_as_nobody(path) == 1
        path.parent.chmod(0o755)


def read_as_nobody(path: Path) -> int:
    """Count the objects as somebody who may not write the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        found = 99
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            with Reader.open(path) as reader:
                (row,) = reader.rows("SELECT count(*) AS n FROM instances")
                found = row["n"]
        finally:
            os._exit(found)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
