"""Killed before any durable effect, the next start ends where no kill would have.

The process is forked, dies without a farewell before its n-th effect (n = 1, 2, …
until it lives), and a fresh run on what it left must reach the uninterrupted result:
the same names and bytes, the same rows and outcomes, nothing left behind.
"""

from __future__ import annotations

import os
import shutil
import threading
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingester import durable
from tests.factory import drop, encoded, instance
from tests.site import Site, digest

KILLED = 77
FEWEST_EFFECTS = 100


def fill(site: Site) -> None:
    """Everything that has an outcome: objects, duplicates, conflicts, bad files, a zip."""
    spool = site.spool.root
    drop(spool / "a.dcm", instance(1, 1, 1, 1))
    drop(spool / "b-same.dcm", instance(1, 1, 1, 1))
    drop(spool / "c-conflict.dcm", instance(1, 1, 1, 1, PatientName="Other^Name"))
    drop(spool / "CT1/cd/d.dcm", instance(2, 1, 1, 1))
    drop(spool / "CT1/cd/e.dcm", instance(2, 1, 1, 2))
    drop(spool / "cd2/f-cut.dcm", encoded(instance(3))[:-100])
    drop(spool / "cd2/g-readme.txt", b"not an image\n" * 20)
    drop(spool / "h-nostudy.dcm", instance(4, StudyInstanceUID=None))
    with zipfile.ZipFile(spool / "i.zip", "w") as archive:
        for number in (1, 2):
            archive.writestr(
                zipfile.ZipInfo(f"IMAGES/{number}"), encoded(instance(5, 1, 1, number))
            )
        archive.writestr(zipfile.ZipInfo("viewer.exe"), b"MZ" + bytes(300))


def state(site: Site) -> dict[str, Any]:
    """Everything that must not depend on how often the power failed."""
    columns = "source, batch, original_name, size_bytes, sha256, outcome, reason"
    versions = "sop_instance_uid, source, path, sha256, data_set_sha256, version"
    quarantine = site.spool.root / "quarantine"
    return {
        "objects": site.objects(),
        "arrivals": Counter(site.rows(f"SELECT {columns} FROM arrivals")),
        "instances": sorted(site.rows(f"SELECT {versions} FROM instances")),
        "studies": sorted(site.rows("SELECT study_instance_uid, study_date FROM studies")),
        "patients": sorted(site.rows("SELECT patient_id, patient_name FROM patients")),
        "problems": Counter(site.rows("SELECT kind, reason FROM problems")),
        "quarantine": Counter(
            (path.name, digest(path))
            for path in quarantine.rglob("*")
            if path.is_file() and path.name != "reason.json"
        ),
        "spool": site.left_in_spool(),
        "staging": sorted(os.listdir(site.archive.staging)),
        "claimed": sorted(os.listdir(site.spool.root / ".claimed")),
    }


def dying_at(n: int) -> Callable[[str, str], None]:
    lock, seen = threading.Lock(), [0]

    def observer(name: str, path: str) -> None:
        with lock:
            seen[0] += 1
            if seen[0] >= n:
                os._exit(KILLED)

    return observer


def run_and_die(root: Path, n: int) -> bool:
    """Ingest in a forked process that dies before its n-th effect; True if it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            with durable.observe(dying_at(n)):
                Site(root).ingest_all()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"the run failed by itself before effect {n}"
    return code == KILLED


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    site = Site(tmp_path_factory.mktemp("whole"))
    site.spool.make_folders()
    fill(site)
    site.ingest_all()
    site.check()
    found = state(site)
    assert set(site.outcomes()) == {
        "archived", "duplicate", "conflict", "quarantined", "foreign", "unpacked",
    }  # fmt: skip
    return found


@pytest.mark.timeout(600)
def test_a_kill_before_any_effect_changes_nothing_in_the_end(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    template = Site(tmp_path / "template")
    template.spool.make_folders()
    fill(template)
    n = 0
    while True:
        n += 1
        root = tmp_path / "site"
        shutil.copytree(template.root, root)
        died = run_and_die(root, n)
        site = Site(root)
        site.ingest_all()
        assert state(site) == uninterrupted, f"killed before effect {n}"
        site.check()
        shutil.rmtree(root)
        if not died:
            break
    assert n > FEWEST_EFFECTS


@pytest.mark.timeout(300)
def test_a_second_kill_during_recovery_changes_nothing_either(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    template = Site(tmp_path / "template")
    template.spool.make_folders()
    fill(template)
    deaths = 0
    for first, second in [(40, 5), (60, 20), (80, 9), (90, 33), (120, 50), (140, 3), (160, 70)]:
        root = tmp_path / "site"
        shutil.copytree(template.root, root)
        deaths += run_and_die(root, first)
        deaths += run_and_die(root, second)
        site = Site(root)
        site.ingest_all()
        assert state(site) == uninterrupted, f"killed before effects {first} and {second}"
        site.check()
        shutil.rmtree(root)
    assert deaths >= 10
