"""Every real file there is, written again in every encoding: the same object each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ingester.compare import CompareRequest, compare
from ingester.model import Outcome, Verdict
from tests.reencoded import by_pydicom, instance_of, real_files

DUPLICATE = Verdict(Outcome.DUPLICATE)
LARGEST = 8 << 20  # pydicom writes no faster than this is worth waiting for


@pytest.mark.timeout(1800)
def test_every_file_in_another_encoding_is_a_duplicate(corpus: Path, tmp_path: Path) -> None:
    files = [*real_files(), *sorted(path for path in corpus.rglob("*") if path.is_file())]
    again, made, wrong = tmp_path / "again", Counter[str](), []
    for path in files:
        if path.stat().st_size > LARGEST or instance_of(path) is None:
            continue
        assert compare(CompareRequest(str(path), str(path))) == DUPLICATE, path
        for encoding, data in by_pydicom(path):
            again.write_bytes(data)
            found = compare(CompareRequest(str(again), str(path)))
            assert compare(CompareRequest(str(path), str(again))) == found, path
            made[encoding] += 1
            if found != DUPLICATE:
                wrong.append((str(path), encoding, found.differs))
    assert wrong == []
    assert len(made) == 4
    assert min(made.values()) > 100, made
