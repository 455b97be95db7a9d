"""One gzipped object: an archive file of one member."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ingester.model import ContainerKind, Reason
from ingester.unpack import Extracted, ExtractRequest, Survey, UnpackLimits, extract
from tests.factory import encoded, instance


def unpacked(
    folder: Path, archive: bytes, name: str = "IM1.dcm.gz", limits: UnpackLimits | None = None
) -> Extracted:
    (folder / "members").mkdir()
    (folder / name).write_bytes(archive)
    return extract(
        ExtractRequest(
            str(folder / name),
            ContainerKind.GZIP,
            str(folder / "members"),
            limits=limits or UnpackLimits(),
        )
    )


@pytest.mark.parametrize(
    ("name", "inside"),
    [("IM1.dcm.gz", "IM1.dcm"), ("IM1.GZ", "IM1"), ("IM1", "IM1"), (".gz", ".gz")],
)
def test_the_one_member_bears_the_name_without_its_ending(
    tmp_path: Path, name: str, inside: str
) -> None:
    data = encoded(instance(1))
    found = unpacked(tmp_path, gzip.compress(data), name)
    (member,) = found.members
    assert (member.name, Path(member.path or "").read_bytes()) == (inside, data)
    assert (found.next, found.survey) == (None, Survey(1, len(data)))


def test_what_an_earlier_run_has_seen_to_is_not_unpacked_again(tmp_path: Path) -> None:
    path = tmp_path / "IM1.gz"
    path.write_bytes(gzip.compress(b"1"))
    request = ExtractRequest(str(path), ContainerKind.GZIP, str(tmp_path), done=frozenset({1}))
    found = extract(request)
    assert (found.members, found.next, found.refusal) == ((), None, None)


def test_what_is_cut_short_damaged_or_too_large_is_refused_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    whole = gzip.compress(encoded(instance(1)))
    damaged = bytearray(whole)
    damaged[-6] ^= 0xFF
    cases = [
        (whole[:-20], UnpackLimits(), Reason.INCOMPLETE),
        (bytes(damaged), UnpackLimits(), Reason.MALFORMED),
        (whole, UnpackLimits(total_bytes=500), Reason.BOMB),
        (
            gzip.compress(bytes(2_000_000), mtime=0),
            UnpackLimits(ratio_floor_bytes=1_000_000),
            Reason.BOMB,
        ),
    ]
    for number, (data, limits, reason) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        refusal = unpacked(tmp_path / str(number), data, limits=limits).refusal
        assert refusal is not None
        assert (refusal.reason, "gzip" in refusal.message) == (reason, True)
        assert list((tmp_path / str(number) / "members").iterdir()) == []
