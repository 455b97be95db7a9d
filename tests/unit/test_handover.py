"""Files from elsewhere reach the spool whole, named for what they are, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingester import durable
from ingester.errors import Retry
from ingester.handover import (
    CannotRead,
    Found,
    Handover,
    Scroll,
    is_foreign,
    take_away,
    walk,
)
from ingester.ignore import Ignore
from ingester.model import SystemClock
from ingester.spool import Spool
from tests.factory import drop, encoded, instance


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.root.mkdir()
    made.make_folders()
    return made


def handover(spool: Spool, min_free_bytes: int = 0) -> Handover:
    return Handover(
        spool.root, "CT9", SystemClock(), folder_mode=0o2770, min_free_bytes=min_free_bytes
    )


def test_the_walk_names_batches_and_leaves_litter_and_links_out(tmp_path: Path) -> None:
    cd = tmp_path / "CD_7"
    for name in ("IMAGES/1", "IMAGES/2", "Thumbs.db", ".DS_Store", "half.part", "__MACOSX/x"):
        drop(cd / name, b"x")
    (cd / "link").symlink_to("/etc/passwd")
    (cd / "IMAGES/all").symlink_to(cd)
    os.mkfifo(cd / "pipe")
    single = drop(tmp_path / "single.dcm", b"x")
    skipped: list[Path] = []
    named = [cd, single, tmp_path / "CD_7/."]
    found = list(walk(named, Ignore(), lambda path, _: skipped.append(path)))
    assert [(each.name, each.batch) for each in found] == [
        ("CD_7/IMAGES/1", "CD_7"),
        ("CD_7/IMAGES/2", "CD_7"),
        ("single.dcm", None),
    ]
    assert skipped == [cd / "link", cd / "pipe", cd / "IMAGES/all", cd]
    assert [each.size_bytes for each in found] == [1, 1, 1]


def test_a_file_is_brought_whole_with_source_batch_id_and_name(
    spool: Spool, tmp_path: Path
) -> None:
    path = drop(tmp_path / "CD 7/a file.dcm", instance(1))
    with handover(spool) as bringing:
        handed = bringing.bring(Found(path, "CD 7/a file.dcm", None), "März/1")
        assert list(spool.look()) == []
        bringing.flush()
    (arrival,) = spool.look()
    assert arrival.arrival_id == handed.arrival_id
    assert (arrival.source, arrival.batch, arrival.is_received) == ("CT9", "März/1", True)
    assert arrival.original_name == "CD 7/a file.dcm"
    assert (arrival.root / arrival.relative).read_bytes() == path.read_bytes()
    assert take_away(handed)
    assert not path.exists()


def test_an_original_that_changed_since_is_not_taken_away(spool: Spool, tmp_path: Path) -> None:
    path = drop(tmp_path / "a", instance(1))
    with handover(spool) as bringing:
        handed = bringing.bring(Found(path, "a", None), None)
        bringing.flush()
    drop(path, instance(2, StudyDescription="Another"))
    assert not take_away(handed)
    assert path.exists()


def test_names_that_are_no_text_or_very_long_come_through(spool: Spool, tmp_path: Path) -> None:
    batch = "頭部" * 42
    drop(tmp_path / batch / ("影" * 85), instance(1))
    drop(tmp_path / os.fsdecode(b"\xe9t\xe9") / "a", instance(2))
    with handover(spool) as bringing:
        for found in walk(sorted(tmp_path.glob("[!s]*")), Ignore(), lambda *_: None):
            bringing.bring(found, found.batch)
        bringing.flush()
    assert {arrival.batch for arrival in spool.look()} == {batch, "\\xe9t\\xe9"}


def full(effect: str, path: str) -> None:
    if effect == "write":
        raise OSError(28, "No space left on device")


def test_an_error_in_between_leaves_no_half_group(spool: Spool, tmp_path: Path) -> None:
    path = drop(tmp_path / "a", instance(1))
    with handover(spool) as bringing:
        bringing.bring(Found(path, "a", None), None)
        with pytest.raises(OSError, match="No space left"), durable.observe(full):
            bringing.bring(Found(path, "a", None), None)
    assert os.listdir(spool.root / ".receiving") == []
    assert list(spool.look()) == []
    assert path.exists()


class Changing:
    """Lets a file grow each time that something is written, so that no reading is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, effect: str, path: str) -> None:
        if effect == "write":
            with self._path.open("ab") as file:
                file.write(b"more")


def test_a_file_that_cannot_be_brought_does_not_hold_up_the_next(
    spool: Spool, tmp_path: Path
) -> None:
    path, restless = drop(tmp_path / "a", instance(1)), drop(tmp_path / "b", instance(2))
    with handover(spool) as bringing:
        with pytest.raises(CannotRead, match="gone"):
            bringing.bring(Found(tmp_path / "gone", "gone", None), None)
        with pytest.raises(CannotRead, match="Is a directory"):
            bringing.bring(Found(tmp_path, "folder", None), None)
        with pytest.raises(CannotRead, match="changes"), durable.observe(Changing(restless)):
            bringing.bring(Found(restless, "b", None), None)
        bringing.bring(Found(path, "a", None), None)
        bringing.flush()
    assert [each.original_name for each in spool.look()] == ["a"]
    assert os.listdir(spool.root / ".receiving") == []


def test_a_long_list_is_kept_in_no_memory_and_leaves_no_file(tmp_path: Path) -> None:
    names = [f"IM{number}" for number in range(1000)] + [os.fsdecode(b"\xe9")]
    scroll = Scroll[Found](tmp_path)
    for name in names:
        scroll.append(Found(Path(name), name, None, 7))
    assert len(scroll) == 1001
    for _ in range(2):
        assert [each.name for each in scroll] == names
    assert os.listdir(tmp_path) == []
    scroll.close()


def test_a_full_disk_is_said_before_anything_is_written(spool: Spool, tmp_path: Path) -> None:
    path = drop(tmp_path / "a", instance(1))
    with handover(spool, 2**62) as bringing:
        with pytest.raises(Retry, match="min_free"):
            bringing.make_sure_of_room(0)
        with pytest.raises(Retry, match="min_free"):
            bringing.bring(Found(path, "a", None), None)
    assert os.listdir(spool.root / ".receiving") == []


def test_many_files_share_their_flushes(spool: Spool, tmp_path: Path) -> None:
    paths = [drop(tmp_path / str(number), b"x") for number in range(130)]
    with handover(spool) as bringing:
        for path in paths:
            bringing.bring(Found(path, path.name, None), None)
        bringing.flush()
    assert len(list(spool.look())) == 130


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True),
        (b"MZ" + bytes(500), True),
        (b"How to use this CD\n" * 30, True),
        (encoded(instance(1)), False),
        (b"PK\x03\x04" + bytes(100), False),
    ],
)
def test_what_surely_is_no_dicom_is_known_by_its_first_bytes(
    tmp_path: Path, data: bytes, expected: bool
) -> None:
    assert is_foreign(drop(tmp_path / "a", data)) is expected
