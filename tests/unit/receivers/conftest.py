from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, _config
from pynetdicom.association import Association

from ingester.receivers.admission import Census
from ingester.receivers.scp import Server
from ingester.receivers.settings import ScpSettings
from ingester.receivers.tally import Reporter

_config.LOG_HANDLER_LEVEL = "none"

SETTINGS = ScpSettings(
    port=0,
    acse_timeout=2.0,
    dimse_timeout=2.0,
    network_timeout=2.0,
    object_bytes=16 * 2**20,
    folder_mode=0o770,
)


class Running:
    """An SCP that serves in a thread of this process."""

    def __init__(self, spool: Path, settings: ScpSettings) -> None:
        self.spool = spool
        for name in (".receiving", ".received"):
            (spool / name).mkdir(parents=True, exist_ok=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.census = Census(Census.make(1, 64), 0, 64)
        self._reader, writer = os.pipe2(os.O_NONBLOCK)
        self._writer = writer
        self.server = Server(settings, self.listener, spool, self.census, Reporter(writer))
        self._thread = threading.Thread(target=self.server.serve)
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.server.stop()
            self._thread.join()
        for thread in threading.enumerate():
            if thread.name == "association":
                thread.join(10)
        self.server.close()
        self.census.close()
        os.close(self._reader)
        os.close(self._writer)

    def received(self, source: str = "*") -> list[Path]:
        return sorted((self.spool / ".received").glob(f"{source}/*.dcm"))

    def leftovers(self) -> list[str]:
        return os.listdir(self.spool / ".receiving")

    def wait_until_empty(self) -> None:
        """Wait until no association is left."""
        for thread in threading.enumerate():
            if thread.name == "association":
                thread.join(10)
                assert not thread.is_alive()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(**changes: Any) -> Running:
        running.append(Running(tmp_path / "spool", replace(SETTINGS, **changes)))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


@pytest.fixture
def scp(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def associate() -> Iterator[Callable[..., Association]]:
    """Return an association of pynetdicom's, released at the end."""
    made: list[Association] = []

    def begin(
        port: int,
        contexts: list[tuple[str, str]],
        *,
        calling: str = "CT1",
        called: str = "INGESTER",
        **how: Any,
    ) -> Association:
        ae = AE(calling)
        ae.network_timeout = ae.acse_timeout = ae.dimse_timeout = 10
        for abstract, transfer in contexts:
            ae.add_requested_context(abstract, transfer)
        made.append(ae.associate("127.0.0.1", port, ae_title=called, **how))
        return made[-1]

    yield begin
    for each in made:
        if each.is_established:
            each.release()
        if each.ident is not None:
            each.join(10)
