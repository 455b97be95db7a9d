"""All of it at once: each file has one outcome, and the right one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.site import digest
from tests.stories.conftest import Command

SAFE_UID = re.compile(r"[0-9]([0-9.]{0,62}[0-9])?", re.ASCII)
UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID")


def read(path: Path) -> Dataset | None:
    """Read a Part 10 file's header by pydicom alone, None where that refuses it."""
    try:
        return pydicom.dcmread(path, specific_tags=list(UIDS), stop_before_pixels=True)
    except Exception:  # noqa: BLE001 - hostile files raise anything; then this oracle is silent
        return None


def uid_of(ds: Dataset, keyword: str) -> str:
    try:
        return str(ds.get(keyword, "") or "").rstrip("\0 ")
    except Exception:  # noqa: BLE001 - as above
        return ""


def files_of(corpus: Path) -> list[Path]:
    return sorted(path for path in corpus.rglob("*") if path.is_file())


@pytest.mark.timeout(600)
def test_every_file_has_one_outcome_and_nothing_is_lost(corpus: Path, command: Command) -> None:
    files = files_of(corpus)
    sources = Counter(digest(path) for path in files)
    shutil.copytree(corpus, command.spool / "corpus")
    summary = command.json("run", "--once", exit_code=1)
    assert summary["arrived"] >= len(files)
    outcomes = (
        "archived",
        "duplicate",
        "variant",
        "conflict",
        "quarantined",
        "foreign",
        "unpacked",
    )
    assert summary["arrived"] == sum(summary[name] for name in outcomes)

    # The audit: each file that lay there has its row, and only members are more.
    tops = "SELECT sha256 FROM arrivals WHERE arrival_id NOT LIKE '%.%' AND sha256 IS NOT NULL"
    assert Counter(command.rows(tops)) == sources
    assert command.left_in_spool() == []

    # Byte-exact: file = row = source.
    members = set(command.rows("SELECT sha256 FROM arrivals WHERE arrival_id LIKE '%.%'"))
    for path, sha in command.rows("SELECT path, sha256 FROM instances"):
        assert digest(command.archive / path) == sha
        assert sha in sources or sha in members

    # What is set aside is set aside whole, with its reason.
    aside = {sha for (_, sha) in set_aside(command)}
    recorded = "SELECT sha256 FROM arrivals WHERE outcome IN ('quarantined', 'foreign')"
    assert set(command.rows(recorded)) - {None} <= aside

    # Whatever pydicom reads and has its UIDs is refused for its structure alone.
    reasons = dict(command.rows("SELECT sha256, coalesce(reason, outcome) FROM arrivals"))
    for path in files:
        ds = read(path)
        if ds is None:
            continue
        has_uids = all(SAFE_UID.fullmatch(uid_of(ds, keyword)) for keyword in UIDS)
        if has_uids:
            assert not reasons[digest(path)].startswith(("no-", "unsafe")), path
            assert reasons[digest(path)] != "not-dicom", path

    command.run("verify", "--checksum")
    again = command.json("run", "--once")
    assert again["arrived"] == 0
    assert again["seconds"] < 1


def set_aside(command: Command) -> list[tuple[str, str]]:
    found = []
    for folder in (command.spool / "quarantine").iterdir():
        told = json.loads((folder / "reason.json").read_text())
        for path in folder.iterdir():
            if path.name != "reason.json" and path.is_file() and not path.is_symlink():
                sha = hashlib.sha256(path.read_bytes()).hexdigest()
                assert sha == told["sha256"]
                found.append((told["reason"], sha))
    return found
