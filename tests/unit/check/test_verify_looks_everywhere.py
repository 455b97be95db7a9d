"""What verify sees beside objects and their files, what repair does about it, and when it stops."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingester.check import Part, repair, verify
from ingester.index.writer import Writer
from ingester.quarantine import Quarantined
from tests.factory import drop, encoded, instance, uid
from tests.site import Site
from tests.unit.check.scenarios import derive
from tests.unit.test_unpack_dicomdir import dicomdir, record


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = Site(tmp_path_factory.mktemp("built"))
    root = site.spool.root
    for number in range(1, 8):
        drop(root / "CD_1" / f"IM{number}", instance(instance=number))
    dicomdir(root / "CD_1" / "DICOMDIR", record("IM1", uid(1, 1, 1, 1)))
    site.ingest_all()
    drop(root / "other", instance(instance=1, PatientName="Somebody^Else"))
    drop(root / "readme.txt", b"see you at noon, bring the films\n" * 20)
    drop(root / "cut", encoded(instance(patient=3))[:-40])
    site.ingest_all()
    derive(site)
    return site.root


@pytest.fixture
def full(built: Path, tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "site"
    shutil.copytree(built, root)
    site = Site(root)
    yield site
    site.rows("SELECT 1")  # the index can still be read, whatever the test did


def found(site: Site, **options: Any) -> list[tuple[str, str]]:
    findings = verify(site.archive.root, site.index, spool=site.spool.root, **options)
    return sorted((each.kind.value, each.path) for each in findings.found)


def mend(site: Site) -> tuple[list[str], list[str]]:
    findings = verify(site.archive.root, site.index, spool=site.spool.root)
    writer = Writer.open(site.index)
    try:
        done = repair(findings.found, site.archive.root, writer, spool=site.spool.root)
    finally:
        writer.close()
    return (
        sorted(each.kind.value for each in done.mended),
        sorted(each.kind.value for each in done.left),
    )


def change(site: Site, sql: str, *values: object) -> None:
    writer = Writer.open(site.index)
    writer.run_in_transaction(lambda c: c.execute(sql, values))
    writer.close()


def paths(site: Site) -> list[str]:
    return sorted(site.rows("SELECT path FROM instances"))


def test_a_healthy_site_is_clean(full: Site) -> None:
    assert found(full, checksum=True) == []
    full.check()


# -- rows beside an object's


def test_a_header_that_is_gone_is_read_again(full: Site) -> None:
    before = full.rows("SELECT * FROM headers ORDER BY instance_id")
    path = paths(full)[0]
    change(
        full,
        "DELETE FROM headers WHERE instance_id ="
        " (SELECT instance_id FROM instances WHERE path = ?)",
        path,
    )
    assert found(full) == [("missing-header", path)]
    assert mend(full) == (["missing-header"], [])
    assert full.rows("SELECT * FROM headers ORDER BY instance_id") == before
    assert found(full) == []


def test_a_header_is_not_taken_from_other_bytes(full: Site) -> None:
    path = paths(full)[0]
    change(full, "DELETE FROM headers")
    file = full.archive.root / path
    status = file.stat()
    file.unlink()
    file.write_bytes(encoded(instance(instance=1, PatientName="Not^This")))
    os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))
    mended, left = mend(full)
    assert mended == ["missing-header"] * 7
    assert "missing-header" in left


def test_an_arrival_that_is_gone_is_noted_again_with_the_verdict(full: Site) -> None:
    before = full.outcomes()
    change(full, "DELETE FROM arrivals WHERE instance_id IS NOT NULL")
    assert [kind for kind, _ in found(full)] == [
        "index-miscounted", *["missing-arrival"] * 8,
    ]  # fmt: skip
    mended, left = mend(full)
    assert (len(mended), left) == (9, [])
    assert full.outcomes() == before
    assert found(full) == []
    full.check()


# -- the tree


def test_a_wrong_time_is_set_right(full: Site) -> None:
    path = paths(full)[0]
    file = full.archive.root / path
    right = file.stat().st_mtime_ns
    os.utime(file)
    os.utime(file, ns=(right + 10**10, right + 10**10))
    file.chmod(0o640)
    assert found(full) == [("wrong-time", path)]
    assert mend(full) == (["wrong-time"], [])
    assert (file.stat().st_mtime_ns, file.stat().st_mode & 0o777) == (right, 0o440)
    assert found(full) == []
    os.utime(file, ns=(right + 10**9, right + 10**9))  # a coarse file system
    assert found(full) == []


def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_looked_at(
    full: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(full.archive.root / "CT9" / "2024" / "stray", b"x")
    drop(full.archive.root / "US" / "secret" / "below" / "stray", b"x")
    honest = os.scandir

    def shut(path: Any) -> Any:
        if str(path).endswith(("/secret", "/MANUAL/2024/01")):
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr("os.scandir", shut)
    seen = verify(full.archive.root, full.index)
    assert [(each.kind.value, each.path) for each in seen.found] == [
        ("stray-file", "CT9/2024/stray"),
        ("unreadable", "MANUAL/2024/01"),
        ("unreadable", "US/secret"),
    ]
    assert seen.objects == 8


def test_the_deepest_tree_is_walked(full: Site) -> None:
    top = full.archive.root / "deep"
    top.mkdir()
    depth = 1_100
    here = os.open(top, os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("stray", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    bottom = "/".join(["deep", *["d"] * depth])
    assert found(full) == [("stray-file", f"{bottom}/stray")]
    os.unlink(full.archive.root / bottom / "stray")
    for length in range(depth, 0, -1):
        os.rmdir(full.archive.root / "/".join(["deep", *["d"] * length]))


# -- derivatives


@pytest.mark.parametrize("how", ["empty", "link", "folder", "gone"])
def test_a_picture_that_is_none_is_made_again(full: Site, how: str) -> None:
    picture = full.archive.root / paths(full)[0].replace(".dcm", ".jpg")
    picture.unlink()
    if how == "empty":
        picture.touch()
    elif how == "link":
        picture.symlink_to("/etc/passwd")
    elif how == "folder":
        picture.mkdir()
    assert found(full) == [("missing-derivative", str(picture.relative_to(full.archive.root)))]
    assert mend(full)[0] == ["missing-derivative"]


def test_a_picture_that_its_object_is_known_not_to_have_goes(full: Site) -> None:
    video = full.archive.root / paths(full)[0].replace(".dcm", ".mp4")
    video.write_bytes(b"of another time")
    orphan = drop(full.archive.root / "MANUAL" / "2024" / "1.2.3.jpg", b"whose?")
    assert mend(full) == (["derivative-without-row"], ["derivative-without-row"])
    assert not video.exists()
    assert orphan.read_bytes() == b"whose?"


def test_a_picture_whose_row_is_still_to_be_made_waits_for_it(full: Site) -> None:
    change(full, "DELETE FROM derivatives")
    assert mend(full) == ([], ["derivative-without-row"] * 8)
    derive(full)
    assert found(full) == []


# -- DICOMDIRs and the quarantine


def test_a_kept_dicomdir_that_is_gone_or_damaged(full: Site) -> None:
    (file,) = full.archive.media.glob("*/DICOMDIR")
    path = str(file.relative_to(full.archive.root))
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert found(full) == []
    assert found(full, checksum=True) == [("wrong-checksum", path)]
    file.write_bytes(data[:-1])
    assert found(full) == [("wrong-size", path)]
    file.unlink()
    assert found(full) == [("missing-dicomdir", path)]
    file.symlink_to("/etc/passwd")
    assert found(full) == [("missing-dicomdir", path)]


def test_what_else_lies_among_the_dicomdirs(full: Site) -> None:
    (home,) = full.archive.media.iterdir()
    drop(home / "IM1", b"x")
    drop(full.archive.media / "notes" / "DICOMDIR", b"x")
    drop(full.archive.media / "b", b"x")
    strays = ["b", f"{home.name}/IM1", "notes"]
    assert found(full) == sorted(("stray-file", f".media/{each}") for each in strays)


def test_a_row_never_leads_out_of_the_archive(full: Site) -> None:
    outside = drop(full.root / "DICOMDIR", b"x")
    detail = '{"kept_at": ".media/../../DICOMDIR"}'
    change(full, "UPDATE arrivals SET detail = ? WHERE outcome = 'unpacked'", detail)
    assert found(full) == [("missing-dicomdir", ".media/../../DICOMDIR")]
    assert outside.exists()


def test_a_quarantined_file_without_its_file_or_reason(full: Site) -> None:
    one, other = sorted((full.spool.root / "quarantine").iterdir())
    for path in one.iterdir():
        if path.name != "reason.json":
            path.unlink()
    (other / "reason.json").write_text("{")
    assert found(full) == [
        ("missing-quarantined", f"quarantine/{one.name}"),
        ("missing-quarantined", f"quarantine/{other.name}"),
    ]
    told = verify(full.archive.root, full.index, spool=full.spool.root).found
    assert "the file is not" in told[0].message
    assert "reason.json cannot be read" in told[1].message


def test_a_quarantined_file_that_a_person_mends_is_no_finding(full: Site) -> None:
    for folder in (full.spool.root / "quarantine").iterdir():
        for path in folder.iterdir():
            if path.name != "reason.json":
                path.write_bytes(b"mended")
    assert found(full, checksum=True) == []


def test_what_is_sent_back_meanwhile_is_no_finding(
    full: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = min((full.spool.root / "quarantine").iterdir())
    shutil.rmtree(folder)
    assert found(full, is_live=True) == [("missing-quarantined", f"quarantine/{folder.name}")]
    honest = os.listdir

    def sent_back(path: Any) -> list[str]:
        # The rows have been read by now, and the folder was still to be there.
        if str(path).endswith("/quarantine"):
            change(
                full,
                "UPDATE arrivals SET retried_as = 'x', resolved_at = ? WHERE arrival_id = ?",
                "2026-01-01T00:00:00.000Z",
                folder.name,
            )
        return honest(path)

    monkeypatch.setattr("os.listdir", sent_back)
    assert found(full, is_live=True) == []


# -- how much, and how long


def test_the_parts_together_read_everything_once(full: Site) -> None:
    whole = verify(full.archive.root, full.index, checksum=True).bytes_read
    damaged = full.archive.root / paths(full)[3]
    status = damaged.stat()
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.chmod(0o640)
    damaged.write_bytes(bytes(data))
    os.utime(damaged, ns=(status.st_mtime_ns, status.st_mtime_ns))
    seen = [
        verify(full.archive.root, full.index, checksum=True, part=Part(number, 3))
        for number in (1, 2, 3)
    ]
    assert sum(each.bytes_read for each in seen) == whole
    assert sorted(len(each.found) for each in seen) == [0, 0, 1]
    assert all(0 < each.bytes_read < whole for each in seen)


@pytest.mark.parametrize("checksum", [False, True])
def test_it_stops_when_it_is_asked_to(full: Site, checksum: bool) -> None:
    stopped = 0
    for n in (1, 2, 3, 5, 8):
        asked = [0]

        def stop(asked: list[int] = asked, n: int = n) -> bool:
            asked[0] += 1
            return asked[0] >= n

        try:
            verify(full.archive.root, full.index, checksum=checksum, is_stopped=stop)
        except KeyboardInterrupt:
            stopped += 1
    assert stopped >= 1
    assert found(full) == []


def test_a_long_look_at_the_index_can_be_stopped(full: Site) -> None:
    def many(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO events (at, kind) VALUES ('2026-01-01T00:00:00.000Z', 'disk.low')",
            [()] * 60_000,
        )

    writer = Writer.open(full.index)
    writer.run_in_transaction(many)
    writer.close()
    notes: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        verify(
            full.archive.root,
            full.index,
            is_stopped=lambda: True,
            progress=lambda _done, _total, note: notes.append(note),
        )
    assert notes == ["looking at the index"]


def test_a_reason_tells_where_a_file_had_to_stay(full: Site) -> None:
    folder = min((full.spool.root / "quarantine").iterdir())
    told = Quarantined.read(folder)
    assert told is not None
    for path in folder.iterdir():
        if path.name != "reason.json":
            path.unlink()
    kept = told.as_json().replace(b"\n}", b',\n  "kept_at": "/mnt/share/.claimed/x"\n}')
    (folder / "reason.json").write_bytes(kept)
    assert found(full) == []
