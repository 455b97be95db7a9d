"""The doctor on a healthy site, beside the service, and where something is broken."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

from tests.factory import drop, instance
from tests.stories.conftest import Command


def names(told: dict[str, Any], state: str) -> set[str]:
    return {check["name"] for check in told["checks"] if check["state"] == state}


def tree(command: Command) -> set[tuple[str, int]]:
    """Return every file of the site with its size; SQLite's own side files apart."""
    return {
        (str(path), path.lstat().st_size)
        for path in command.root.rglob("*")
        if not path.name.startswith("index.db-")
    }


def test_a_healthy_site_has_no_problem_and_stays_as_it_is(command: Command) -> None:
    command.configure(sources__CT1={})
    drop(command.spool / "a", instance(1))
    command.once()
    before = tree(command)
    told = command.json("doctor")
    assert (told["problems"], names(told, "problem")) == (0, set())
    assert {"codecs", "ffmpeg", "trial-drop", "intake", "permissions"} <= names(told, "ok")
    assert told["notes"] == sum(check["state"] == "note" for check in told["checks"])
    assert tree(command) == before
    assert "fix:" in command.run("doctor")
    command.verify()


def test_a_site_that_never_ran(command: Command) -> None:
    before = tree(command)
    assert command.json("doctor")["problems"] == 0
    assert tree(command) == before


def test_beside_the_running_service_nothing_arrives(command: Command) -> None:
    command.configure(sources__CT1={})
    with command.service() as service:
        drop(command.spool / "CT1" / "a", instance(1))
        service.await_outcomes({"archived": 1})
        told = command.json("doctor")
        assert told["problems"] == 0
        (running,) = [check for check in told["checks"] if check["name"] == "service"]
        assert f"process {service.process.pid}" in running["message"]
        assert any("the service listens" in check["message"] for check in told["checks"])
        drop(command.spool / "CT1" / "b", instance(2))
        service.await_outcomes({"archived": 2})
        assert command.left_in_spool() == []
    command.verify()


def test_what_is_broken_is_named(command: Command, tmp_path: Path) -> None:
    command.once()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command.configure(
            receiver__scp={"port": taken.getsockname()[1]},
            hooks={"quarantined": [str(tmp_path / "gone")]},
            archive={"min_free": "90000 TiB"},
            spool={"group": "no-such-group-here"},
        )
        (command.archive / ".site").unlink()
        os.chmod(command.spool, 0o2777)
        told = command.json("doctor", exit_code=1)
    assert names(told, "problem") == {
        "folders", "free-space", "group", "hooks", "ports", "site",
    }  # fmt: skip
    assert all(check["fix"] for check in told["checks"] if check["state"] == "problem")


def test_what_cannot_be_looked_at_does_not_end_the_rest(command: Command) -> None:
    command.once()
    (command.archive / ".site").unlink()
    (command.archive / ".site").mkdir()
    told = command.json("doctor")
    (note,) = [check for check in told["checks"] if check["name"] == "site"]
    assert "not all could be looked at" in note["message"]
    assert {"trial-drop", "ports", "leftovers"} <= names(told, "ok")


def test_an_archive_that_is_gone(command: Command) -> None:
    command.once()
    shutil.rmtree(command.archive)
    told = command.json("doctor", exit_code=1)
    assert {"index", "folders"} <= names(told, "problem")


def test_without_a_configuration_the_machine_is_looked_at(command: Command) -> None:
    (command.root / "ingest.toml").write_text("[spool]\npaht = 1\n")
    told = command.json("doctor", exit_code=1)
    assert names(told, "problem") == {"configuration"}
    assert {"python", "codecs", "ffmpeg"} <= names(told, "ok")
