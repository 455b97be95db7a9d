from __future__ import annotations

import json
import os

import pytest

from ingester.receivers.tally import Figures, Reporter, Tally


def test_lines_are_whole_even_when_nobody_reads() -> None:
    reader, writer = os.pipe()
    reporter = Reporter(writer)
    line = json.dumps({"message": "x" * 6000}).encode() + b"\n"
    written = sum(reporter.write(line) for _ in range(50))
    assert 0 < written < 50
    got = os.read(reader, 2**20)
    assert reporter.write(line)
    os.close(writer)
    while more := os.read(reader, 2**20):
        got += more
    os.close(reader)
    assert got == line * (written + 1)


def test_a_parent_that_is_gone_is_noticed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        Reporter(writer).write(b"x\n")
    os.close(writer)


def test_figures_cross_the_pipe() -> None:
    rings: list[int] = []
    tally = Tally(lambda: rings.append(1))
    tally.entered("CT1", "a1")
    tally.entered("MR", "b2")
    tally.stored("CT1", 100)
    tally.failed()
    tally.refused()
    tally.left("b2")
    assert Figures.read(json.loads(tally.line("short of space"))) == Figures(
        associations=1,
        associations_total=2,
        objects=1,
        bytes=100,
        refused_associations=1,
        failed_objects=1,
        last_source="CT1",
        trouble="short of space",
        open=(("CT1", "a1"),),
    )
    assert len(rings) == 6
