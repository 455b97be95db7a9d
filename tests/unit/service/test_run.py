"""The service as a process: starts, takes what is dropped, stops, is refused."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ingester import service
from ingester.control import SOCKET_NAME
from tests.factory import drop, encoded, instance
from tests.unit.service.conftest import CONFIG, Running
from tests.waiting import until


def rows(running: Running, query: str) -> list[tuple[object, ...]]:
    path = running.settings.index.path
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def test_a_day_in_the_life(running: Running) -> None:
    drop(running.spool / "before.dcm", instance(1, 1, 1, 1))
    running.start()
    running.wait_for_objects(1)
    drop(running.spool / "CD_1/DICOM/a.dcm", instance(1, 1, 1, 2))
    drop(running.spool / "CD_1/DICOM/b.dcm", instance(1, 1, 1, 3))
    running.wait_for_objects(3)
    told = running.status()
    assert told["service"]["process"] == running.process.pid if running.process else False
    assert (told["instances"], told["archived_today"]) == (3, 3)
    assert [(each["path"], each["how"]) for each in told["watched"]] == [
        (os.path.realpath(running.spool), "native")
    ]
    assert told["troubles"] == []
    until(lambda: running.status()["pending_derivatives"] == 0)
    kinds = until(
        lambda: (
            {kind for (kind,) in rows(running, "SELECT kind FROM events")}
            >= {"study.complete", "batch.complete"}
        )
    )
    assert kinds
    code, said = running.stop()
    assert (code, "Traceback" in said) == (0, False)
    assert not (running.archive / SOCKET_NAME).exists()
    assert service.read_status(running.settings)["service"] is None
    ((detail,),) = rows(running, "SELECT detail FROM events WHERE kind = 'batch.complete'")
    assert json.loads(str(detail))["archived"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_ways_to_stop(running: Running, number: int) -> None:
    running.start()
    assert running.stop(number)[0] == 0


def test_once_that_was_stopped_does_not_look_like_done(running: Running) -> None:
    with (running.spool / "growing.dcm").open("wb") as growing:
        growing.write(b"\0" * 200)
        growing.flush()
        running.start("--once")
        code, said = running.stop(signal.SIGINT)
    assert (code, "interrupted" in said, "Traceback" in said) == (130, True, False)


def test_a_second_service_is_refused_and_told_why(running: Running) -> None:
    running.start()
    assert running.process is not None
    holder = running.process.pid
    second = running.spawn("run")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"process {holder} (ingester run)" in said.decode()
    once = running.spawn("run", "--once")
    once.communicate(timeout=60)
    assert once.returncode == 2


def test_killed_and_started_again(running: Running) -> None:
    running.start()
    drop(running.spool / "a.dcm", instance(1, 1, 1, 1))
    running.wait_for_objects(1)
    drop(running.spool / "b.dcm", instance(1, 1, 1, 2))
    assert running.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    running.start()
    running.wait_for_objects(2)
    assert running.stop()[0] == 0
    outcomes = rows(running, "SELECT outcome, count(*) FROM arrivals GROUP BY 1")
    assert outcomes == [("archived", 2)]
    assert rows(running, "PRAGMA integrity_check") == [("ok",)]


def test_a_missing_archive_disk_exits_2(running: Running) -> None:
    running.start()
    running.stop()
    (running.archive / ".site").unlink()
    second = running.spawn("run")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "not mounted" in said.decode()


def test_a_quarantined_file_is_sent_back_by_the_running_service(running: Running) -> None:
    running.start()
    drop(running.spool / "nameless.dcm", instance(StudyInstanceUID=None))
    until(lambda: rows(running, "SELECT 1 FROM arrivals WHERE outcome = 'quarantined'"))
    (arrival_id,) = os.listdir(running.spool / "quarantine")
    told = service.perform(running.settings, "retry", ids=[arrival_id, "nonsense"])
    assert [each["arrival_id"] for each in told["retried"]] == [arrival_id]
    assert [each["arrival_id"] for each in told["failed"]] == ["nonsense"]
    retried_as = told["retried"][0]["retried_as"]
    found = f"SELECT 1 FROM arrivals WHERE arrival_id = '{retried_as}'"
    until(lambda: rows(running, found))


def test_a_port_that_is_taken_is_a_receiver_down_and_nothing_else(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = CONFIG.replace("enabled = false", f"enabled = true\nport = {port}")
        running = Running(tmp_path, config)
        try:
            running.start()
            (receiver,) = running.status()["receivers"]
            assert not receiver["is_up"]
            assert "taken" in receiver["message"]
            drop(running.spool / "a.dcm", instance())
            running.wait_for_objects(1)
            assert rows(running, "SELECT kind FROM events WHERE kind = 'receiver.down'")
            assert running.stop()[0] == 0
        finally:
            if running.process is not None:
                running.process.kill()


def test_a_hook_is_told_of_a_complete_study(tmp_path: Path) -> None:
    out = tmp_path / "told"
    hook = f'["/bin/sh", "-c", "cat > {out}.part; mv {out}.part {out}", "x", "{{folder}}"]'
    running = Running(tmp_path, CONFIG + f"study_complete = {hook}\n")
    try:
        running.start()
        drop(running.spool / "a.dcm", instance())
        until(out.exists)
        event = json.loads(out.read_text())
        assert event["kind"] == "study.complete"
        assert event["instance_count"] == 1
        assert running.stop()[0] == 0
    finally:
        if running.process is not None:
            running.process.kill()


def test_a_file_that_is_written_slowly_is_waited_for(running: Running) -> None:
    whole = encoded(instance())
    running.start()
    with (running.spool / "slow.dcm").open("wb", buffering=0) as file:
        file.write(whole[:600])
        until(lambda: running.status()["waiting"] >= 1)
        file.write(whole[600:])
    running.wait_for_objects(1)
    assert running.objects()[0].read_bytes() == whole


def test_a_lost_index_is_made_again_from_the_archive(running: Running) -> None:
    drop(running.spool / "a.dcm", instance(1, 1, 1, 1))
    drop(running.spool / "b.dcm", instance(1, 1, 1, 2))
    running.start()
    running.wait_for_objects(2)
    until(lambda: running.status()["pending_derivatives"] == 0)
    running.stop()
    before = rows(running, "SELECT sop_instance_uid, path, sha256 FROM instances ORDER BY 1")
    running.settings.index.path.unlink()
    drop(running.spool / "c.dcm", instance(1, 1, 1, 3))
    running.start()
    running.wait_for_objects(3)
    assert running.stop()[0] == 0
    after = rows(running, "SELECT sop_instance_uid, path, sha256 FROM instances ORDER BY 1")
    assert after[:2] == before
    assert len(after) == 3


def test_a_damaged_index_is_kept_aside_and_made_again(running: Running) -> None:
    drop(running.spool / "a.dcm", instance(1, 1, 1, 1))
    running.start()
    running.wait_for_objects(1)
    until(lambda: running.status()["pending_derivatives"] == 0)
    running.stop()
    path = running.settings.index.path
    path.write_bytes(b"this is no database" * 1000)
    running.start()
    assert running.status()["instances"] == 1
    running.stop()
    aside = [each for each in path.parent.iterdir() if each.name.startswith("index.db.")]
    assert any(each.read_bytes().startswith(b"this is no database") for each in aside)
