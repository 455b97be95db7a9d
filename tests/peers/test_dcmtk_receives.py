"""DCMTK's receiver writes into a drop folder: a receiver is whoever can write a file."""

from __future__ import annotations

from pathlib import Path

from tests.factory import drop, instance
from tests.peers.conftest import data_set, free_port, is_listening, run, running
from tests.stories.conftest import Command
from tests.waiting import until


def test_storescp_beside_the_running_service(command: Command, tmp_path: Path) -> None:
    command.configure(sources__CT1={})
    sent = tmp_path / "sent"
    for number in range(1, 21):
        drop(sent / f"IM{number}", instance(1, 1, 1, number, rows=128, columns=128))
    with command.service() as service:
        port = free_port()
        folder = command.spool / "CT1"
        arguments = ("+uf", "-fe", ".dcm", "--fork", "-od", folder, str(port))
        with running(tmp_path / "storescp.log", "storescp", *arguments):
            until(lambda: is_listening(port), what="storescp listens")
            run("storescu", "+sd", "127.0.0.1", str(port), sent)
            service.await_outcomes({"archived": 20})
        assert command.rows("SELECT DISTINCT source FROM instances") == ["CT1"]
        assert folder.is_dir(), "a declared source's folder stays"
    assert command.left_in_spool() == []
    ours = {data_set(path.read_bytes()) for path in command.archive.rglob("*.dcm")}
    assert ours == {data_set(path.read_bytes()) for path in sent.iterdir()}
    command.verify()
