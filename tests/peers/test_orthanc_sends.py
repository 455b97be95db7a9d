"""Orthanc as a neighbour: it sends to our SCP, and it reads what we archived."""

from __future__ import annotations

import json

from tests.factory import encoded, instance
from tests.peers.conftest import Orthanc, data_set, scp_port
from tests.stories.conftest import Command


def test_orthanc_sends_a_study(command: Command, orthanc: Orthanc) -> None:
    sent = {ds.SOPInstanceUID: encoded(ds) for n in range(1, 11) if (ds := instance(1, 1, 1, n))}
    ids = [orthanc.post("/instances", data)["ID"] for data in sent.values()]
    with command.service() as service:
        _introduce(orthanc, scp_port(service))
        orthanc.post("/modalities/ingester/echo", {})
        done = orthanc.post("/modalities/ingester/store", {"Resources": ids, "Synchronous": True})
        assert done["FailedInstancesCount"] == 0
        service.await_outcomes({"archived": 10})
        assert command.rows("SELECT DISTINCT source FROM instances") == ["ORTHANC"]
    paths = dict(command.rows("SELECT sop_instance_uid, path FROM instances"))
    for uid, data in sent.items():
        assert data_set((command.archive / paths[uid]).read_bytes()) == data_set(data)
    command.verify()


def test_orthanc_reads_what_we_archived(command: Command, orthanc: Orthanc) -> None:
    (command.spool / "IM").write_bytes(encoded(instance(1)))
    assert command.once() == {"arrived": 1, "archived": 1, "thumbnails": 1}
    (path,) = command.rows("SELECT path FROM instances")
    told = orthanc.post("/instances", (command.archive / path).read_bytes())
    tags = json.loads(orthanc.get(f"/instances/{told['ID']}/simplified-tags"))
    assert tags["PatientID"] == instance(1).PatientID
    command.verify()


def _introduce(orthanc: Orthanc, port: int) -> None:
    modality = {"AET": "INGESTER", "Host": "127.0.0.1", "Port": port}
    status, body = orthanc.ask("PUT", "/modalities/ingester", json.dumps(modality).encode())
    assert status == 200, body
