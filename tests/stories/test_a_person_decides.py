"""`resolve`: a person decides, it is written down, and the site is as it should be."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import Any

import pytest

from tests.factory import drop, encoded, instance, uid
from tests.site import digest
from tests.stories.conftest import Command

WRONG: dict[str, Any] = {"PatientName": "Mayer^Anna", "PatientSex": "M"}
RIGHT: dict[str, Any] = {"PatientName": "Meyer^Anna", "PatientSex": "F"}


def send_study(command: Command, folder: str, **said: Any) -> None:
    for number in range(1, 4):
        drop(command.spool / folder / str(number), instance(1, 1, 1, number, **said))


def rows_of_the_study(command: Command) -> list[object]:
    queries = (
        "SELECT * FROM patients ORDER BY patient_key",
        "SELECT * FROM study_list",
        "SELECT * FROM series",
        "SELECT * FROM instances ORDER BY instance_id",
        "SELECT * FROM arrivals ORDER BY arrival_id",
        "SELECT * FROM contradictions ORDER BY level, uid, attribute, value",
        "SELECT * FROM resolutions ORDER BY resolution_id",
        "SELECT * FROM derivatives ORDER BY instance_id, kind",
    )
    return [command.rows(query) for query in queries]


def test_a_corrected_study_is_made_current_and_found_by_its_right_name(command: Command) -> None:
    send_study(command, "monday", **WRONG)
    assert command.once() == {"arrived": 3, "archived": 3, "thumbnails": 3}
    send_study(command, "tuesday", **RIGHT)
    assert command.once(exit_code=1)["conflict"] == 3
    before = {path: digest(path) for path in command.archive.rglob("*.dcm")}
    assert command.run("find", "meyer", exit_code=1) == ""
    assert f"ingester resolve --study {uid(1, 1)}" in "".join(
        command.rows("SELECT message FROM problems")
    )

    note = "typed wrong at the console"
    told = command.json("resolve", "--study", uid(1, 1), "--make-current", "--note", note)
    assert (len(told["resolved"]), told["studies"], told["failed"]) == (3, [uid(1, 1)], [])
    (study,) = command.json("find", "meyer")
    assert (study["patient_name"], study["patient_sex"]) == ("Meyer^Anna", "F")
    command.run("find", "mayer", exit_code=1)
    assert command.rows("SELECT * FROM problems") == []
    command.run("status")
    assert {path: digest(path) for path in command.archive.rglob("*.dcm")} == before
    shown = command.run("show", uid(1, 1, 1, 2))
    assert note in shown
    assert "make-current" in shown
    (decision, *_) = command.json("show", uid(1, 1))["decisions"]
    assert decision["decided_by"]

    # Either version again is nothing new.
    send_study(command, "wednesday", **WRONG)
    send_study(command, "thursday", **RIGHT)
    assert command.once() == {"arrived": 6, "duplicate": 6}
    assert command.rows("SELECT * FROM problems") == []
    (picture,) = command.rows(
        "SELECT thumbnail_path FROM images WHERE version = 'current' AND sop_instance_uid = ?",
        uid(1, 1, 1, 1),
    )
    assert "~" in picture
    assert (command.archive / picture).is_file()
    told_before = rows_of_the_study(command)
    command.run("rebuild")
    assert rows_of_the_study(command) == told_before
    command.verify()


def test_a_quarantined_file_is_settled_where_it_lies_or_removed(command: Command) -> None:
    drop(command.spool / "CD/cut", encoded(instance(1))[:-40])
    drop(command.spool / "CD/blank", encoded(instance(2))[:-40])
    drop(command.spool / "CD/readme.txt", b"read me\n" * 100)
    command.once(exit_code=1)
    ids = dict(command.rows("SELECT original_name, arrival_id FROM arrivals"))
    command.run("status", exit_code=1)

    folder = command.spool / "quarantine" / ids["CD/cut"]  # what a shell completes
    command.run("resolve", f"{folder}/", "--note", "no other copy")
    command.run("resolve", ids["CD/blank"], ids["CD/readme.txt"], "--discard")
    command.run("status")
    assert os.listdir(command.spool / "quarantine") == [ids["CD/cut"]]
    assert command.outcomes() == {"quarantined": 1, "discarded": 2}
    assert command.json("quarantine", "--foreign") == []
    (settled,) = command.json("quarantine", "--settled")
    assert settled["arrival_id"] == ids["CD/cut"]
    command.verify()

    # Settled is not gone: it may still be sent back by its id, and only by that.
    command.run("retry", "--all")
    assert command.left_in_spool() == []
    command.run("retry", ids["CD/cut"])
    assert command.once(exit_code=1) == {"arrived": 1, "quarantined": 1}
    told = command.json("resolve", ids["CD/cut"], exit_code=1)
    (retried_as,) = command.rows("SELECT arrival_id FROM arrivals WHERE outcome = 'quarantined'"
                                 " AND retried_as IS NULL")  # fmt: skip
    assert told["failed"] == [
        {"id": ids["CD/cut"], "message": f"it was sent back as {retried_as}: decide on that one"}
    ]
    command.verify()


def test_a_conflict_is_never_discarded_and_accepted_as_it_is(command: Command) -> None:
    drop(command.spool / "a", instance(1))
    drop(command.spool / "b", instance(1, StudyDescription="Thorax"))
    command.once(exit_code=1)
    (conflict,) = command.rows("SELECT arrival_id FROM arrivals WHERE outcome = 'conflict'")
    refused = command.json("resolve", conflict, "--discard", exit_code=1)
    assert "--make-current" in refused["failed"][0]["message"]
    assert len(list(command.archive.rglob("*.dcm"))) == 2
    command.run("resolve", conflict)
    command.run("status")
    assert command.rows("SELECT study_description FROM studies") == ["Abdomen"]
    command.run("resolve", "--study", uid(1, 1))
    command.run("resolve", exit_code=2)
    command.run("resolve", conflict, "--discard", "--make-current", exit_code=2)
    command.verify()


def test_a_running_service_is_asked_to_decide(command: Command) -> None:
    with command.service() as service:
        drop(command.spool / "a", instance(2))
        service.await_outcomes({"archived": 1})
        drop(command.spool / "b", instance(2, StudyDescription="Thorax"))
        service.await_outcomes({"archived": 1, "conflict": 1})
        command.run("resolve", uid(2, 1, 1, 1), "--make-current")
        assert command.rows("SELECT study_description FROM studies") == ["Thorax"]
        # What arrives next is compared with the study as the decision left it.
        drop(command.spool / "c", instance(2, 1, 1, 2, StudyDescription="Thorax"))
        service.await_outcomes({"archived": 2, "conflict": 1})
        assert command.rows("SELECT * FROM problems") == []
        command.verify()


@pytest.mark.parametrize(("answer", "is_removed"), [(b"n\n", False), (b"y\n", True)])
def test_on_a_terminal_discard_asks_first(
    command: Command, answer: bytes, is_removed: bool
) -> None:
    drop(command.spool / "cut", encoded(instance(1))[:-40])
    command.once(exit_code=1)
    (arrival_id,) = os.listdir(command.spool / "quarantine")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command.arguments("resolve", arrival_id, "--discard"),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 4096)
        os.write(ours, answer)
        while _more := _read(ours):
            said += _more
    os.close(ours)
    assert b"incomplete" in said
    assert process.returncode == (0 if is_removed else 1)
    assert os.listdir(command.spool / "quarantine") == ([] if is_removed else [arrival_id])
    command.verify()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_a_file_whose_folder_somebody_removed_is_discarded(command: Command) -> None:
    drop(command.spool / "cut", encoded(instance(1))[:-40])
    command.once(exit_code=1)
    (folder,) = (command.spool / "quarantine").iterdir()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    command.run("verify", exit_code=1)
    command.run("resolve", folder.name[:20], "--discard")
    command.verify()
    command.run("status")


def test_what_a_crash_left_of_a_discarded_file_goes_at_the_next_start(command: Command) -> None:
    drop(command.spool / "zz", encoded(instance(1))[:-40])
    command.once(exit_code=1)
    (folder,) = (command.spool / "quarantine").iterdir()
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    command.run("resolve", folder.name, "--discard")
    folder.mkdir()  # as if the power had gone after the row, and after reason.json
    (folder / "zz").write_bytes(kept["zz"])
    command.run("verify", exit_code=1)
    assert command.once() == {}
    assert not folder.exists()
    command.verify()
