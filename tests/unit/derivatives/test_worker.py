"""A decoder that crashes, hangs, spins or eats memory costs one derivative."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingester.derivatives.confine import waited_seconds
from ingester.derivatives.request import Allowance, DeriveRequest, DeriveResult, allowance
from ingester.derivatives.worker import Deriver, clear
from ingester.model import DerivativeReason, Kind, Status
from tests.factory import drop
from tests.unit.derivatives import targets
from tests.unit.derivatives.films import cine

TARGET = "tests.unit.derivatives.targets:by_number"
THUMBNAIL = frozenset({Kind.THUMBNAIL})
GIB = 2**30
PATIENT = Allowance(wall_seconds=30, cpu_seconds=20, memory_bytes=4 * GIB, file_bytes=GIB)


def allowed(request: DeriveRequest) -> Allowance:
    """Give little time to those that would use all of it."""
    if request.instance_id in (targets.HANG, targets.CHILD):
        return replace(PATIENT, wall_seconds=0.4)
    return replace(PATIENT, cpu_seconds=0 if request.instance_id == targets.SPIN else 20)


class Run:
    """A deriver, and the waiting for what it finishes."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self.deriver = Deriver(1, on_ready=self._ready.set, target=TARGET, allowed=allowed)

    def results(self, *requests: DeriveRequest) -> list[DeriveResult]:
        for each in requests:
            self.deriver.submit(each)
        found: list[DeriveResult] = []
        while self.deriver.pending:
            assert self._ready.wait(30)
            self._ready.clear()
            found += self.deriver.results()
        return sorted(found, key=lambda each: each.instance_id)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """One deriver for all: what one test breaks, the next must find mended."""
    run = Run()
    yield run
    run.deriver.close()


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[..., DeriveRequest]:
    def made(number: int, kinds: frozenset[Kind] = THUMBNAIL) -> DeriveRequest:
        return DeriveRequest(
            instance_id=number,
            path=str(tmp_path / "note"),
            path_in_archive=f"X/{number}.dcm",
            staging=str(tmp_path / f"derive-{number}"),
            kinds=kinds,
        )

    return made


type_request_of = Callable[..., DeriveRequest]


def test_one_worker_serves_many(run: Run, request_of: type_request_of) -> None:
    found = run.results(*(request_of(number) for number in range(5)))
    assert [each.instance_id for each in found] == [0, 1, 2, 3, 4]
    assert len({each.made[0].detail["process"] for each in found}) == 1


def test_room_is_two_requests_a_worker(run: Run, request_of: type_request_of) -> None:
    assert run.deriver.has_room
    run.deriver.submit(request_of(7))
    assert run.deriver.has_room
    run.deriver.submit(request_of(8))
    assert not run.deriver.has_room
    assert len(run.results()) == 2
    assert run.deriver.has_room


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (targets.SEGFAULT, DerivativeReason.DECODER_CRASHED),
        (targets.EAT, DerivativeReason.DECODER_CRASHED),
        (targets.RAISE, DerivativeReason.DECODER_CRASHED),
        (targets.HANG, DerivativeReason.TIMEOUT),
        (targets.SPIN, DerivativeReason.TIMEOUT),
    ],
)
def test_a_failure_costs_one_picture_and_leaves_a_card(
    run: Run,
    request_of: type_request_of,
    number: int,
    reason: DerivativeReason,
    capfd: pytest.CaptureFixture[str],
) -> None:
    good, bad = run.results(request_of(1), request_of(number))
    assert good.made[0].status is Status.MADE
    (card,) = bad.made
    assert (card.status, card.reason) == (Status.FAILED, reason)
    assert card.detail["rendering"] == "card"
    assert card.staged is not None
    (after,) = run.results(request_of(2))
    assert after.made[0].status is Status.MADE
    assert "note" not in capfd.readouterr().err


def test_a_video_s_failure_spares_the_thumbnail(run: Run, request_of: type_request_of) -> None:
    (found,) = run.results(request_of(targets.CRASH_AT_VIDEO, frozenset(Kind)))
    made = {each.kind: each for each in found.made}
    assert made[Kind.VIDEO].reason is DerivativeReason.DECODER_CRASHED
    assert made[Kind.VIDEO].staged is None
    assert made[Kind.THUMBNAIL].status is Status.MADE


def test_where_even_the_card_fails_the_row_says_so(run: Run, request_of: type_request_of) -> None:
    (found,) = run.results(request_of(targets.CRASH_ALWAYS, frozenset(Kind)))
    assert {each.kind for each in found.made} == set(Kind)
    for each in found.made:
        assert (each.status, each.staged) == (Status.FAILED, None)
        assert each.reason is DerivativeReason.DECODER_CRASHED


def test_an_answer_for_another_object_is_not_believed(
    run: Run, request_of: type_request_of
) -> None:
    (found,) = run.results(request_of(targets.LIE))
    assert found.instance_id == targets.LIE
    assert found.made[0].status is Status.FAILED


def test_children_die_with_their_worker(
    run: Run, request_of: type_request_of, tmp_path: Path
) -> None:
    run.results(request_of(targets.CHILD))
    child = int((tmp_path / "note").read_text())
    try:
        descriptor = os.pidfd_open(child)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 10)[0]
    finally:
        os.close(descriptor)


def test_the_template_s_death_is_survived(run: Run, request_of: type_request_of) -> None:
    (found,) = run.results(request_of(targets.KILL_TEMPLATE))
    assert found.made[0].reason is DerivativeReason.DECODER_CRASHED
    (after,) = run.results(request_of(3))
    assert after.made[0].status is Status.MADE


def test_close_ends_all_processes(request_of: type_request_of) -> None:
    run = Run()
    run.deriver.submit(request_of(targets.HANG))
    process = run.deriver._process
    assert process is not None
    run.deriver.close()
    assert process.returncode == 0
    assert run.deriver.pending == 0


def test_confinement(run: Run, request_of: type_request_of) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        (found,) = run.results(replace(request_of(targets.REPORT), path_in_archive=port))
    detail = found.made[0].detail
    assert detail["nice"] == 19
    assert detail["idle"] or "scheduling" in run.deriver.refused
    assert detail["oom"] == 500 or "oom-score" in run.deriver.refused
    assert not detail["network"] or "network" in run.deriver.refused
    assert (detail["core"], detail["files"], detail["memory"]) == (0, 32, 4 * GIB)
    assert detail["leader"]
    assert detail["threads"] == 1
    assert "HOME" not in detail["environment"]
    assert len(detail["descriptors"]) <= 2  # its pipe, and the listing itself


def test_long_answers_arrive_whole(run: Run, request_of: type_request_of) -> None:
    (found,) = run.results(request_of(targets.LONG))
    assert len(found.made[0].detail["frame_map"]) == 30_000


def test_the_pipeline_itself(tmp_path: Path) -> None:
    ready = threading.Event()
    path = drop(tmp_path / "a.dcm", cine(4))
    asked = DeriveRequest(
        1, str(path), "X/a.dcm", str(tmp_path / "s"), frozenset(Kind), number_of_frames=4
    )
    with Deriver(1, on_ready=ready.set, allowed=allowance) as deriver:
        deriver.submit(asked)
        found: list[DeriveResult] = []
        while not found:
            assert ready.wait(30)
            ready.clear()
            found = deriver.results()
    assert [each.status for each in found[0].made] == [Status.MADE, Status.MADE]
    assert sorted(os.listdir(tmp_path / "s")) == ["thumbnail.jpg", "video.mp4"]
    clear(str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_waiting_for_a_processor_is_told() -> None:
    assert waited_seconds(os.getpid()) >= 0
    assert waited_seconds(2**22 + 1) == 0
