from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingester.config import Settings, parse
from ingester.control import Document, ask
from tests.waiting import until

CONFIG = """
[receiver.scp]
enabled = false
[workers]
prepare = 1
derive = 1
[spool]
rescan = "60s"
[hooks]
study_quiet = "200ms"
"""


class Running:
    """`ingester run` in a process of its own, on a configuration of its own."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.file = folder / "ingest.toml"
        self.file.write_text(config)
        self.settings: Settings = parse(config.encode(), self.file)
        for path in (self.settings.spool.path, self.settings.archive.path):
            path.mkdir(exist_ok=True)
        self.spool = self.settings.spool.path
        self.archive = self.settings.archive.path
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start it and return when it says that it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.bind("")  # an abstract name from the kernel
            supervisor.settimeout(60)
            name = supervisor.getsockname().decode().replace("\0", "@", 1)
            self.process = self.spawn("run", *arguments, NOTIFY_SOCKET=name)
            while supervisor.recv(100) != b"READY=1":
                pass  # WATCHDOG=1: an index is being made again

    def spawn(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command on this configuration."""
        return subprocess.Popen(
            [sys.executable, "-m", "ingester", "--config", str(self.file), *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def status(self) -> Document:
        """Ask the running service."""
        told = ask(self.archive, "status", timeout=60)
        assert told is not None
        return told

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; returns exit code and standard error."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Wait for its end; returns exit code and standard error."""
        assert self.process is not None
        _, said = self.process.communicate(timeout=60)
        code, self.process = self.process.returncode, None
        return code, said.decode()

    def objects(self) -> list[Path]:
        """Return the archived objects."""
        return sorted(self.archive.glob("*/*/*/*/*/*.dcm"))

    def wait_for_objects(self, count: int) -> None:
        """Wait until so many objects lie in the archive."""
        until(lambda: len(self.objects()) >= count, what=f"{count} objects")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    service = Running(tmp_path, CONFIG)
    try:
        yield service
    finally:
        if service.process is not None:
            service.process.kill()
            service.process.communicate()
