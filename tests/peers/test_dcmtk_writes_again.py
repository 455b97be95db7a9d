"""DCMTK's programs write real files again: duplicates, variants, conflicts that say why."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from ingester.compare import CompareRequest, compare
from ingester.model import Outcome, Verdict
from tests.peers.conftest import program, run
from tests.reencoded import instance_of, real_files

LARGEST = 2 << 20

#: Ways to write the same values otherwise.
WAYS = {
    "explicit": ["+te"],
    "implicit": ["+ti"],
    "big endian": ["+tb"],
    "deflated": ["+td"],
    "group lengths": ["+g"],
    "defined lengths": ["+e"],
    "undefined lengths": ["-e"],
    "padding": ["+p", "512", "64"],
    "VRs of 1993": ["+te", "-u"],
    "UTF-8": ["+U8"],
    "Latin-1": ["+L1"],
}


def verdict(new: Path, old: Path) -> Verdict:
    found = compare(CompareRequest(str(new), str(old)))
    assert compare(CompareRequest(str(old), str(new))) == found
    return found


@pytest.mark.timeout(900)
def test_what_dcmconv_writes_is_a_duplicate(tmp_path: Path) -> None:
    again, made, wrong = tmp_path / "again", Counter[str](), []
    for path in real_files():
        if path.stat().st_size > LARGEST or instance_of(path) is None:
            continue
        for way, options in WAYS.items():
            again.unlink(missing_ok=True)
            arguments = [program("dcmconv"), *options, str(path), str(again)]
            done = subprocess.run(arguments, capture_output=True, timeout=60, check=False)
            if done.returncode or instance_of(again) is None:
                continue  # compressed pixels, or text that does not fit
            made[way] += 1
            found = verdict(again, path)
            if found != Verdict(Outcome.DUPLICATE):
                wrong.append((path.name, way, found.differs))
    assert wrong == []
    assert set(made) == set(WAYS)
    assert min(made.values()) > 40, made


@pytest.mark.parametrize(
    ("name", "options", "differs"),
    [
        ("dcmcrle", ["+un"], ()),
        ("dcmcjpls", ["+el", "+un"], ()),
        # It says in the header what it did: another header.
        ("dcmcjpeg", ["+e1", "+un"], ("DerivationDescription",)),
    ],
)
def test_what_their_compressors_write_is_a_variant_or_says_what_they_changed(
    tmp_path: Path, name: str, options: list[str], differs: tuple[str, ...]
) -> None:
    (path,) = [each for each in real_files() if each.name == "CT_small.dcm"]
    compressed = tmp_path / "compressed"
    run(name, *options, path, compressed)
    found = verdict(compressed, path)
    assert found.differs == differs
    assert found.outcome is (Outcome.CONFLICT if differs else Outcome.VARIANT)
    assert found.pixels_differ is (None if differs else False)
