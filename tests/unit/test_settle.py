"""Is a file finished being written?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingester.model import FileIdentity, WriterState
from ingester.settle import OVERRULED_AFTER, Settling, ignore_lease_breaks, probe_path


def identity(size: int = 10, mtime_ns: int = 1) -> FileIdentity:
    return FileIdentity(1, 2, size, mtime_ns, 3, 1, True)


def test_a_lease_tells_whether_a_writer_is_left(tmp_path: Path) -> None:
    ignore_lease_breaks()
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(b"x")
        file.flush()
        assert probe_path(str(path)) is WriterState.WRITING
    assert probe_path(str(path)) is WriterState.FREE
    os.mkfifo(tmp_path / "fifo")
    assert probe_path(str(tmp_path / "fifo")) is WriterState.UNKNOWN
    (tmp_path / "link").symlink_to(path)
    assert probe_path(str(tmp_path / "link")) is WriterState.UNKNOWN
    assert probe_path(str(tmp_path / "nothing")) is WriterState.UNKNOWN


def test_no_time_passes_where_the_kernel_grants_the_lease() -> None:
    settling = Settling(quiet=2, empty_after=900)
    assert settling.wait_until("a", identity(), WriterState.FREE, 100) is None


def test_without_a_lease_the_file_must_be_still_for_a_while() -> None:
    settling = Settling(quiet=2, empty_after=900)
    assert settling.wait_until("a", identity(), WriterState.UNKNOWN, 100) == 102
    assert settling.wait_until("a", identity(size=11), WriterState.UNKNOWN, 101.5) == 103.5
    assert settling.wait_until("a", identity(size=11), WriterState.UNKNOWN, 103) == 103.5
    assert settling.wait_until("a", identity(size=11), WriterState.UNKNOWN, 103.5) is None
    assert settling.wait_until("b", identity(), WriterState.UNKNOWN, 100, quiet=10) == 110


def test_a_writer_that_never_closes_is_overruled() -> None:
    settling = Settling(quiet=2, empty_after=900)
    assert settling.wait_until("a", identity(), WriterState.WRITING, 100) == 100.5
    due = settling.wait_until("a", identity(), WriterState.WRITING, 100 + OVERRULED_AFTER - 0.1)
    assert due == pytest.approx(100 + OVERRULED_AFTER)
    assert settling.wait_until("a", identity(), WriterState.WRITING, 130) is None


def test_an_empty_file_waits_for_its_first_byte() -> None:
    settling = Settling(quiet=2, empty_after=900)
    assert settling.wait_until("a", identity(size=0), WriterState.FREE, 0) == 900
    assert settling.wait_until("a", identity(size=5), WriterState.FREE, 10) is None


def test_what_has_gone_is_forgotten() -> None:
    settling = Settling(quiet=2, empty_after=900)
    settling.begin_round()
    settling.wait_until("a", identity(), WriterState.UNKNOWN, 0)
    settling.wait_until("b", identity(), WriterState.UNKNOWN, 0)
    settling.end_round()
    assert len(settling) == 2
    settling.begin_round()
    settling.wait_until("a", identity(), WriterState.UNKNOWN, 1)
    settling.end_round()
    assert len(settling) == 1
    settling.forget("a")
    assert len(settling) == 0
