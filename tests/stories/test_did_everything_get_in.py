"""`receipt`: what became of every file of a batch, and what is missing."""

from __future__ import annotations

import csv
import shutil
from io import StringIO
from pathlib import Path

import pytest

from tests.factory import drop, encoded, instance, uid
from tests.media import burn, images
from tests.site import digest
from tests.stories.conftest import Command
from tests.waiting import until

LOST = (0, 3, 7)  # of the CD's images: two of the first series, one of the second


@pytest.fixture
def cd(tmp_path: Path) -> Path:
    """A CD of which three images cannot be read any more."""
    return burn(tmp_path / "CD_4711")


def lose(cd: Path) -> dict[str, bytes]:
    """Remove three images; returns their contents by File ID."""
    lost = {}
    for path in [images(cd)[number] for number in LOST]:
        lost[str(path.relative_to(cd))] = path.read_bytes()
        path.unlink()
    return lost


def lacking(told: dict[str, list[dict[str, object]]]) -> list[object]:
    return [each["name"] for each in told["expected"] if each["is_lacking"]]


def test_three_images_of_a_cd_are_missing_and_come_later_from_elsewhere(
    command: Command, cd: Path
) -> None:
    lost = lose(cd)
    shutil.copytree(cd, command.spool / "CD_4711")
    assert command.once() == {
        "arrived": 11, "archived": 7, "foreign": 3, "unpacked": 1, "thumbnails": 7,
    }  # fmt: skip
    said = command.run("receipt", "CD_4711", exit_code=1)
    assert "CD_4711/DICOMDIR lists 10: 7 archived, 3 missing" in said
    for file_id in lost:
        (line,) = [line for line in said.splitlines() if file_id in line]
        assert "IMAGE CT, series" in line
    assert "Family1" not in said
    told = command.json("receipt", "CD_4711", exit_code=1)
    assert lacking(told) == [f"CD_4711/{file_id}" for file_id in lost]
    assert [each["sop_instance_uid"] for each in told["expected"] if each["is_lacking"]] == [
        uid(1, 1, 1, 1), uid(1, 1, 1, 4), uid(1, 1, 2, 3),
    ]  # fmt: skip

    for number, data in enumerate(lost.values()):
        drop(command.spool / "from the ward" / str(number), data)
    command.once()
    said = command.run("receipt", "CD_4711")
    assert "7 archived, 3 archived by another batch" in said
    assert said.rstrip().endswith("complete")
    told = command.json("receipt", "CD_4711")
    assert {each["status"] for each in told["expected"]} == {"archived", "elsewhere"}
    assert {each["batch"] for each in told["expected"]} == {"CD_4711", "from the ward"}
    command.verify()


def test_import_of_a_cd_into_a_named_batch(command: Command, cd: Path) -> None:
    command.run("import", cd, "--batch", "Müller; 50 % (old)", "--source", "CT 1", exit_code=2)
    command.run("import", cd, "--batch", "Müller; 50 % (old)", "--source", "CT1")
    told = command.json("receipt", "Müller; 50 % (old)")
    assert (told["source"], told["counts"]["archived"]) == ("CT1", 10)
    command.run("receipt", "Müller; 50 % (old)", "--source", "CT1")
    command.run("receipt", "Müller; 50 % (old)", "--source", "MANUAL", exit_code=2)
    command.verify()


def test_a_list_of_hashes_tells_what_arrived_and_what_not(
    command: Command, cd: Path, tmp_path: Path
) -> None:
    files = sorted(path for path in cd.rglob("*") if path.is_file())
    lines = [f"{digest(path)}  ./{path.relative_to(cd)}\r\n" for path in files]
    (tmp_path / "sums").write_text("".join(lines), encoding="utf-8-sig")
    lost = lose(cd)
    shutil.copytree(cd, command.spool / "march")
    drop(command.spool / "march" / "extra", instance(2))
    first = next(iter(lost))
    drop(command.spool / "april" / "again", encoded(instance(1, 1, 1, 1)))
    command.once()
    said = command.run("receipt", "march", "--expect", tmp_path / "sums", exit_code=1)
    assert f"{tmp_path / 'sums'} lists 14: 7 archived" in said
    assert "1 archived by another batch, 1 unpacked, 3 no DICOM, 2 missing" in said
    assert "not on the list" in said
    assert "march/extra" in said
    listed = command.run("receipt", "march", "--expect", tmp_path / "sums", "--csv", exit_code=1)
    rows = list(csv.DictReader(StringIO(listed)))
    assert len(rows) == 12 + 3  # every file, and those of the list that none of them is
    (elsewhere,) = [row for row in rows if row["status"] == "elsewhere"]
    assert elsewhere["name"] == f"./{first}"
    assert "batch april" in elsewhere["explanation"]
    assert [row["name"] for row in rows if row["is_expected"] == "no"] == ["march/extra"]
    command.verify()


def test_beside_a_running_service_it_says_what_still_waits(command: Command, cd: Path) -> None:
    with command.service() as service:
        (command.spool / "CD_4711").mkdir()
        with (command.spool / "CD_4711" / "late").open("wb") as late:
            late.write(encoded(instance(9))[:-40])
            late.flush()
            for path in sorted(each for each in cd.rglob("*") if each.is_file()):
                # Bytes alone: a file is taken once it is closed, before its times are set.
                drop(command.spool / "CD_4711" / path.relative_to(cd), path.read_bytes())
            service.await_outcomes({"archived": 10, "foreign": 3})
            said = command.run("receipt", "CD_4711", exit_code=1)
            assert "NOT COMPLETE" in said
            assert "CD_4711/late" in said
            assert command.outcomes() == {"archived": 10, "foreign": 3}
            late.write(encoded(instance(9))[-40:])
        until(lambda: command.json("receipt", "CD_4711", exit_code=None)["is_complete"])
        assert command.json("receipt", "CD_4711")["counts"]["archived"] == 11
    command.verify()
