"""Every example that a command's help shows is run, on a site that has what it names."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest

from ingester.cli import COMMANDS, main
from tests.factory import drop, encoded, instance, uid
from tests.stories.conftest import Command
from tests.unit.test_unpack_dicomdir import dicomdir, record

STUDY = "1.2.840.113619.2.55.3"
ASIDE = "00063a1f2b3c4d5e6f708192"
#: These run until somebody stops them, or change the machine.
FOR_EVER = {
    "ingester run",
    "ingester --config /srv/dicom/ingest.toml run",
    "ingester status --watch",
}
#: What there is to find is found: a batch that lacks something, a problem, a full disk.
TELLS = {"receipt": {0, 1}, "status": {0, 1}, "doctor": {0, 1}, "import": {0, 1}}


def examples(name: str) -> list[str]:
    """Return the lines below "Examples:" in a command's help."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.epilog is not None
    lines = command.epilog.partition("Examples:\n")[2].splitlines()
    assert lines
    return [line.strip() for line in lines]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine with a site in /srv/dicom, a CD, downloads, and a home."""
    root = tmp_path_factory.mktemp("machine")
    site = Command(root / "srv/dicom")
    for number in (1, 2):
        knee = instance(
            1, 1, 1, number, PatientName="Meyer^Max", PatientID="4711", StudyDate="20240315",
            Modality="MR", StudyDescription="Knee", AccessionNumber="A1234",
            StudyInstanceUID=STUDY,
        )  # fmt: skip
        drop(site.spool / f"CD_4711/IM{number}", knee)
    knee.PatientName = "Meier^Max"
    drop(site.spool / "CD_4711/corrected", knee)
    drop(site.spool / "cine", instance(2, frames=3, CineRate="10"))
    cut = encoded(instance(3))[:-40]
    drop(site.spool / "quarantine" / ASIDE / "cut.dcm", cut)
    told = {
        "arrival_id": ASIDE, "reason": "incomplete", "message": "The file was cut short.",
        "source": "MANUAL", "batch": None, "original_name": "cut.dcm", "size_bytes": len(cut),
        "sha256": None, "arrived_at": "2026-01-02T03:04:05.678Z",
        "quarantined_at": "2026-01-02T03:04:06.789Z", "attempts": 1,
    }  # fmt: skip
    drop(site.spool / "quarantine" / ASIDE / "reason.json", json.dumps(told).encode())
    site.run("run", "--once", exit_code=1)
    march = drop(root / "march/IM1", instance(8))
    site.run("import", march.parent, "--source", "CT1", "--batch", "march")
    cdrom = root / "media/cdrom"
    drop(cdrom / "IM1", instance(4))
    dicomdir(cdrom / "DICOMDIR", record("IM1", uid(4, 1, 1, 1)))
    (root / "home/Downloads").mkdir(parents=True)
    with zipfile.ZipFile(root / "home/Downloads/march.zip", "w") as archive:
        archive.writestr("IM1", encoded(instance(5)))
    drop(root / "mnt/old/IM1", instance(6))
    (root / "mnt/backup").mkdir()
    (root / "tmp").mkdir()
    drop(site.root / "loop.dcm", instance(7, frames=3, CineRate="10"))
    drop(site.root / "a.dcm", instance(7))
    (site.root / "query.sql").write_text("SELECT count(*) AS n FROM images;\n")
    return root


def on(machine: Path, example: str) -> str:
    """Return the example as it is run here: this program, these folders."""
    line = re.sub(r"\| jq .*", "", example)
    line = re.sub(r"\bsudo ", "", line)
    line = re.sub(r"(?<= )(/srv|/media|/mnt|/tmp)\b", rf"{machine}\1", line)
    program = f"{shlex.quote(sys.executable)} -m ingester"
    return re.sub(r"(^|&& )(/opt/ingester/bin/)?ingester\b", rf"\1{program}", line)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_run(machine: Path, tmp_path: Path, name: str) -> None:
    here = tmp_path / "machine"
    shutil.copytree(machine, here, symlinks=True)
    site = here / "srv/dicom"
    done = 0
    for example in examples(name):
        if example in FOR_EVER or "--install" in example:
            continue
        if name == "init":
            site = here / f"new{done}"
            site.mkdir()
            example = example.replace("/srv/dicom", f"/srv/new{done}")
        found = subprocess.run(
            ["/bin/sh", "-c", on(here, example)],
            cwd=site,
            env={**os.environ, "HOME": str(here / "home"), "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        told = f"{example}\n{found.stdout}{found.stderr}"
        assert found.returncode in TELLS.get(name, {0}), told
        assert "Traceback" not in found.stderr, told
        assert found.stdout or found.stderr or ">" in example, told
        if "--json" in example and ">" not in example:
            json.loads(found.stdout)
        done += 1
    assert done or name == "service"
