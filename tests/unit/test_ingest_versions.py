"""An object whose UID is known: compared with every version; a lost one is put back."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ingester import durable
from ingester.compare import compare
from ingester.index.writer import Writer
from ingester.ingest import IngestSettings, SourceDefaults, comparing
from ingester.model import new_id
from ingester.spool import handed_over
from tests.factory import drop, encoded, instance, uid
from tests.inline import InlineExecutor
from tests.site import Site, digest, drain

EXPLICIT, IMPLICIT = ExplicitVRLittleEndian, ImplicitVRLittleEndian


def image(syntax: str = EXPLICIT, *, sender: str | None = None, **overrides: Any) -> bytes:
    return encoded(instance(1, **overrides), syntax, sender=sender)


def squeezed(**overrides: Any) -> bytes:
    ds = instance(1, **overrides)
    ds.PixelData = encapsulate([bytes(90)])
    ds["PixelData"].is_undefined_length = True
    return encoded(ds, RLELossless)


def report(syntax: str = EXPLICIT, **overrides: Any) -> bytes:
    """An object without anything long: its recorded header says all of it."""
    return image(syntax, PixelData=None, **overrides)


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("member", data)
    return out.getvalue()


class Told:
    """What became of one dropped file."""

    def __init__(self, outcome: str, detail: dict[str, Any], path: str) -> None:
        self.outcome = outcome
        self.detail = detail
        self.path = path  # of the object that it is, or is a duplicate of


def arrive(site: Site, data: bytes, folder: str = "", **settings: Any) -> Told:
    """Drop a file and ingest it."""
    before = site.rows("SELECT arrival_id FROM arrivals") if site.index.exists() else []
    drop(site.spool.root / folder / "file", data)
    site.ingest_all(**settings)
    ((outcome, detail, path),) = site.rows(
        "SELECT a.outcome, a.detail, i.path FROM arrivals AS a LEFT JOIN instances AS i"
        " USING (instance_id) WHERE arrival_id NOT IN (SELECT value FROM json_each(?))",
        json.dumps(before),
    )
    return Told(outcome, json.loads(detail or "{}"), path)


def set_aside(site: Site) -> list[str]:
    """Return the digests of what was renamed to a dot-name beside its place."""
    return [digest(path) for path in sorted(site.archive.root.rglob(".damaged-*"))]


# -- every version counts ----------------------------------------------------------------


def test_a_duplicate_of_any_version_is_a_duplicate(site: Site) -> None:
    first, second = arrive(site, image()), arrive(site, image(SeriesDescription="Edited"))
    third = arrive(site, image(SeriesDescription="Edited again"))
    assert [each.outcome for each in (first, second, third)] == ["archived", "conflict", "conflict"]
    for syntax in (IMPLICIT, DeflatedExplicitVRLittleEndian):
        for told, words in [(first, "Portal venous"), (second, "Edited"), (third, "Edited again")]:
            again = arrive(site, image(syntax, SeriesDescription=words))
            assert (again.outcome, again.path) == ("duplicate", told.path)
            assert again.detail == {"duplicate_of": told.path}
    assert len(site.objects()) == 3
    site.check()


def test_a_variant_of_a_conflict_is_no_second_conflict(site: Site) -> None:
    arrive(site, image())
    edited = arrive(site, image(SeriesDescription="Edited"))
    told = arrive(site, squeezed(SeriesDescription="Edited"))
    assert (told.outcome, told.detail) == ("variant", {"compared_with": edited.path})
    assert arrive(site, squeezed(SeriesDescription="Edited")).outcome == "duplicate"
    assert site.rows("SELECT count(*) FROM problems WHERE kind = 'conflict'") == [1]
    site.check()


def test_whichever_version_comes_first_the_verdicts_are_the_same(tmp_path: Path) -> None:
    files = [
        image(),
        image(IMPLICIT),
        squeezed(),
        image(PatientID="X"),
        image(IMPLICIT, PatientID="X"),
    ]
    for turn in range(len(files)):
        site = Site(tmp_path / str(turn))
        for data in files[turn:] + files[:turn]:
            arrive(site, data)
        assert site.outcomes() == {"archived": 1, "duplicate": 2, "variant": 1, "conflict": 1}
        site.check()


def test_a_conflict_is_told_against_the_version_that_is_current(site: Site) -> None:
    arrive(site, image())
    edited = arrive(site, image(SeriesDescription="Edited"))
    (chosen,) = site.rows("SELECT arrival_id FROM arrivals WHERE outcome = 'conflict'")
    with closing(Writer.open(site.index)) as writer:
        writer.resolve([chosen], decision="make-current", at="2026-01-01T00:00:00Z")
    told = arrive(site, image(SeriesDescription="Edited", SeriesNumber="9"))
    assert told.detail["compared_with"] == edited.path
    assert told.detail["differs"] == ["SeriesNumber"]
    site.check()


def test_the_character_set_of_a_source_counts_for_its_own_files(site: Site) -> None:
    sources = {"CT1": SourceDefaults(character_set="ISO_IR 100")}
    silent = image(PatientName="Mxller^Jx").replace(b"Mxller^Jx", b"M\xfcller^J\xf6")
    arrive(site, silent, "CT1", sources=sources)
    told = image(IMPLICIT, SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jö")
    assert arrive(site, told, sources=sources).outcome == "duplicate"
    site.check()


def test_who_sends_one_uid_for_ever_is_compared_with_the_newest_versions(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "MOST_COMPARED", 2)
    for number in range(5):
        arrive(site, image(SeriesNumber=str(number)))
    for number, outcome in [(0, "duplicate"), (1, "conflict"), (4, "duplicate")]:
        assert arrive(site, image(IMPLICIT, SeriesNumber=str(number))).outcome == outcome
    assert arrive(site, image(SeriesNumber="2")).outcome == "duplicate"  # by its hash
    site.check()


def test_a_hard_link_to_an_archived_object_is_a_duplicate_and_leaves_it_alone(site: Site) -> None:
    first = arrive(site, image())
    path = site.archive.root / first.path
    before = path.stat()
    os.link(path, site.spool.root / "link")
    site.ingest_all()
    assert site.outcomes() == {"archived": 1, "duplicate": 1}
    after = path.stat()
    assert (after.st_ino, after.st_nlink, after.st_mode) == (before.st_ino, 1, before.st_mode)
    assert (after.st_mtime_ns, digest(path)) == (before.st_mtime_ns, digest(path))
    site.check()


# -- one UID, eight at once --------------------------------------------------------------


def test_eight_at_once_that_are_the_same_are_one_object(site: Site) -> None:
    syntaxes = [EXPLICIT, IMPLICIT, DeflatedExplicitVRLittleEndian, EXPLICIT]
    for number in range(8):
        drop(site.spool.root / f"{number}", image(syntaxes[number % 4]))
    with ThreadPoolExecutor(8) as pool, site.ingesting(pool) as ingest:
        drain(ingest)
    assert site.outcomes() == {"archived": 1, "duplicate": 7}
    site.check()


def test_eight_at_once_that_all_differ_are_all_kept(site: Site) -> None:
    files = [image(PatientID=f"P{number}") for number in range(8)]
    for number, data in enumerate(files):
        drop(site.spool.root / f"{number}", data)
    with ThreadPoolExecutor(8) as pool, site.ingesting(pool) as ingest:
        drain(ingest)
    assert site.outcomes() == {"archived": 1, "conflict": 7}
    assert site.rows("SELECT count(*) FROM instances WHERE version = 'current'") == [1]
    assert site.rows("SELECT original_name FROM arrivals WHERE outcome = 'archived'") == ["0"]
    site.check()
    assert len(set(site.objects().values())) == 8


# -- a stored file that is lost ----------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, 300)


def flip(path: Path) -> None:
    """Damage that the size does not show."""
    path.chmod(0o640)
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(data)


def swap(path: Path) -> None:
    """Put a sound object with the same UID there, of the same size."""
    data = path.read_bytes()
    path.unlink()
    drop(path, data.replace(b"Portal venous", b"Portal VENOUS"))


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_name(".damaged-elsewhere"))
    path.symlink_to(".damaged-elsewhere")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = [remove, cut, link_elsewhere, make_folder, flip, swap]


@pytest.mark.parametrize("harm", HARMS)
def test_the_same_bytes_put_a_lost_object_back(site: Site, harm: Callable[[Path], None]) -> None:
    first = arrive(site, image())
    row = site.rows("SELECT * FROM instances")
    path = site.archive.root / first.path
    before = path.stat()
    harm(path)
    again = arrive(site, image())
    assert (again.outcome, again.detail["repaired"]) == ("duplicate", first.path)
    assert site.rows("SELECT * FROM instances") == row
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    site.check()


def test_the_same_bytes_take_the_place_of_what_the_disk_cannot_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = arrive(site, image())
    path = site.archive.root / first.path
    bad = path.stat().st_ino
    really_open = os.open

    def opened(name: Any, *args: Any, **kwargs: Any) -> int:
        descriptor = really_open(name, *args, **kwargs)
        if os.fstat(descriptor).st_ino == bad and str(name) == str(path):
            os.close(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(name))
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    assert arrive(site, image()).detail["repaired"] == first.path
    assert path.stat().st_ino != bad
    site.check()


def test_what_was_damaged_is_kept_under_a_dot_name(site: Site) -> None:
    first = arrive(site, image())
    path = site.archive.root / first.path
    cut(path)
    damaged = digest(path)
    arrive(site, image())
    assert set_aside(site) == [damaged]
    cut(path)
    arrive(site, image())
    assert set_aside(site) == [damaged, damaged]
    site.check()


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_by_another_writer_takes_the_place_and_the_row_tells_of_it(
    site: Site, harm: Callable[[Path], None]
) -> None:
    first = arrive(site, image(sender="CT1"))
    before = site.rows("SELECT instance_id, path, archived_at, data_set_sha256 FROM instances")
    harm(site.archive.root / first.path)
    other = image(sender="ANOTHER_TITLE")
    assert arrive(site, other).detail["repaired"] == first.path
    assert (site.archive.root / first.path).read_bytes() == other
    assert site.rows("SELECT instance_id, path, archived_at, data_set_sha256 FROM instances") == (
        before
    )
    told = "SELECT json_extract(attributes, '$.SourceApplicationEntityTitle') FROM headers"
    assert site.rows(told) == ["ANOTHER_TITLE"]
    site.check()


@pytest.mark.parametrize("harm", HARMS)
def test_an_object_without_anything_long_is_put_back_in_any_encoding(
    site: Site, harm: Callable[[Path], None]
) -> None:
    with closing(Writer.open(site.index, columns=["TransferSyntaxUID"])):
        pass
    first = arrive(site, report())
    path = site.archive.root / first.path
    mtime = path.stat().st_mtime_ns
    harm(path)
    assert arrive(site, report(IMPLICIT)).detail["repaired"] == first.path
    assert path.read_bytes() == report(IMPLICIT)
    columns = "instance_id, transfer_syntax_uid, version, size_bytes"
    assert site.rows(f"SELECT {columns} FROM instances") == [
        (1, IMPLICIT, "current", len(report(IMPLICIT)))
    ]
    assert site.rows("SELECT data_set_sha256 != sha256 FROM instances") == [1]
    assert path.stat().st_mtime_ns == mtime
    # Now it is known by its bytes, and the first encoding by comparison.
    for syntax in (IMPLICIT, EXPLICIT):
        assert arrive(site, report(syntax)).detail == {"duplicate_of": first.path}
    site.check()


@pytest.mark.parametrize("harm", HARMS)
def test_pixels_that_nobody_can_compare_are_kept_beside_the_lost_ones(
    site: Site, harm: Callable[[Path], None]
) -> None:
    first = arrive(site, image())
    harm(site.archive.root / first.path)
    told = arrive(site, image(IMPLICIT))
    assert told.outcome == "conflict"
    assert told.detail == {
        "compared_with": first.path,
        "stored_file": "missing" if harm is remove else "damaged",
        "differs": [],
        "pixels_differ": None,
        "patient_differs": False,
        "study_differs": False,
    }
    (message,) = site.rows("SELECT message FROM problems WHERE kind = 'conflict'")
    assert "so nobody can tell whether its pixels are the same" in message
    # Once it is there, whatever says the same is a duplicate of it.
    for syntax in (IMPLICIT, DeflatedExplicitVRLittleEndian):
        again = arrive(site, image(syntax))
        assert (again.outcome, again.path) == ("duplicate", told.path)
    assert arrive(site, image()).detail["repaired"] == first.path
    site.check()


@pytest.mark.parametrize("harm", HARMS)
def test_the_recorded_header_tells_what_differs_from_a_lost_object(
    site: Site, harm: Callable[[Path], None]
) -> None:
    first = arrive(site, image())
    harm(site.archive.root / first.path)
    other = arrive(site, image(IMPLICIT, PatientName="Other^Name"))
    assert other.outcome == "conflict"
    assert (other.detail["differs"], other.detail["patient_differs"]) == (["PatientName"], True)
    variant = arrive(site, squeezed())
    assert (variant.outcome, variant.detail["compared_with"]) == ("variant", first.path)


@pytest.mark.parametrize(
    ("is_dated", "at_once", "is_seen"),
    [(False, 10**6, True), (False, 0, False), (True, 0, True), (True, 10**6, True)],
)
def test_a_service_reads_what_was_written_to_and_else_what_is_allowed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_dated: bool,
    at_once: int,
    is_seen: bool,
) -> None:
    monkeypatch.setattr(comparing, "_CHECKED_AT_ONCE", at_once)
    site = Site(tmp_path / "site", settings=IngestSettings(quiet=0))
    first = arrive(site, image())
    path = site.archive.root / first.path
    at = path.stat().st_mtime_ns
    flip(path)
    path.chmod(0o440)
    os.utime(path, ns=(at, at + 3 * 10**9 * is_dated))
    again = arrive(site, image())
    assert again.outcome == "duplicate"
    assert ("repaired" in again.detail) is is_seen
    assert (path.read_bytes() == image()) is is_seen


def rot(path: Path) -> None:
    """Damage that neither size nor times show, as a disk does it."""
    at = path.stat().st_mtime_ns
    flip(path)
    path.chmod(0o440)
    os.utime(path, ns=(at, at))


@pytest.mark.parametrize("is_zipped", [False, True])
def test_what_a_person_brings_to_a_service_mends_whatever_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_zipped: bool
) -> None:
    monkeypatch.setattr(comparing, "_CHECKED_AT_ONCE", 0)
    site = Site(tmp_path / "site", settings=IngestSettings(quiet=0))
    first = arrive(site, image())
    path = site.archive.root / first.path
    rot(path)
    assert arrive(site, image()).detail == {"duplicate_of": first.path}
    place = handed_over("CT1", None, new_id(site.clock.now()), "mend")
    drop(site.spool.root / place, zipped(image()) if is_zipped else image())
    site.ingest_all()
    repaired = "SELECT count(*) FROM arrivals WHERE json_extract(detail, '$.repaired') = ?"
    assert site.rows(repaired, first.path) == [1]
    assert path.read_bytes() == image()
    site.check()


def test_a_lost_version_beside_a_whole_one_is_put_back_too(site: Site) -> None:
    arrive(site, image())
    edited = arrive(site, image(SeriesDescription="Edited"))
    remove(site.archive.root / edited.path)
    again = arrive(site, image(SeriesDescription="Edited"))
    assert (again.outcome, again.detail["repaired"]) == ("duplicate", edited.path)
    site.check()


def test_a_whole_folder_that_is_lost_comes_back_by_sending_again(site: Site) -> None:
    for number in range(1, 6):
        drop(site.spool.root / f"{number}", instance(1, 1, 1, number))
    site.ingest_all()
    objects = site.objects()
    durable.rename(site.archive.root / "MANUAL", site.root / "lost")
    for number in range(1, 6):
        drop(site.spool.root / f"{number}", instance(1, 1, 1, number))
    site.ingest_all()
    assert site.outcomes() == {"archived": 5, "duplicate": 5}
    assert site.objects() == objects
    site.check()


# -- comparisons in the pool -------------------------------------------------------------


class Meeting(ThreadPoolExecutor):
    """A pool in which no comparison ends before all of them have begun."""

    def __init__(self, parties: int) -> None:
        super().__init__(parties)
        self.barrier = threading.Barrier(parties, timeout=30)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if fn is not compare:
            return super().submit(fn, *args, **kwargs)

        def met(*args: Any) -> Any:
            self.barrier.wait()
            return fn(*args)

        return super().submit(met, *args)


def test_the_comparisons_of_a_batch_are_asked_all_at_once(site: Site) -> None:
    for number in range(1, 9):
        drop(site.spool.root / f"{number}", instance(1, 1, 1, number))
    site.ingest_all()
    for number in range(1, 9):
        drop(site.spool.root / f"{number}", encoded(instance(1, 1, 1, number), IMPLICIT))
    with Meeting(8) as pool, site.ingesting(pool) as ingest:
        drain(ingest)
    assert site.outcomes() == {"archived": 8, "duplicate": 8}
    site.check()


class Deadly(InlineExecutor):
    """A pool that dies when it compares with a certain stored file, or now and then."""

    def __init__(self, part: str, times: int = 10**6) -> None:
        self.part = part
        self.times = times
        self.crashes = 0
        self.is_broken = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if fn is compare and self.part in args[0].old_path and self.crashes < self.times:
            self.crashes += 1
            self.is_broken = True
        if self.is_broken:
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("it died"))
            return future
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.is_broken = False


def test_a_pair_of_files_that_no_comparison_survives_is_kept_and_the_rest_goes_on(
    site: Site,
) -> None:
    for number in range(1, 6):
        drop(site.spool.root / f"{number}", instance(1, 1, 1, number))
    site.ingest_all()
    for number in range(1, 6):
        drop(site.spool.root / f"{number}", encoded(instance(1, 1, 1, number), IMPLICIT))
    pool = Deadly(uid(1, 1, 1, 3) + ".dcm")
    with site.ingesting(pool) as ingest:
        drain(ingest)
    assert pool.crashes == 4  # with its neighbours, then three times alone
    assert site.outcomes() == {"archived": 5, "duplicate": 4, "conflict": 1}
    (name, detail) = site.rows(
        "SELECT original_name, detail FROM arrivals WHERE outcome = 'conflict'"
    )[0]
    assert name == "3"
    assert json.loads(detail)["pixels_differ"] is None
    (message,) = site.rows("SELECT message FROM problems")
    assert "but the two could not be compared." in message
    assert site.rows("SELECT count(*) FROM claim_attempts") == [0]
    site.check()


def test_a_process_that_died_of_something_else_costs_nobody_a_verdict(site: Site) -> None:
    for number in range(1, 6):
        drop(site.spool.root / f"{number}", instance(1, 1, 1, number))
    site.ingest_all()
    for number in range(1, 6):
        drop(site.spool.root / f"{number}", encoded(instance(1, 1, 1, number), IMPLICIT))
    pool = Deadly(".dcm", times=2)
    with site.ingesting(pool) as ingest:
        drain(ingest)
    assert pool.crashes == 2
    assert site.outcomes() == {"archived": 5, "duplicate": 5}
    site.check()


class Meddling(InlineExecutor):
    """Changes the new file between its reading and its comparison, once."""

    def __init__(self, change: Callable[[Path], None]) -> None:
        self.change: Callable[[Path], None] | None = change

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if fn is compare and self.change is not None:
            change, self.change = self.change, None
            change(Path(args[0].new_path))
        return super().submit(fn, *args, **kwargs)


def test_a_new_file_that_changed_after_it_was_read_is_read_again(site: Site) -> None:
    arrive(site, image())

    def damage(path: Path) -> None:
        path.chmod(0o640)
        os.truncate(path, 500)

    drop(site.spool.root / "b", image(IMPLICIT))
    with site.ingesting(Meddling(damage)) as ingest:
        drain(ingest)
    assert site.outcomes() == {"archived": 1, "quarantined": 1}
    site.check()


def test_a_stored_file_that_cannot_be_read_is_no_reason_to_wait_for_ever(site: Site) -> None:
    first = arrive(site, report())

    class Unreadable(InlineExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if fn is compare:
                # A medium error: the disk around it is well.
                path = Path(args[0].old_path)
                path.unlink()
                path.symlink_to(path)
            return super().submit(fn, *args, **kwargs)

    drop(site.spool.root / "b", report(IMPLICIT))
    with site.ingesting(Unreadable()) as ingest:
        drain(ingest)
    assert site.outcomes() == {"archived": 1, "duplicate": 1}
    assert (site.archive.root / first.path).read_bytes() == report(IMPLICIT)
    site.check()
