"""A batch compared with what was expected: by files on a site, and by rows alone."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingester.index import Reader, Writer
from ingester.index.readers import Row
from ingester.ingest.recovery import retry
from ingester.model import ArrivalRecord, Outcome, Reason
from ingester.receipt import OUTCOMES, BatchInSpool, Summary, receipt_of
from ingester.receipt import given as expectation
from ingester.receipt.matching import name_key
from ingester.spool import Spool, handed_over
from tests.factory import drop, encoded, instance, uid
from tests.media import burn, images, respell
from tests.site import Site, digest
from tests.unit.index.records import archived, at, header, set_aside


@dataclass
class Told:
    """Everything that a receipt says."""

    summary: Summary
    expected: list[Row]
    files: list[Row]
    waiting: list[Row]
    not_here: list[Row]

    @property
    def lacking(self) -> dict[str, str]:
        return {each["name"]: each["status"] for each in self.expected if each["is_lacking"]}

    @property
    def unexpected(self) -> list[str]:
        return [each["original_name"] for each in self.files if each["is_expected"] is False]


def told(
    index: Path, archive: Path, spool: Spool, batch: str, source: str, expect: Path | None
) -> Told:
    given_ = expectation(expect) if expect is not None else None
    place = BatchInSpool(spool, source, batch)
    with Reader.open(index) as reader, receipt_of(reader, archive, place, expect=given_) as found:
        return Told(
            found.summary,
            list(found.expected()),
            list(found.files()),
            found.waiting(),
            list(found.expected("not here")),
        )


def ask(site: Site, batch: str, expect: Path | None = None, source: str = "MANUAL") -> Told:
    return told(site.index, site.archive.root, site.spool, batch, source, expect)


def lose(cd: Path, *numbers: int) -> list[str]:
    """Remove images from a CD; returns their File IDs."""
    found = [images(cd)[number] for number in numbers]
    for path in found:
        path.unlink()
    return [str(path.relative_to(cd)) for path in found]


# -- DICOMDIRs ---------------------------------------------------------------------------


@pytest.fixture
def cd(tmp_path: Path) -> Path:
    return burn(tmp_path / "CD_4711")


def test_a_whole_cd_is_complete(site: Site, cd: Path) -> None:
    shutil.copytree(cd, site.spool.root / "CD_4711")
    site.ingest_all()
    found = ask(site, "CD_4711")
    assert found.summary.is_complete
    assert found.summary.counts["archived"] == 10
    assert (found.summary.counts["foreign"], found.unexpected) == (3, [])
    (measured,) = found.summary.measured
    assert measured.sentence == "CD_4711/DICOMDIR lists 10: 10 archived"
    site.check()


def test_the_same_cd_as_a_zip(site: Site, cd: Path) -> None:
    lost = lose(cd, 2, 8)
    shutil.make_archive(str(site.spool.root / "CD_4711"), "zip", cd)
    site.ingest_all()
    found = ask(site, "CD_4711.zip")
    assert list(found.lacking) == [f"CD_4711.zip/{each}" for each in lost]
    assert found.summary.lacks == ("2 of the 10 that CD_4711.zip/DICOMDIR lists",)
    site.check()


@pytest.mark.parametrize(("is_lower", "suffix"), [(True, ""), (False, ";1"), (True, ".;1")])
def test_names_as_other_systems_show_them(
    site: Site, cd: Path, is_lower: bool, suffix: str
) -> None:
    lost = lose(cd, 0)
    cut = images(cd)[0]
    cut_id = str(cut.relative_to(cd))
    cut.write_bytes(cut.read_bytes()[:-30])  # found by its name, for it has no UID to read
    respell(cd, is_lower=is_lower, suffix=suffix)
    shutil.copytree(cd, site.spool.root / "CD_4711")
    site.ingest_all()
    found = ask(site, "CD_4711")
    assert list(found.lacking.values()) == ["missing", "quarantined"]
    assert [name.rpartition("/")[2] for name in found.lacking] == [
        each.rpartition("/")[2] for each in (*lost, cut_id)
    ]
    assert found.summary.undecided == 1
    site.check()


def test_a_record_without_a_uid_is_found_by_its_name(site: Site, cd: Path) -> None:
    lose(cd, 1)
    directory = (cd / "DICOMDIR").read_bytes()
    # (0004,1511) becomes (0004,1512), the Referenced Transfer Syntax UID: no UID is left.
    (cd / "DICOMDIR").write_bytes(directory.replace(b"\x04\0\x11\x15UI", b"\x04\0\x0a\x15UI"))
    respell(cd, is_lower=True)
    shutil.copytree(cd, site.spool.root / "CD_4711")
    site.ingest_all()
    found = ask(site, "CD_4711")
    assert [each["status"] for each in found.expected].count("archived") == 9
    assert list(found.lacking.values()) == ["missing"]
    assert all(each["sop_instance_uid"] is None for each in found.expected)


def test_a_directory_that_lies_is_not_believed(site: Site, tmp_path: Path) -> None:
    cd = burn(tmp_path / "CD", [instance(1), instance(1, 1, 1, 2)])
    drop(images(cd)[0], instance(7))  # another image under the name of the first
    shutil.copytree(cd, site.spool.root / "CD")
    site.ingest_all()
    found = ask(site, "CD")
    (lacking,) = [each for each in found.expected if each["is_lacking"]]
    assert (lacking["status"], lacking["sop_instance_uid"]) == ("missing", uid(1, 1, 1, 1))
    assert "with other contents" in lacking["message"]
    assert len(found.unexpected) == 1
    site.check()


def test_what_a_foreign_file_should_have_been_is_lacking(site: Site, tmp_path: Path) -> None:
    cd = burn(tmp_path / "CD", [instance(1), instance(1, 1, 1, 2)])
    images(cd)[0].write_bytes(b"")
    shutil.copytree(cd, site.spool.root / "CD")
    site.ingest_all()
    assert list(ask(site, "CD").lacking.values()) == ["foreign"]
    site.check()


def test_two_directories_in_one_batch_and_one_that_came_twice(site: Site, tmp_path: Path) -> None:
    one = burn(tmp_path / "1", [instance(1), instance(1, 1, 1, 2)])
    two = burn(tmp_path / "2", [instance(2)])
    for number, cd in enumerate((one, one, two)):
        shutil.copytree(cd, site.spool.root / "box" / str(number))
    site.ingest_all()
    found = ask(site, "box")
    assert [each.expected for each in found.summary.measured] == [2, 1]
    assert found.summary.is_complete
    for kept in site.archive.media.glob("*/DICOMDIR"):
        kept.unlink()
    lacks = ask(site, "box").summary.lacks
    assert [" is not known: " in each for each in lacks] == [True, True]
    site.check()


# -- lists -------------------------------------------------------------------------------


def test_a_list_of_uids(site: Site, tmp_path: Path) -> None:
    drop(site.spool.root / "CT1/b/a", instance(1))
    drop(site.spool.root / "CT1/b/c", instance(1, 1, 1, 2))
    drop(site.spool.root / "CT1/b/readme", b"hello\n" * 200)
    drop(site.spool.root / "other", instance(2))
    site.ingest_all()
    listed = tmp_path / "uids"
    listed.write_text(f"{uid(1, 1, 1, 1)}\n{uid(2, 1, 1, 1)}\n{uid(3, 1, 1, 1)}\n")
    found = ask(site, "b", listed, source="CT1")
    assert [each["status"] for each in found.expected] == ["archived", "elsewhere", "missing"]
    assert found.expected[1]["message"] == "Archived, but by a file of no batch and source MANUAL."
    assert found.unexpected == ["b/c"]
    listed.write_text(f"{uid(1, 1, 1, 1)}\n")
    assert ask(site, "b", listed, source="CT1").summary.is_complete
    site.check()


def test_a_list_of_hashes_names_files_of_every_kind(site: Site, tmp_path: Path) -> None:
    home = site.spool.root / "b"
    files = [
        drop(home / "a", instance(1)),
        drop(home / "a again", encoded(instance(1), "1.2.840.10008.1.2")),
        drop(home / "readme", b"hello\n" * 200),
        drop(home / "cut", encoded(instance(2))[:-40]),
        drop(site.spool.root / "elsewhere", encoded(instance(1), "1.2.840.10008.1.2.2")),
        drop(tmp_path / "never", instance(4)),
    ]
    sums = tmp_path / "sums"
    sums.write_text("".join(f"{digest(each)}  {each.name}\n" for each in files))
    drop(home / "extra", b"extra\n" * 300)
    drop(site.spool.root / "a/cut too", files[3].read_bytes())
    site.ingest_all()
    found = ask(site, "b", sums)
    assert found.expected[3]["batch"] == "b"  # its own, where another batch has it too
    assert {each["name"]: each["status"] for each in found.expected} == {
        "a": "archived",
        "a again": "archived",
        "readme": "foreign",
        "cut": "quarantined",
        "elsewhere": "elsewhere",
        "never": "missing",
    }
    assert found.lacking == {"cut": "quarantined", "never": "missing"}
    assert found.unexpected == ["b/extra"]
    assert [each["name"] for each in found.not_here] == ["elsewhere", "never"]
    site.check()


def test_members_of_a_listed_archive_file_are_expected(site: Site, tmp_path: Path) -> None:
    for number in (1, 2):
        drop(tmp_path / "in" / str(number), instance(1, 1, 1, number))
    inner = shutil.make_archive(str(tmp_path / "out" / "inner"), "tar", tmp_path / "in")
    drop(tmp_path / "out" / "three", instance(1, 1, 1, 3))
    outer = shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path / "out")
    assert inner.endswith("inner.tar")
    sums = tmp_path / "sums"
    sums.write_text(f"{digest(Path(outer))}  outer.zip\n")
    shutil.copy(outer, site.spool.root)
    site.ingest_all()
    found = ask(site, "outer.zip", sums)
    assert (found.summary.is_complete, found.unexpected) == (True, [])
    assert found.summary.counts["archived"] == 3


# -- what is on its way ------------------------------------------------------------------


def test_what_waits_and_what_was_sent_back_is_not_complete(site: Site) -> None:
    drop(site.spool.root / "CD" / "cut", encoded(instance(1))[:-40])
    drop(site.spool.root / "CD" / "whole", instance(2))
    site.ingest_all()
    assert ask(site, "CD").summary.lacks == ("1 file is in quarantine, undecided",)
    (arrival_id,) = os.listdir(site.spool.root / "quarantine")
    (site.spool.root / "quarantine" / arrival_id / "cut").write_bytes(encoded(instance(1)))
    for name in ("more.part", ".sums.a1B2c3", "Thumbs.db", ".DS_Store"):
        drop(site.spool.root / "CD" / name, b"x")
    with closing(Writer.open(site.index)) as writer:
        retry(site.spool, writer, arrival_id, site.clock)
    found = ask(site, "CD")
    assert [(each["name"], each["is_temporary"]) for each in found.waiting] == [
        ("CD/.sums.a1B2c3", True), ("CD/cut", False), ("CD/more.part", True),
    ]  # fmt: skip
    assert found.summary.counts["arrived"] == 1
    assert len(found.summary.lacks) == 2
    for name in ("more.part", ".sums.a1B2c3"):
        (site.spool.root / "CD" / name).unlink()
    site.ingest_all()
    found = ask(site, "CD")
    (mended,) = [each for each in found.files if each["retried_from"]]
    assert [each["reason"] for each in mended["retried_from"]] == ["incomplete"]
    assert found.summary.is_complete


def test_a_file_that_was_sent_back_and_is_nowhere_still_waits(site: Site) -> None:
    drop(site.spool.root / "CD" / "cut", encoded(instance(1))[:-40])
    site.ingest_all()
    (arrival_id,) = os.listdir(site.spool.root / "quarantine")
    with closing(Writer.open(site.index)) as writer:
        retry(site.spool, writer, arrival_id, site.clock)
    shutil.rmtree(site.spool.root / ".received" / "MANUAL")
    assert ask(site, "CD").summary.lacks == ("1 file is still in the spool",)


ID = "0006610a99f2d7e67f995c3"


@pytest.mark.parametrize("batch", ["CD", "study.zip", "50 % (ä/ö)", f"{ID}9"])
def test_a_batch_is_found_wherever_it_waits(site: Site, batch: str) -> None:
    site.spool.make_folders()
    root = site.spool.root
    received = handed_over("MANUAL", batch, f"{ID}0", "x/y")
    drop(root / received, b"x")
    drop(root / handed_over("MANUAL", batch + "2", f"{ID}1", "z"), b"x")
    expected = ["x/y"]
    if "/" not in batch:
        drop(root / batch, b"x")
        drop(root / "CT1" / batch / "not ours", b"x")
        drop(root / handed_over("MANUAL", None, f"{ID}2", batch), b"x")
        expected += [batch, batch]
    if batch == f"{ID}9":
        drop(root / ".received/MANUAL" / f"{batch}.7.dcm", b"x")
        expected.append(f"{batch}.7.dcm")
    place = BatchInSpool(site.spool, "MANUAL", batch)
    assert sorted(each.name for each in place.lying()) == sorted(expected)
    arrivals = list(site.spool.look())
    list(site.spool.claim(arrivals, site.clock.now()))
    assert list(place.lying()) == []
    assert len(list(place.claimed())) == len(expected)


def test_a_folder_that_cannot_be_looked_at_is_not_taken_for_empty(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(site.spool.root / "b/a", instance(1))
    site.ingest_all()
    drop(site.spool.root / "b/c", instance(2))
    honest = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (lack,) = ask(site, "b").summary.lacks
    assert "cannot be looked at" in lack
    assert "Permission denied" in lack


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("CD/IMAGES/IM1", "images/im1"),
        ("./IMAGES/IM1.;1", "images/im1"),
        ("IMAGES\\IM1;12", "images/im1"),
        ("CD", "cd"),
        ("CD/cd/IM1", "cd/im1"),
    ],
)
def test_names_are_compared_as_any_system_spells_them(name: str, key: str) -> None:
    assert name_key(name, "CD") == key


# -- against a plain reckoning -----------------------------------------------------------

_OUTCOMES = st.sampled_from(
    ["archived", "duplicate", "conflict", "quarantined", "settled", "foreign", "discarded"]
)
_FILES = st.lists(
    st.tuples(st.integers(1, 6), _OUTCOMES, st.sampled_from(["b", "other"])), max_size=12
)
_LISTED = st.lists(
    st.one_of(
        st.tuples(st.just("uid"), st.integers(1, 7)),
        st.tuples(st.just("sha256"), st.integers(0, 14)),
    ),
    min_size=1,
    max_size=8,
    unique=True,
)


def _sha256(number: int) -> str:
    return f"{number:064x}"


def _record(number: int, step: tuple[int, str, str], seen: dict[int, int | None]) -> ArrivalRecord:
    of, outcome, batch = step
    common: dict[str, Any] = {"batch": batch, "second": number}
    arrival_id = f"{number:024x}"
    if outcome in ("archived", "conflict", "duplicate"):
        is_first = of not in seen
        seen.setdefault(of, number)
        made = archived(
            header(instance=of),
            outcome=Outcome.ARCHIVED if is_first else Outcome.CONFLICT,
            salt=str(number),
            arrival_id=arrival_id,
            **common,
        )
        assert made.stored is not None
        stored = replace(made.stored, sha256=_sha256(number))
        return replace(made, sha256=_sha256(number), stored=stored)
    reason = Reason.NOT_DICOM if outcome == "foreign" else Reason.INCOMPLETE
    return replace(set_aside(arrival_id, reason, **common), sha256=_sha256(number))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=_FILES, listed=_LISTED)
def test_every_status_is_what_a_plain_reckoning_says(
    files: list[tuple[int, str, str]], listed: list[tuple[str, int]]
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "spool").mkdir()
        writer = Writer.open(root / "index.db")
        seen: dict[int, int | None] = {}
        records = [_record(number, step, seen) for number, step in enumerate(files)]
        writer.record(records)
        for number, (_, outcome, _) in enumerate(files):
            if outcome in ("settled", "discarded"):
                wish: Any = "accept" if outcome == "settled" else "discard"
                writer.resolve([f"{number:024x}"], decision=wish, at=at(99))
        writer.close()
        lines = [uid(1, 1, 1, n) if kind == "uid" else _sha256(n) for kind, n in listed]
        (root / "list").write_text("\n".join(lines))
        found = told(root / "index.db", root, Spool(root / "spool"), "b", "MANUAL", root / "list")
        there = {of: batch for of, outcome, batch in reversed(files) if _is_object(outcome)}
        ours = {of for of, outcome, batch in files if _is_object(outcome) and batch == "b"}
        for (kind, n), row in zip(listed, found.expected, strict=True):
            if kind == "uid":
                wanted = "archived" if n in ours else "elsewhere" if n in there else "missing"
            else:
                wanted = _of_hash(files, n)
            assert row["status"] == wanted
            is_file = kind == "sha256" and wanted == "foreign"
            assert row["is_lacking"] == (wanted not in ("archived", "elsewhere") and not is_file)
        with Reader.open(root / "index.db") as reader:
            row_of_view = reader.batch("MANUAL", "b") or {}
        assert found.summary.counts == {
            name: row_of_view.get(name, 0) for name in ("arrived", *OUTCOMES)
        }
        assert len(found.files) == found.summary.counts["arrived"]
        undecided = sum(outcome == "quarantined" and b == "b" for _, outcome, b in files)
        lacking = any(row["is_lacking"] for row in found.expected)
        assert found.summary.is_complete == (not undecided and not lacking)


def _is_object(outcome: str) -> bool:
    return outcome in ("archived", "duplicate", "conflict")


def _of_hash(files: list[tuple[int, str, str]], number: int) -> str:
    if number >= len(files):
        return "missing"
    _, outcome, batch = files[number]
    if _is_object(outcome):
        return "archived" if batch == "b" else "elsewhere"
    if outcome == "foreign":
        return "foreign" if batch == "b" else "elsewhere"
    return "quarantined" if outcome == "settled" else outcome
