"""Other people's programs: a missing one is a failure here, never a skip."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stories.conftest import Command, Service
from tests.waiting import until


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "site")


def program(name: str) -> str:
    """Return where a program is; fails where it is not installed.

    pynetdicom brings scripts of the same names, which are not meant.
    """
    ours = Path(sysconfig.get_path("scripts"))
    folders = [each for each in os.environ.get("PATH", "").split(":") if Path(each) != ours]
    found = shutil.which(name, path=":".join([*folders, "/usr/sbin"]))
    assert found, (
        f"{name} is not installed (Debian packages: dcmtk, ffmpeg, orthanc, sqlite3, strace)"
    )
    return found


def run(name: str, *arguments: str | Path) -> str:
    """Run a program to its successful end; returns all that it said."""
    done = subprocess.run(
        [program(name), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stdout}"
    return done.stdout


@contextmanager
def running(log: Path, name: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [program(name), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
        assert process.poll() is None, f"{name} ended by itself: {log.read_text()}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def scp_port(service: Service) -> int:
    """Return the port that the service's SCP got from the system."""
    status = until(service.status)
    (receiver,) = status["receivers"]
    return int(receiver["port"])


def free_port() -> int:
    """Return a port that was free a moment ago, for programs that cannot choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def data_set(part10: bytes) -> bytes:
    """Return the bytes after the File Meta Information (PS3.10 section 7.1)."""
    assert part10[128:132] == b"DICM"
    assert part10[132:140] == b"\x02\0\0\0UL\x04\0"
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


@dataclass
class Orthanc:
    """A running Orthanc, asked over REST."""

    http_port: int
    dicom_port: int

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> bytes:
        status, body = self.ask("GET", path)
        assert status == 200, (status, path)
        return body

    def post(self, path: str, document: bytes | dict[str, Any]) -> Any:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        status, answer = self.ask("POST", path, body)
        assert status == 200, (status, path, answer)
        return json.loads(answer)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Run an Orthanc of its own, on loopback, without accounts."""
    server = Orthanc(free_port(), free_port())
    root = tmp_path / "orthanc"
    root.mkdir()
    config = {
        "StorageDirectory": str(root / "storage"),
        "IndexDirectory": str(root / "index"),
        "HttpPort": server.http_port,
        "DicomPort": server.dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomModalitiesInDatabase": True,
        "Plugins": [],
    }
    (root / "orthanc.json").write_text(json.dumps(config))
    log = root / "log"
    with running(log, "Orthanc", root / "orthanc.json") as process:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            return is_listening(server.http_port) and is_listening(server.dicom_port)

        until(answers, what="Orthanc answers")
        yield server
