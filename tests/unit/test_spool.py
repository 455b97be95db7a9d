"""What lies in the spool, taking it and letting go of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingester.claims import arrived_at
from ingester.model import Reason, Refusal, new_id
from ingester.quarantine import (
    Quarantined,
    file_in,
    finish_quarantine,
    quarantine,
    quarantined,
)
from ingester.spool import Share, Spool, handed_over, shown
from tests.factory import drop

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    root = tmp_path / "spool"
    root.mkdir()
    spool = Spool(root, sources=("CT1", "US"), ignore=["*.skip"])
    spool.make_folders()
    return spool


def test_source_and_batch_come_from_the_folders(spool: Spool) -> None:
    for name in ("plain.dcm", "CD_1/IMAGES/1", "CT1/plain", "CT1/monday/a/b", "US/x"):
        drop(spool.root / name, b"x")
    seen = {a.relative: (a.source, a.batch, a.original_name) for a in spool.look()}
    assert seen == {
        "plain.dcm": ("MANUAL", None, "plain.dcm"),
        "CD_1/IMAGES/1": ("MANUAL", "CD_1", "CD_1/IMAGES/1"),
        "CT1/plain": ("CT1", None, "plain"),
        "CT1/monday/a/b": ("CT1", "monday", "monday/a/b"),
        "US/x": ("US", None, "x"),
    }


def test_what_a_receiver_finished_names_its_sender_and_association(spool: Spool) -> None:
    association = new_id(NOW)
    drop(spool.root / f".received/MODALITY/{association}.000001.dcm", b"x")
    given = new_id(NOW)
    drop(spool.root / handed_over("CT1", "CD 4/7", given, "A/B.dcm"), b"x")
    drop(spool.root / handed_over("CT1", None, new_id(NOW), "../../x"), b"x")
    seen = {a.original_name: a for a in spool.look()}
    received = seen[f"{association}.000001.dcm"]
    assert (received.source, received.batch, received.is_received) == (
        "MODALITY",
        association,
        True,
    )
    imported = seen["A/B.dcm"]
    assert (imported.source, imported.batch, imported.arrival_id) == ("CT1", "CD 4/7", given)
    assert seen["x"].batch is None


@pytest.mark.parametrize(
    "name",
    [".hidden", "a.part", "a.TMP", "~$doc", "x~", ".DS_Store", "Thumbs.db", "._a", "a.skip",
     "@eaDir/x", "__MACOSX/x", ".git/x", "desktop.ini", "quarantine/x", ".receiving/x"],
)  # fmt: skip
def test_litter_and_unfinished_names_are_left_alone(spool: Spool, name: str) -> None:
    drop(spool.root / name, b"x")
    assert list(spool.look()) == []


def test_one_look_lists_in_path_order(spool: Spool) -> None:
    for name in ("b", "a/z", "a.txt", "a/b/c", "A"):
        drop(spool.root / name, b"x")
    names = [a.relative for a in spool.look()]
    assert names == sorted(names) == ["A", "a.txt", "a/b/c", "a/z", "b"]


def test_a_claim_keeps_the_path_and_is_found_again_after_a_crash(spool: Spool) -> None:
    drop(spool.root / "CT1/monday/a.dcm", b"x")
    (arrival,) = spool.look()
    ((_, claim),) = spool.claim([arrival], NOW)
    assert claim.path.read_bytes() == b"x"
    assert list(spool.look()) == []
    assert spool.claimed() == [claim]
    assert claim.arrived_at == arrived_at(claim.arrival_id)
    spool.release(claim)
    assert os.listdir(spool.root / ".claimed") == []
    spool.tidy(older_than_ns=2**63)
    assert sorted(os.listdir(spool.root / "CT1")) == []


def test_what_vanished_before_the_claim_leaves_nothing(spool: Spool) -> None:
    path = drop(spool.root / "a", b"x")
    (arrival,) = spool.look()
    path.unlink()
    assert list(spool.claim([arrival], NOW)) == []
    assert os.listdir(spool.root / ".claimed") == []
    assert spool.troubles == {}


def test_folders_that_somebody_may_still_fill_stay(spool: Spool) -> None:
    drop(spool.root / "cd/a", b"x")
    (spool.root / "mine").mkdir()
    (arrival,) = spool.look()
    ((_, claim),) = spool.claim([arrival], NOW)
    spool.release(claim)
    spool.tidy(older_than_ns=0)
    assert (spool.root / "cd").is_dir()
    spool.tidy(older_than_ns=2**63)
    assert not (spool.root / "cd").exists()
    assert (spool.root / "mine").is_dir()


def test_the_folders_above_an_emptied_one_go_in_their_turn(spool: Spool) -> None:
    drop(spool.root / "cd/images/a", b"x")
    (arrival,) = spool.look()
    ((_, claim),) = spool.claim([arrival], NOW)
    spool.release(claim)
    os.utime(spool.root / "cd/images", (0, 0))
    spool.tidy(older_than_ns=1)
    assert os.listdir(spool.root / "cd") == []
    assert not spool.is_tidy
    os.utime(spool.root / "cd", (0, 0))
    spool.tidy(older_than_ns=1)
    assert not (spool.root / "cd").exists()
    assert spool.is_tidy


def test_a_copy_of_a_cd_is_taken_though_its_folders_are_read_only(spool: Spool) -> None:
    drop(spool.root / "cd/images/a", b"x")
    for folder in ("cd/images", "cd"):
        (spool.root / folder).chmod(0o555)
    ((_, claim),) = spool.claim(list(spool.look()), NOW)
    assert claim.path.read_bytes() == b"x"
    assert spool.troubles == {}
    spool.release(claim)
    spool.tidy(older_than_ns=2**63)
    assert not (spool.root / "cd").exists()


def test_our_own_tidying_does_not_keep_the_folders_above(spool: Spool) -> None:
    for name in ("cd/images/a", "cd/images/deep/b", "cd/more/c"):
        drop(spool.root / name, b"x")
    for _, claim in list(spool.claim(list(spool.look()), NOW)):
        spool.release(claim)
    for folder in ("cd/images/deep", "cd/images", "cd/more", "cd"):
        os.utime(spool.root / folder, (0, 0))
    spool.tidy(older_than_ns=1)
    assert not (spool.root / "cd").exists()
    assert spool.is_tidy


def test_no_name_is_too_long_to_be_handed_over(spool: Spool) -> None:
    name = "頭" * 300 + "/" + "a/" * 2000 + "%" * 255
    for number, batch in enumerate(("%/" * 200, "影" * 300, None)):
        path = handed_over("CT1", batch, f"{number:024x}", name)
        drop(spool.root / path, b"x")
    told = {arrival.batch for arrival in spool.look()}
    assert told == {"%/" * 42, "影" * 84, None}


def test_links_and_fifos_are_seen_and_never_followed(spool: Spool, tmp_path: Path) -> None:
    outside = drop(tmp_path / "outside/secret", b"x")
    (spool.root / "link").symlink_to(outside)
    (spool.root / "folder").symlink_to(outside.parent)
    os.mkfifo(spool.root / "fifo")
    seen = {a.relative: a.identity.is_regular for a in spool.look()}
    assert seen == {"fifo": False, "folder": False, "link": False}


def test_a_share_has_its_own_source_and_claims(tmp_path: Path) -> None:
    root, share = tmp_path / "spool", tmp_path / "share"
    root.mkdir()
    drop(share / "day1/a", b"x")
    spool = Spool(root, shares=[Share(share, "WARD")])
    spool.make_folders()
    (arrival,) = spool.look()
    assert (arrival.source, arrival.batch) == ("WARD", "day1")
    ((_, claim),) = spool.claim([arrival], NOW)
    assert claim.folder.parent == share / ".claimed"
    assert spool.claimed() == [claim]


def test_a_share_that_is_gone_is_a_trouble_and_nothing_more(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    root.mkdir()
    spool = Spool(root, shares=[Share(tmp_path / "nowhere", "WARD")])
    spool.make_folders()
    assert list(spool.look()) == []
    assert list(spool.troubles.values()) == ["the drop folder is not there"]


def test_quarantine_says_why_and_gives_back(spool: Spool) -> None:
    drop(spool.root / "CT1/cd/reason.json", b"x")
    (arrival,) = spool.look()
    ((_, claim),) = spool.claim([arrival], NOW)
    refusal = Refusal(Reason.MALFORMED, "It is torn.")
    told = quarantine(
        spool, claim, refusal, sha256="00", attempts=1, quarantined_at="2026-01-02T03:04:06.000Z"
    )
    folder = spool.quarantine_folder / claim.arrival_id
    assert Quarantined.read(folder) == told
    aside = file_in(folder)
    assert aside is not None
    assert (aside.name, aside.read_bytes()) == ("reason.json.original", b"x")
    assert [each for _, each in quarantined(spool)] == [told]


def test_a_claim_with_a_reason_is_finished_and_never_read_again(spool: Spool) -> None:
    drop(spool.root / "a", b"x")
    (arrival,) = spool.look()
    ((_, claim),) = spool.claim([arrival], NOW)
    (claim.folder / "reason.json").write_text("{}")
    assert spool.claimed() == []
    assert spool.half_quarantined() == [claim.folder]
    finish_quarantine(spool, claim.folder, claim.arrival_id)
    assert (spool.quarantine_folder / claim.arrival_id / "a").read_bytes() == b"x"


def test_names_are_shown_without_surprises() -> None:
    assert shown("a\nb\x1b[31m") == "a\\x0ab\\x1b[31m"
    assert shown(os.fsdecode(b"\xff\xfe.dcm")) == "\\xff\\xfe.dcm"
    assert shown("Jürgen 山田") == "Jürgen 山田"
