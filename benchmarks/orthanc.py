"""Orthanc's side: a fresh server for each measurement, on loopback, without accounts."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.objects import Folder
from benchmarks.programs import Failed, find, free_port, running, until
from benchmarks.senders import Senders


@dataclass(frozen=True, slots=True)
class _Server:
    http_port: int
    dicom_port: int


def program() -> str | None:
    """Return where Orthanc is, None where it is not installed."""
    return find("Orthanc")


def version() -> str | None:
    """Return Orthanc's version, None where it is not installed."""
    where = program()
    if where is None:
        return None
    told = subprocess.run([where, "--version"], capture_output=True, text=True, check=False)
    return told.stdout.partition("\n")[0].rpartition(" ")[2] or None


def upload(folder: Folder, clients: int, scratch: Path) -> float:
    """Upload a folder over REST, one connection a client; returns seconds."""
    files = sorted(path for path in folder.path.rglob("*") if path.is_file())
    with _server(scratch) as server, ThreadPoolExecutor(clients) as pool:
        os.sync()
        began = time.monotonic()
        shares = [files[number::clients] for number in range(clients)]
        for done in [pool.submit(_post, server.http_port, share) for share in shares]:
            done.result()
        seconds = time.monotonic() - began
        _see(server, folder.objects)
    return seconds


def store(folder: Folder, senders: Senders, scratch: Path) -> float:
    """Send a folder by C-STORE; returns seconds (its answer comes when it is indexed)."""
    with _server(scratch) as server:
        seconds = senders.send(folder, server.dicom_port, "ORTHANC", scratch)
        _see(server, folder.objects)
    return seconds


@contextmanager
def _server(scratch: Path) -> Iterator[_Server]:
    server = _Server(free_port(), free_port())
    root = scratch / "orthanc"
    root.mkdir()
    config = {
        "Name": "benchmark",
        "StorageDirectory": str(root / "storage"),
        "IndexDirectory": str(root / "index"),
        "HttpPort": server.http_port,
        "DicomPort": server.dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "KeepAlive": True,
        "Plugins": [],
    }
    (root / "orthanc.json").write_text(json.dumps(config))
    with running([program() or "Orthanc", str(root / "orthanc.json")], root / "log") as process:

        def is_ready() -> bool:
            if process.poll() is not None:
                raise Failed(f"Orthanc does not start: {(root / 'log').read_text()[-2000:]}")
            return _count(server) is not None

        until(is_ready, "Orthanc answers", within=60)
        yield server


def _post(port: int, files: list[Path]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for path in files:
        connection.request("POST", "/instances", path.read_bytes())
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Failed(f"Orthanc answers {answer.status}: {body[:200]!r}")
    connection.close()


def _count(server: _Server) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    try:
        connection.request("GET", "/statistics")
        answer = connection.getresponse()
        return int(json.loads(answer.read())["CountInstances"]) if answer.status == 200 else None
    except OSError:  # it does not listen yet
        return None
    finally:
        connection.close()


def _see(server: _Server, expected: int) -> None:
    count = _count(server)
    if count != expected:
        raise Failed(f"Orthanc has {count} of {expected} objects")
