"""DCMTK's senders: what they sent is what lies in the archive, byte for byte."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from tests.factory import drop, instance
from tests.peers.conftest import data_set, run, scp_port
from tests.stories.conftest import Command

#: What makes it, how, what storescu then proposes, and the transfer syntax.
ENCODINGS = [
    ("dcmconv", "+ti", "-xi", "1.2.840.10008.1.2"),
    ("dcmconv", "+te", "-xe", "1.2.840.10008.1.2.1"),
    ("dcmconv", "+tb", "-xb", "1.2.840.10008.1.2.2"),
    ("dcmcrle", "+un", "-xr", "1.2.840.10008.1.2.5"),
    ("dcmcjpeg", "+e1", "-xs", "1.2.840.10008.1.2.4.70"),
    ("dcmcjpls", "+el", "-xt", "1.2.840.10008.1.2.4.80"),
]


def test_echoscu_is_answered(command: Command) -> None:
    with command.service() as service:
        run("echoscu", "-aec", "INGESTER", "127.0.0.1", str(scp_port(service)))


def test_a_folder_sent_by_storescu_is_archived_whole(command: Command, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    for number in range(1, 31):
        drop(sent / f"S{number % 3}" / f"IM{number}", instance(1, 1, number % 3, number))
    with command.service() as service:
        port = str(scp_port(service))
        run("storescu", "-aet", "CT1", "-aec", "INGESTER", "+sd", "+r", "127.0.0.1", port, sent)
        service.await_outcomes({"archived": 30})
        assert command.rows("SELECT DISTINCT source FROM instances") == ["CT1"]
        batches = command.rows("SELECT arrived, archived FROM batches")
        assert batches == [(30, 30)], "one association is one batch"
        _assert_same_data_sets(command, sent)
        run("storescu", "-aet", "CT1", "-aec", "INGESTER", "+sd", "+r", "127.0.0.1", port, sent)
        service.await_outcomes({"archived": 30, "duplicate": 30})
    assert command.left_in_spool() == []
    command.verify()


def test_every_encoding_is_kept(command: Command, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    with command.service() as service:
        port = str(scp_port(service))
        for number, (maker, option, proposal, _) in enumerate(ENCODINGS, start=1):
            made = drop(tmp_path / "made", instance(number, rows=64, columns=64))
            (sent / str(number)).mkdir(parents=True)
            run(maker, option, made, sent / f"{number}/IM")
            where = ("127.0.0.1", port, sent / str(number))
            run("storescu", proposal, "-aec", "INGESTER", "+sd", *where)
        service.await_outcomes({"archived": len(ENCODINGS)})
    _assert_same_data_sets(command, sent)
    archived = command.rows("SELECT transfer_syntax_uid FROM instances ORDER BY study_instance_uid")
    assert archived == [syntax for _, _, _, syntax in ENCODINGS]
    command.verify()


def _assert_same_data_sets(command: Command, sent: Path) -> None:
    """Assert that each file sent lies in the archive with the same data set."""
    paths = dict(command.rows("SELECT sop_instance_uid, path FROM instances"))
    files = [path for path in sent.rglob("*") if path.is_file()]
    assert len(files) == len(paths)
    for path in files:
        ours = (command.archive / paths[dcmread(path).SOPInstanceUID]).read_bytes()
        assert data_set(ours) == data_set(path.read_bytes())
