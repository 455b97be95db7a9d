"""A spool that holds a file for every outcome, and what must become of it in the end."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from typing import Any

from tests.factory import drop, encoded, instance
from tests.site import Site, digest


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


def fill_24(site: Site) -> None:
    """24 files: what `fill` makes, and more of each kind, in more folders."""
    fill(site)
    spool = site.spool.root
    for number in range(1, 7):
        drop(spool / f"CT1/night/{number:02d}.dcm", instance(6, 1, 1, number, rows=96, columns=96))
    drop(spool / "CT1/night/07-same.dcm", instance(6, 1, 1, 2, rows=96, columns=96))
    drop(spool / "CT1/night/08-cut.dcm", encoded(instance(6, 1, 1, 9))[:-40])
    drop(spool / "cd3/j.dcm", instance(7, 1, 1, 1, frames=3))
    drop(spool / "cd3/k-conflict.dcm", instance(7, 1, 1, 1, frames=3, StudyDescription="Thorax"))
    drop(spool / "cd3/l-same-as-in-i.dcm", instance(5, 1, 1, 2))
    drop(spool / "cd3/m-nouid.dcm", instance(8, SOPInstanceUID=None))
    drop(spool / "cd3/n-empty", b"")
    drop(spool / "cd3/o-notes.html", b"<p>Thank you for choosing our scanner</p>\n")
    drop(spool / "p-last.dcm", instance(9, 2, 3, 4))


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
