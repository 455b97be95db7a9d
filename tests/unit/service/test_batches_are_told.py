"""`batch.complete`: told when nothing of a batch waits and it was quiet, and once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from ingester import service
from ingester.config import parse
from tests.factory import drop, encoded, instance
from tests.media import burn, images
from tests.unit.service.conftest import CONFIG, Running
from tests.waiting import until

NEVER_QUIET = CONFIG.replace('"200ms"', '"1h"')


def told(running: Running) -> list[dict[str, Any]]:
    """Return what `batch.complete` events say, in order."""
    path = running.settings.index.path
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT detail FROM events WHERE kind = 'batch.complete' ORDER BY event_id"
        ).fetchall()
    return [json.loads(row[0]) for row in rows]


def of(running: Running, batch: str) -> list[dict[str, Any]]:
    return [each for each in told(running) if each["batch"] == batch]


def outcomes(running: Running, batch: str) -> int:
    path = running.settings.index.path
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM arrivals WHERE batch = ?"
        return int(connection.execute(query, (batch,)).fetchone()[0])


def let_it_be_quiet(running: Running, marker: str) -> None:
    """Let more than the quiet time pass: another batch comes, and is told."""
    drop(running.spool / marker / "a", instance(99, 1, 1, len(marker)))
    until(lambda: of(running, marker), what=f"{marker} is told")


def reconfigured(running: Running, config: str) -> None:
    running.file.write_text(config)
    running.settings = parse(config.encode(), running.file)


def test_folders_and_archive_files_are_told_once_each(running: Running, tmp_path: Path) -> None:
    cd = burn(tmp_path / "CD")
    shutil.make_archive(str(tmp_path / "cd"), "zip", cd)
    running.start()
    shutil.move(tmp_path / "cd.zip", running.spool)
    shutil.copytree(cd, running.spool / "CD")
    until(lambda: of(running, "CD") and of(running, "cd.zip"))
    let_it_be_quiet(running, "later")
    (folder,), (archive,) = of(running, "CD"), of(running, "cd.zip")
    assert (folder["arrived"], archive["arrived"]) == (14, 15)
    assert folder["foreign"] == archive["foreign"] == 3
    assert (folder["unpacked"], archive["unpacked"]) == (1, 2)
    assert running.stop()[0] == 0


def test_a_file_still_being_written_holds_its_batch_up(running: Running) -> None:
    whole = encoded(instance(1, 1, 1, 2))
    running.start()
    drop(running.spool / "CD/a", instance(1))
    with (running.spool / "CD/b").open("wb", buffering=0) as slow:
        slow.write(whole[:400])
        until(lambda: outcomes(running, "CD") == 1)
        let_it_be_quiet(running, "one")
        assert of(running, "CD") == []
        slow.write(whole[400:])
    until(lambda: of(running, "CD"))
    (event,) = of(running, "CD")
    assert (event["archived"], "something_waits" in event) == (2, False)
    assert running.stop()[0] == 0


def test_an_association_is_a_batch_that_ends_with_it(tmp_path: Path) -> None:
    config = CONFIG.replace("enabled = false", "enabled = true\nport = 0")
    running = Running(tmp_path, config)
    try:
        running.start()
        (receiver,) = running.status()["receivers"]
        sender = AE(ae_title="CT7")
        sender.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
        association = sender.associate("127.0.0.1", receiver["port"])
        assert association.is_established
        send(association, 1)
        batch = until(lambda: next(iter(batches(running, "CT7")), None))
        let_it_be_quiet(running, "one")
        assert of(running, batch) == []
        send(association, 2)
        association.release()
        until(lambda: of(running, batch))
        let_it_be_quiet(running, "three")
        (event,) = of(running, batch)
        assert (event["source"], event["archived"]) == ("CT7", 2)
        assert running.stop()[0] == 0
    finally:
        if running.process is not None:
            running.process.kill()


def send(association: Any, number: int) -> None:
    ds = instance(1, 1, 1, number)
    encoded(ds)
    assert association.send_c_store(ds).Status == 0x0000


def batches(running: Running, source: str) -> list[str]:
    path = running.settings.index.path
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT batch FROM batches WHERE source = ?", (source,))
        return [row[0] for row in rows]


def test_a_retry_later_tells_the_batch_again(running: Running) -> None:
    running.start()
    drop(running.spool / "CD/nameless", instance(1, StudyInstanceUID=None))
    drop(running.spool / "CD/whole", instance(2))
    until(lambda: of(running, "CD"))
    (arrival_id,) = os.listdir(running.spool / "quarantine")
    aside = running.spool / "quarantine" / arrival_id / "nameless"
    aside.write_bytes(encoded(instance(1)))
    service.perform(running.settings, "retry", ids=[arrival_id])
    until(lambda: len(of(running, "CD")) == 2)
    first, second = of(running, "CD")
    assert (first["quarantined"], first["archived"]) == (1, 1)
    assert (second["quarantined"], second["archived"], second["arrived"]) == (0, 2, 2)
    assert running.stop()[0] == 0


def test_what_a_killed_service_did_not_tell_is_told_after_its_start(running: Running) -> None:
    reconfigured(running, NEVER_QUIET)
    running.start()
    drop(running.spool / "CD/a", instance(1))
    running.wait_for_objects(1)
    until(lambda: outcomes(running, "CD") == 1)
    assert running.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    assert told(running) == []
    reconfigured(running, CONFIG)
    running.start()
    until(lambda: of(running, "CD"))
    assert running.stop()[0] == 0
    running.start()
    let_it_be_quiet(running, "later")
    assert len(of(running, "CD")) == 1
    assert running.stop()[0] == 0


@pytest.fixture
def hooked(running: Running, tmp_path: Path) -> Path:
    """A hook that writes each batch it is told of into a file of its name."""
    out = tmp_path / "told"
    out.mkdir()
    work = "head -c 200000000 /dev/zero | cksum"  # so that it does not end by mere luck
    script = f'{work}; cat > {out}/part; mv {out}/part "{out}/$1"'
    hook = json.dumps(["/bin/sh", "-c", script, "x", "{batch}"])
    reconfigured(running, NEVER_QUIET + f"batch_complete = {hook}\n")
    return out


def test_once_tells_at_its_end_and_sees_the_hooks_off(
    running: Running, hooked: Path, tmp_path: Path
) -> None:
    cd = burn(tmp_path / "CD")
    shutil.copytree(cd, running.spool / "CD")
    service.run_once(running.settings)
    assert [each["batch"] for each in told(running)] == ["CD"]
    assert json.loads((hooked / "CD").read_text())["archived"] == 10
    service.run_once(running.settings)
    assert len(told(running)) == 1
    shutil.copy(images(cd)[0], running.spool)
    drop(running.spool / "CD" / "again", images(cd)[0].read_bytes())
    service.run_once(running.settings)
    assert [each["duplicate"] for each in of(running, "CD")] == [0, 1]


def test_once_tells_what_an_earlier_run_did_not(running: Running, hooked: Path) -> None:
    running.start()
    drop(running.spool / "CD/a", instance(1))
    until(lambda: running.settings.index.path.exists() and outcomes(running, "CD") == 1)
    assert running.stop()[0] == 0
    assert told(running) == []
    service.run_once(running.settings)
    assert len(of(running, "CD")) == 1
    assert (hooked / "CD").exists()


def test_a_batch_of_which_something_cannot_be_taken_is_not_told_by_once(running: Running) -> None:
    reconfigured(running, NEVER_QUIET)
    drop(running.spool / "CD/a", instance(1))
    drop(running.spool / "CD/b.part", instance(1, 1, 1, 2))
    service.run_once(running.settings)
    assert told(running) == []
    (running.spool / "CD/b.part").rename(running.spool / "CD/b")
    service.run_once(running.settings)
    assert [each["archived"] for each in told(running)] == [2]
