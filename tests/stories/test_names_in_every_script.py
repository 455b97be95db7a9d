"""Names in every script are found as their owners write them, and on any keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_charset_files

from tests.factory import drop, encoded, instance
from tests.scripts import NAMES, Name
from tests.stories.conftest import Command


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A site with one study for each of `NAMES`."""
    command = Command(tmp_path_factory.mktemp("clinic") / "site")
    for number, name in enumerate(NAMES, start=1):
        drop(command.spool / f"{number}.dcm", name.file(number))
    assert command.once() == {
        "arrived": len(NAMES),
        "archived": len(NAMES),
        "thumbnails": len(NAMES),
    }
    yield command
    command.verify()


@pytest.mark.parametrize("number", range(1, len(NAMES) + 1), ids=[name.script for name in NAMES])
def test_a_name_is_found_in_its_own_script_and_folded(clinic: Command, number: int) -> None:
    name = NAMES[number - 1]
    patient = f"{name.script}-{number}"
    for typed in (name.typed[0], name.typed[-1]):
        found = {row["patient_id"]: row for row in clinic.json("find", typed)}
        assert found[patient]["patient_name"] == name.text
        assert found[patient]["patient_name_folded"].isascii()
        assert found[patient]["study_description"] == name.description


def groups(name: str) -> list[str]:
    return [group for group in name.split("=") if group]


def test_pydicoms_character_set_files_are_found_by_every_group(command: Command) -> None:
    expected = {}
    for number, file in enumerate(sorted(get_charset_files("chr*.dcm"))):
        ds = pydicom.dcmread(file)
        if "PatientName" in ds:
            drop(command.spool / str(number), Path(file).read_bytes())
            expected[str(ds.PatientName)] = ds.StudyInstanceUID
    assert len(expected) >= 13
    command.once(exit_code=None)
    for name, study in expected.items():
        for group in groups(name):
            assert study in {row["study_instance_uid"] for row in command.json("find", group)}, (
                group
            )
    command.verify()


def test_a_source_that_names_no_character_set_or_an_unknown_one_has_its_own(
    command: Command,
) -> None:
    command.configure(
        sources__CT9={"character_set": "ISO_IR 144"}, sources__CR2={"character_set": "GBK"}
    )
    russian = Name("russian", "ISO_IR 144", "Семёнов^Андрей", ())
    chinese = Name("chinese", "GBK", "Wang^Cheng=王^誠", ())
    drop(command.spool / "CT9/1.dcm", russian.file(1, claimed=""))
    drop(command.spool / "CT9/2.dcm", russian.file(2, claimed="ISO_IR 999"))
    drop(command.spool / "CT9/3.dcm", russian.file(3, claimed="ISO_IR 6"))
    drop(command.spool / "CR2/4.dcm", chinese.file(4, claimed=""))
    drop(command.spool / "CT8/5.dcm", russian.file(5, claimed=""))
    command.once()
    names = dict(command.rows("SELECT patient_id, patient_name FROM patients"))
    assert names.pop("russian-5") != russian.text  # nobody said how to read it
    assert set(names.values()) == {russian.text, chinese.text}
    assert len(command.json("find", "семенов")) == 3
    assert [row["patient_id"] for row in command.json("find", "誠")] == ["chinese-4"]
    command.verify()


def test_text_that_no_character_set_explains_rejects_no_file(command: Command) -> None:
    """The bytes stay in the header's JSON, the rest of the name is found."""
    wrong = {
        "utf-8": Name("a", "ISO_IR 100", "Müller^Jörg", ()).file(1, claimed="ISO_IR 192"),
        "escapes": encoded(instance(2)).replace(b"Family2", b"\x1b$B\xff\x1bXY"),
        "nothing": encoded(instance(3)).replace(b"Family3", b"\xff\xfe\xfd\x81\x8d\x8f\x90"),
    }
    for name, data in wrong.items():
        drop(command.spool / f"{name}.dcm", data)
    assert command.once() == {"arrived": 3, "archived": 3, "thumbnails": 3}
    query = "SELECT patient_name, attributes ->> '$.PatientName' FROM images JOIN headers"
    rows = command.rows(f"{query} USING (instance_id) ORDER BY patient_id")
    assert ("M\ufffdller^J\ufffdrg", r"M\xFCller^J\xF6rg") in rows
    assert [row["patient_name"] for row in command.json("find", "ller")] == [
        "M\ufffdller^J\ufffdrg"
    ]
    assert len(command.json("find", "given3")) == 1
    for detail in command.rows("SELECT detail FROM arrivals"):
        assert "undecodable-text" in detail
    command.verify()
