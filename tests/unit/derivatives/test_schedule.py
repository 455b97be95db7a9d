"""Pending rows become requests, results become files and rows, trouble waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingester import durable
from ingester.archive import derivative_path
from ingester.derivatives.request import DeriveRequest, DeriveResult, Made
from ingester.derivatives.schedule import Derivations, DerivationSettings
from ingester.model import Derivative, DerivativeReason, Kind, Status
from tests.unit.derivatives.targets import made


@dataclass(frozen=True)
class Row:
    instance_id: int
    path: str
    kinds: frozenset[Kind] = frozenset(Kind)
    size_bytes: int = 100
    transfer_syntax_uid: str = "1.2.840.10008.1.2.1"
    number_of_frames: int | None = 3
    rows: int | None = 16
    columns: int | None = None


class MemoryIndex:
    """The work list and the rows, without a database."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.recorded: dict[tuple[int, Kind], Derivative] = {}
        self.batches = 0
        self.on_record: Callable[[], None] = lambda: None

    def pending_derivatives(
        self, pipeline_versions: Mapping[Kind, int], limit: int, *, exclude: Collection[int] = ()
    ) -> Sequence[Row]:
        return [
            row
            for row in self.rows
            if row.instance_id not in exclude
            and any((row.instance_id, kind) not in self.recorded for kind in row.kinds)
        ][:limit]

    def record_derivatives(self, derivatives: Sequence[Derivative]) -> None:
        self.batches += bool(derivatives)
        self.on_record()
        for each in derivatives:
            self.recorded[each.instance_id, each.kind] = each


class Steps:
    """A deriver that works when told to."""

    def __init__(self, room: int = 2) -> None:
        self.requests: list[DeriveRequest] = []
        self.ready: list[DeriveResult] = []
        self.room = room

    @property
    def has_room(self) -> bool:
        return len(self.requests) < self.room

    def submit(self, request: DeriveRequest) -> None:
        self.requests.append(request)

    def results(self) -> list[DeriveResult]:
        ready, self.ready = self.ready, []
        return ready

    def work(self) -> None:
        self.ready += [made(each) for each in self.requests]
        self.requests.clear()

    def fail(self, trouble: str) -> None:
        self.ready += [DeriveResult(each.instance_id, (), trouble) for each in self.requests]
        self.requests.clear()


class HandClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds


class Bench:
    """An archive of *count* objects, with everything around it."""

    def __init__(self, root: Path, count: int = 3, room: int = 2) -> None:
        self.root = root
        (root / ".staging").mkdir()
        (root / "X").mkdir()
        self.index = MemoryIndex([Row(n, f"X/{n}~abc.dcm") for n in range(1, count + 1)])
        self.deriver = Steps(room)
        self.clock = HandClock()
        self.derivations = Derivations(
            self.index,
            root,
            self.deriver,
            DerivationSettings(),
            self.clock,
            path_of=derivative_path,
        )

    def all(self) -> None:
        while self.derivations.turn():
            self.deriver.work()

    def files(self) -> list[str]:
        return sorted(os.listdir(self.root / "X"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_all_that_is_pending_is_made_and_recorded(bench: Bench) -> None:
    bench.all()
    assert bench.files() == [f"{n}~abc.{end}" for n in (1, 2, 3) for end in ("jpg", "mp4")]
    row = bench.index.recorded[2, Kind.VIDEO]
    assert (row.path, row.status, row.made_at) == (
        "X/2~abc.mp4",
        Status.MADE,
        "2026-11-22T00:00:00.000Z",
    )
    assert os.listdir(bench.root / ".staging") == []
    counts = bench.derivations.counts
    assert (counts.thumbnails, counts.videos, counts.failures) == (3, 3, 0)
    assert bench.derivations.pending == 0
    assert bench.derivations.wake_at is None


def test_requests_know_the_object(bench: Bench) -> None:
    bench.derivations.turn()
    request = bench.deriver.requests[0]
    assert request.path == str(bench.root / "X/1~abc.dcm")
    assert (request.number_of_frames, request.rows, request.columns) == (3, 16, 0)


def test_nothing_new_while_intake_goes_first(bench: Bench) -> None:
    assert not bench.derivations.turn(feed=False)
    assert bench.deriver.requests == []


def test_rows_are_written_in_batches(tmp_path: Path) -> None:
    bench = Bench(tmp_path, count=8, room=8)
    bench.all()
    assert bench.index.batches == 1


def test_a_batch_does_not_wait_for_ever(bench: Bench) -> None:
    bench.derivations.turn()
    bench.deriver.ready.append(made(bench.deriver.requests.pop(0)))
    assert bench.derivations.turn()
    assert bench.index.recorded == {}
    assert bench.derivations.wake_at == bench.clock.seconds + 0.5
    bench.clock.seconds += 0.5
    bench.derivations.turn()
    assert {instance for instance, _ in bench.index.recorded} == {1}


def test_finish_records_what_is_done(bench: Bench) -> None:
    bench.derivations.turn()
    bench.deriver.ready.append(made(bench.deriver.requests.pop(0)))
    bench.derivations.finish()
    assert {instance for instance, _ in bench.index.recorded} == {1}


def test_trouble_is_asked_again_later_and_never_recorded(bench: Bench) -> None:
    bench.derivations.turn()
    bench.deriver.fail("No space left on device")
    assert not bench.derivations.turn()
    assert bench.index.recorded == {}
    assert bench.deriver.requests == []
    assert bench.derivations.trouble == "derivatives: No space left on device"
    wake_at = bench.derivations.wake_at
    assert wake_at is not None
    bench.clock.seconds = wake_at
    bench.all()
    assert len(bench.index.recorded) == 6
    assert bench.derivations.trouble is None


def test_trouble_waits_longer_each_time(bench: Bench) -> None:
    waits = []
    for _ in range(4):
        bench.derivations.turn()
        bench.deriver.fail("No space left on device")
        bench.derivations.turn()
        wake_at = bench.derivations.wake_at
        assert wake_at is not None
        waits.append(wake_at - bench.clock.seconds)
        bench.clock.seconds = wake_at
    assert waits == sorted(set(waits))


def test_a_full_disk_at_the_renaming_is_trouble_too(bench: Bench) -> None:
    def full(name: str, path: str) -> None:
        if name == "replace":
            raise OSError(28, "No space left on device")

    bench.derivations.turn()
    bench.deriver.work()
    with durable.observe(full):
        bench.derivations.turn()
    assert bench.index.recorded == {}
    bench.clock.seconds += 10
    bench.all()
    assert len(bench.index.recorded) == 6


def test_file_first_then_row(bench: Bench) -> None:
    effects: list[str] = []
    bench.index.on_record = lambda: effects.append("row")
    bench.derivations.turn()
    bench.deriver.work()
    with durable.observe(lambda name, _: effects.append(name)):
        bench.derivations.turn(feed=False)
    assert effects[:6] == ["replace", "replace", "replace", "replace", "fsync-folder", "row"]


def test_what_is_no_longer_made_is_removed_after_its_row(bench: Bench) -> None:
    (bench.root / "X/1~abc.mp4").write_bytes(b"of an earlier pipeline")
    bench.derivations.turn()
    request = bench.deriver.requests[0]
    Path(request.staging).mkdir()
    (Path(request.staging) / "thumbnail.jpg").write_bytes(b"picture")
    bench.deriver.requests.clear()
    bench.deriver.ready = [
        DeriveResult(
            request.instance_id,
            (
                Made(Kind.THUMBNAIL, Status.MADE, None, {}, "thumbnail.jpg"),
                Made(Kind.VIDEO, Status.SKIPPED, DerivativeReason.NOT_A_CINE, {}, None),
            ),
        )
    ]
    bench.derivations.finish()
    assert bench.files() == ["1~abc.jpg"]
    assert bench.index.recorded[1, Kind.VIDEO].path is None


def test_a_staged_link_is_never_put_in_place(bench: Bench) -> None:
    bench.derivations.turn()
    request = bench.deriver.requests[0]
    Path(request.staging).mkdir()
    (Path(request.staging) / "thumbnail.jpg").symlink_to("/etc/passwd")
    bench.deriver.requests.clear()
    bench.deriver.ready = [
        DeriveResult(
            request.instance_id, (Made(Kind.THUMBNAIL, Status.MADE, None, {}, "thumbnail.jpg"),)
        )
    ]
    bench.derivations.turn(feed=False)
    assert bench.files() == []
    assert bench.index.recorded == {}
