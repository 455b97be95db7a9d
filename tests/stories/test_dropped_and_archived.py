"""Whatever is dropped ends archived, indexed and with pictures; the rest has a reason."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

from PIL import Image
from pydicom.uid import UltrasoundMultiFrameImageStorage

from tests.factory import drop, encoded, instance, uid
from tests.site import digest
from tests.stories.conftest import Command


def test_an_empty_spool_is_nothing_to_do(command: Command) -> None:
    assert command.once() == {}
    assert command.once() == {}
    command.verify()


def test_a_still_and_a_cine_are_archived_indexed_and_pictured(command: Command) -> None:
    still = drop(command.spool / "still", instance(1, rows=64, columns=48))
    cine = instance(
        2, frames=12, rows=33, columns=47, Modality="US", FrameTime="40",
        FrameIncrementPointer=0x00181063, sop_class=UltrasoundMultiFrameImageStorage,
    )  # fmt: skip
    loop = drop(command.spool / "CD_4711/IMAGES/loop.xyz", cine)
    digests = {digest(still), digest(loop)}
    assert command.once() == {"arrived": 2, "archived": 2, "thumbnails": 2, "videos": 1}
    rows = command.rows("SELECT path, sha256 FROM instances")
    assert {sha for _, sha in rows} == digests
    assert all(digest(command.archive / path) == sha for path, sha in rows)
    home = f"MANUAL/2024/01/01/{uid(1, 1)}/{uid(1, 1, 1, 1)}"
    assert (command.archive / f"{home}.dcm").stat().st_mode & 0o777 == 0o440
    with Image.open(command.archive / f"{home}.jpg") as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (192, 256))
    video = command.archive / f"MANUAL/2024/01/01/{uid(2, 1)}/{uid(2, 1, 1, 1)}.mp4"
    assert video.read_bytes()[4:8] == b"ftyp"
    assert command.rows("SELECT fps FROM images WHERE video_path IS NOT NULL") == [25.0]
    assert command.rows("SELECT batch, archived FROM batches") == [("CD_4711", 1)]
    assert command.left_in_spool() == []
    assert command.once() == {}
    command.verify()


def test_the_same_again_is_a_duplicate_and_other_values_are_a_conflict(command: Command) -> None:
    drop(command.spool / "a", instance(1))
    assert command.once() == {"arrived": 1, "archived": 1, "thumbnails": 1}
    drop(command.spool / "b", encoded(instance(1), "1.2.840.10008.1.2"))
    assert command.once() == {"arrived": 1, "duplicate": 1}
    drop(command.spool / "c", instance(1, PatientName="Other^Person"))
    assert command.once(exit_code=1)["conflict"] == 1
    (message,) = command.rows("SELECT message FROM problems WHERE kind = 'conflict'")
    assert "PatientName" in message or "Patient's Name" in message
    assert "Other" not in message
    shown = command.run("show", uid(1, 1, 1, 1), exit_code=None)
    assert "conflict" in shown
    assert command.rows("SELECT version FROM instances ORDER BY instance_id") == [
        "current",
        "conflict",
    ]
    command.verify()


def test_what_cannot_be_archived_is_set_aside_with_words(command: Command) -> None:
    drop(command.spool / "CD/cut.dcm", encoded(instance(1))[:-50])
    drop(command.spool / "CD/readme.txt", b"How to use this CD\n" * 30)
    os.mkfifo(command.spool / "CD/fifo")
    (command.spool / "CD/link").symlink_to("/etc/passwd")
    found = command.once(exit_code=1)
    assert found == {"arrived": 4, "quarantined": 3, "foreign": 1}
    assert sorted(command.rows("SELECT reason FROM arrivals")) == [
        "incomplete",
        "not-a-regular-file",
        "not-a-regular-file",
        "not-dicom",
    ]
    for folder in (command.spool / "quarantine").iterdir():
        told = json.loads((folder / "reason.json").read_text())
        assert set(told) == {
            "arrival_id", "reason", "message", "source", "batch", "original_name", "size_bytes",
            "sha256", "arrived_at", "quarantined_at", "attempts",
        }  # fmt: skip
        assert len(told["message"].split()) > 4
    assert "incomplete" in command.run("quarantine")
    assert "readme.txt" in command.run("quarantine", "--foreign")
    assert command.left_in_spool() == []
    command.verify()


def test_a_mended_file_is_sent_back_by_retry(command: Command) -> None:
    whole = encoded(instance(1))
    drop(command.spool / "CD/cut.dcm", whole[:-50])
    command.once(exit_code=1)
    (arrival_id,) = os.listdir(command.spool / "quarantine")
    (command.spool / "quarantine" / arrival_id / "cut.dcm").write_bytes(whole)
    command.run("retry", arrival_id)
    command.once()
    rows = command.rows("SELECT outcome, batch, retried_as IS NULL FROM arrivals ORDER BY 1")
    assert rows == [("archived", "CD", 1), ("quarantined", "CD", 0)]
    assert command.rows("SELECT * FROM problems") == []
    assert os.listdir(command.spool / "quarantine") == []
    command.verify()


def test_a_zip_is_unpacked_and_each_member_is_an_arrival(command: Command) -> None:
    with zipfile.ZipFile(command.spool / "study.zip", "w") as archive:
        for number in range(1, 6):
            archive.writestr(f"A/{number}", encoded(instance(1, 1, 1, number)))
        archive.writestr("viewer.exe", b"MZ" + bytes(500))
    assert command.once() == {
        "arrived": 7, "archived": 5, "foreign": 1, "unpacked": 1, "thumbnails": 5,
    }  # fmt: skip
    assert command.rows('SELECT batch, archived, "foreign" FROM batches') == [("study.zip", 5, 1)]
    assert command.left_in_spool() == []
    command.verify()


def test_import_copies_and_says_what_became_of_each(command: Command, tmp_path: Path) -> None:
    drop(tmp_path / "CD_7/IMAGES/1", instance(1))
    drop(tmp_path / "CD_7/IMAGES/2", instance(1, 1, 1, 2))
    drop(tmp_path / "CD_7/viewer.exe", b"MZ" + bytes(500))
    summary = command.json("import", tmp_path / "CD_7", "--source", "CT9")
    assert (summary["archived"], summary["foreign"]) == (2, 1)
    assert (tmp_path / "CD_7/IMAGES/1").exists()
    assert command.rows("SELECT DISTINCT source, batch FROM arrivals") == [("CT9", "CD_7")]
    command.verify()
    again = command.json("import", tmp_path / "CD_7/IMAGES/1", "--source", "CT9", "--move")
    assert again["duplicate"] == 1
    assert not (tmp_path / "CD_7/IMAGES/1").exists()
