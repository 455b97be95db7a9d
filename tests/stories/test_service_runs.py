"""The service: files that arrive in every way a file can, and an orderly end."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification

from tests.factory import drop, encoded, instance
from tests.stories.conftest import Command
from tests.waiting import until


def test_files_arrive_in_every_way_and_each_once(command: Command, tmp_path: Path) -> None:
    command.configure(spool={"rescan": "2s"})
    with command.service() as service:
        drop(command.spool / "before.part", instance(1, 1, 1, 1))
        drop(command.spool / "plain", instance(1, 1, 1, 2))
        drop(command.spool / "new/deep/er/file", instance(1, 1, 1, 3))
        drop(tmp_path / "folder/a", instance(1, 1, 1, 4))
        drop(tmp_path / "folder/b/c", instance(1, 1, 1, 5))
        os.rename(tmp_path / "folder", command.spool / "folder")
        service.await_outcomes({"archived": 4})
        os.rename(command.spool / "before.part", command.spool / "before.dcm")
        service.await_outcomes({"archived": 5})
        until(lambda: command.left_in_spool() == [], what="the spool is empty")
    command.verify()


def test_a_file_that_grows_is_taken_when_its_writer_is_done(command: Command) -> None:
    data = encoded(instance(1, rows=64, columns=64))
    with command.service() as service:
        with (command.spool / "slow.dcm").open("wb") as file:
            for start in range(0, len(data) - 500, 500):
                file.write(data[start : start + 500])
                file.flush()
            drop(command.spool / "other", instance(2))
            service.await_outcomes({"archived": 1})
            file.write(data[start + 500 :])
        service.await_outcomes({"archived": 2})
    command.verify()


def test_without_events_the_rescan_finds_everything(command: Command) -> None:
    command.configure(spool={"rescan": "1s", "watch": "poll"})
    with command.service() as service:
        drop(command.spool / "a/b", instance(1))
        service.await_outcomes({"archived": 1})
    command.verify()


def test_what_was_dropped_while_it_was_down_is_taken_at_the_start(command: Command) -> None:
    drop(command.spool / "a", instance(1))
    with command.service() as service:
        service.await_outcomes({"archived": 1})
    command.verify()


def test_a_sender_is_answered_when_its_object_is_durable(command: Command) -> None:
    with command.service() as service:
        status = until(service.status)
        (receiver,) = status["receivers"]
        sender = AE(ae_title="CT SCANNER")
        sender.add_requested_context(Verification)
        sender.add_requested_context(CTImageStorage)
        association = sender.associate("127.0.0.1", receiver["port"], ae_title="INGESTER")
        assert association.is_established
        assert association.send_c_echo().Status == 0x0000
        for number in range(1, 6):
            ds = instance(1, 1, 1, number)
            encoded(ds)
            assert association.send_c_store(ds).Status == 0x0000
        association.release()
        service.await_outcomes({"archived": 5})
        assert len(command.rows("SELECT DISTINCT batch FROM arrivals")) == 1
        (source,) = command.rows("SELECT DISTINCT source FROM instances")
        assert source.startswith("CT_SCANNER-")
    command.verify()


def test_a_second_service_is_refused_and_told_who_holds_the_site(command: Command) -> None:
    with command.service() as service:
        command.run("run", "--once", exit_code=2)
        assert service.process.poll() is None


def test_commands_speak_to_the_running_service(command: Command, tmp_path: Path) -> None:
    cut = encoded(instance(1))[:-20]
    with command.service() as service:
        summary = command.json("import", drop(tmp_path / "cut", cut), exit_code=1)
        assert summary["quarantined"] == 1
        (arrival_id,) = os.listdir(command.spool / "quarantine")
        (command.spool / "quarantine" / arrival_id / "cut").write_bytes(encoded(instance(1)))
        command.run("retry", arrival_id)
        service.await_outcomes({"quarantined": 1, "archived": 1})
        until(lambda: command.rows("SELECT 1 FROM derivatives WHERE kind = 'thumbnail'"))
        command.run("derive", "--all")
        command.verify()


def test_an_archive_that_is_not_mounted_is_never_filled(command: Command) -> None:
    drop(command.spool / "a", instance(1))
    command.once()
    shutil.move(command.archive, command.root / "elsewhere")
    command.archive.mkdir()
    drop(command.spool / "b", instance(2))
    command.run("run", "--once", exit_code=2)
    assert not list(command.archive.rglob("*.dcm"))
    assert command.left_in_spool() == ["b"]


def test_many_writers_at_once(command: Command) -> None:
    def write(patient: int) -> None:
        for number in range(1, 21):
            drop(command.spool / f"w{patient}/{number}", instance(patient, 1, 1, number))

    with command.service() as service:
        writers = [threading.Thread(target=write, args=(patient,)) for patient in range(1, 5)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        service.await_outcomes({"archived": 80})
    command.verify()
