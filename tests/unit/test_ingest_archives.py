"""Archive files on their way through the line: in pages, in order, with their batch."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from ingester.ingest import IngestSettings
from ingester.unpack import UnpackLimits
from tests.archives import Kind, make_archive
from tests.factory import drop, encoded, instance
from tests.site import Site, drain

PAGE = 512  # members


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        archive.addfile(header, io.BytesIO(data))
    return out.getvalue()


def unpacked_files(site: Site) -> int:
    """Return how many members lie unpacked at this moment."""
    return sum(
        len(names)
        for here, _, names in os.walk(site.spool.root / ".claimed")
        if Path(here).name == "members"
    )


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_file_takes_two_pages_of_room_and_says_how_far_it_is(
    site: Site, kind: Kind
) -> None:
    count = 3 * PAGE
    make_archive(site.spool.root / f"box.{kind}", count, kind=kind)
    seen: list[tuple[int, int | None]] = []
    room = 0
    with site.ingesting() as ingest:
        ingest.turn(look=True)
        while not ingest.is_idle:
            ingest.turn(look=False)
            seen += [(each.members, each.members_total) for each in ingest.archives]
            room = max(room, unpacked_files(site))
            assert sum(ingest.counts.outcomes.values()) + ingest.claimed + ingest.to_come <= (
                count + 1
            )
        assert ingest.archives == []
    assert room <= 2 * PAGE
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {count}
    assert len({members for members, _ in seen}) > 2 * count // PAGE  # twice a page, and more
    assert site.outcomes() == {"archived": count, "unpacked": 1}
    assert site.rows(
        "SELECT json_extract(detail, '$.members') FROM arrivals WHERE outcome = 'unpacked'"
    ) == [count]
    names = site.rows(
        "SELECT original_name FROM arrivals WHERE outcome = 'archived' ORDER BY arrival_id"
    )
    assert len(names) == len(set(names))
    assert names[0] == f"box.{kind}/SERIES0001/IM000001"
    site.check()
    assert site.left_in_spool() == []


def test_members_keep_their_order_among_other_files(site: Site) -> None:
    """Which of several versions is current depends on the order of claiming alone."""
    drop(site.spool.root / "a", instance(1, 1, 1, 1))
    drop(site.spool.root / "b.zip", zipped(x=encoded(instance(1, 1, 1, 1, PatientID="X"))))
    drop(site.spool.root / "c", instance(1, 1, 1, 1, PatientID="Y"))
    site.ingest_all()
    rows = site.rows(
        "SELECT outcome, original_name FROM arrivals WHERE instance_id IS NOT NULL"
        " ORDER BY instance_id"
    )
    assert rows == [("archived", "a"), ("conflict", "b.zip/x"), ("conflict", "c")]


def test_everything_bears_the_batch_that_people_look_for(site: Site) -> None:
    inner = zipped(IM1=encoded(instance(3)))
    drop(site.spool.root / "top.zip", zipped(IM1=encoded(instance(1)), note=b"text " * 40))
    drop(site.spool.root / "CT1/own.zip", zipped(IM1=encoded(instance(2))))
    drop(site.spool.root / "CT1/CD_7/deep/inner.zip", zipped(**{"x.zip": inner}))
    drop(site.spool.root / "bad.tar.gz", tarred("IM1", encoded(instance(4)))[:-30])
    drop(site.spool.root / "single", instance(5))
    site.ingest_all()
    rows = site.rows("SELECT source, batch, original_name, outcome FROM arrivals ORDER BY 1, 2, 3")
    assert rows == [
        ("CT1", "CD_7", "CD_7/deep/inner.zip", "unpacked"),
        ("CT1", "CD_7", "CD_7/deep/inner.zip/x.zip", "unpacked"),
        ("CT1", "CD_7", "CD_7/deep/inner.zip/x.zip/IM1", "archived"),
        ("CT1", "own.zip", "own.zip", "unpacked"),
        ("CT1", "own.zip", "own.zip/IM1", "archived"),
        ("MANUAL", None, "single", "archived"),
        ("MANUAL", "bad.tar.gz", "bad.tar.gz", "quarantined"),
        ("MANUAL", "top.zip", "top.zip", "unpacked"),
        ("MANUAL", "top.zip", "top.zip/IM1", "archived"),
        ("MANUAL", "top.zip", "top.zip/note", "foreign"),
    ]
    site.check()


def test_a_batch_is_under_way_for_as_long_as_its_archive_file_is(site: Site) -> None:
    make_archive(site.spool.root / "box.zip", PAGE + 100)
    is_first_turn = True
    with site.ingesting() as ingest:
        ingest.turn(look=True)
        while not ingest.is_idle:
            ingest.turn(look=False)
            if not ingest.is_idle and (ingest.archives or not is_first_turn):
                assert ("MANUAL", "box.zip") in ingest.batches_under_way()
            is_first_turn = is_first_turn and not ingest.archives


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("zip", "zip"), ("zip", "tar.gz"), ("tar.gz", "zip"), ("tar.gz", "tar.gz")],
)
def test_an_archive_file_in_another_is_unpacked_and_a_third_is_kept_and_explained(
    site: Site, outer: str, inner: str
) -> None:
    def packed(kind: str, name: str, data: bytes) -> bytes:
        return zipped(**{name: data}) if kind == "zip" else tarred(name, data)

    third = packed(inner, "IM3", encoded(instance(3)))
    second = packed(inner, "third", third)
    drop(site.spool.root / "box", packed(outer, "second", second))
    site.ingest_all()
    assert site.outcomes() == {"unpacked": 2, "quarantined": 1}
    ((arrival_id, message),) = site.rows(
        "SELECT arrival_id, json_extract(detail, '$.message') FROM arrivals"
        " WHERE outcome = 'quarantined'"
    )
    assert "drop it" in message
    kept = site.spool.quarantine_folder / arrival_id / "third"
    assert kept.read_bytes() == third
    site.check()


def test_a_gzipped_object_is_unpacked_and_other_gzipped_files_are_foreign(site: Site) -> None:
    drop(site.spool.root / "IM1.dcm.gz", gzip.compress(encoded(instance(1))))
    drop(site.spool.root / "log.gz", gzip.compress(b"a line of text\n" * 500))
    drop(site.spool.root / "CD/cut.gz", gzip.compress(encoded(instance(2)))[:-40])
    site.ingest_all()
    assert site.rows("SELECT original_name, outcome, reason FROM arrivals ORDER BY 1") == [
        ("CD/cut.gz", "quarantined", "incomplete"),
        ("IM1.dcm.gz", "unpacked", None),
        ("IM1.dcm.gz/IM1.dcm", "archived", None),
        ("log.gz", "foreign", "not-dicom"),
    ]
    site.check()


def test_an_empty_archive_file_is_unpacked_into_nothing(site: Site) -> None:
    drop(site.spool.root / "empty.zip", zipped())
    site.ingest_all()
    assert site.outcomes() == {"unpacked": 1}
    site.check()


def test_each_limit_names_the_key_to_raise(site: Site) -> None:
    drop(site.spool.root / "many.zip", zipped(a=b"1", b=b"2", c=b"3"))
    drop(site.spool.root / "large.zip", zipped(a=bytes(range(256)) * 40))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(8000))
    drop(site.spool.root / "dense.zip", out.getvalue())
    limits = UnpackLimits(members=2, total_bytes=10_000, ratio=20, ratio_floor_bytes=4000)
    site.ingest_all(unpack_limits=limits)
    rows = site.rows(
        "SELECT original_name, reason, json_extract(detail, '$.message') FROM arrivals ORDER BY 1"
    )
    assert [(name, reason) for name, reason, _ in rows] == [
        ("dense.zip", "bomb"), ("large.zip", "bomb"), ("many.zip", "bomb"),
    ]  # fmt: skip
    for key, (_, _, message) in zip(("ratio", "bytes", "members"), rows, strict=True):
        assert f"[limits] archive_{key}" in message
        assert "retry" in message
    site.check()


def test_what_is_claimed_does_not_make_a_start_wait_for_a_whole_archive_file(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "site", settings=IngestSettings())
    site.spool.make_folders()
    make_archive(site.spool.root / "box.zip", PAGE + 50)
    (arrival,) = site.spool.look()
    assert len(list(site.spool.claim([arrival], site.clock.now()))) == 1
    with site.ingesting() as ingest:  # which recovers first
        assert sum(site.outcomes().values()) < PAGE
        drain(ingest)
    assert site.outcomes() == {"archived": PAGE + 50, "unpacked": 1}
    site.check()


def test_a_stop_in_the_middle_of_an_archive_file_finishes_what_is_out_of_it(site: Site) -> None:
    make_archive(site.spool.root / "box.zip", 4 * PAGE)
    with site.ingesting() as ingest:
        ingest.turn(look=True)
        while not ingest.archives or not ingest.archives[0].members:
            ingest.turn(look=False)
        assert not ingest.drain(30)
        assert ingest.claimed == 1
    done = site.outcomes()["archived"]
    assert PAGE <= done < 4 * PAGE
    site.ingest_all()
    assert site.outcomes() == {"archived": 4 * PAGE, "unpacked": 1}
    site.check()
