from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ingester.receivers.dcmtk import FORBIDDEN, DcmtkReceiver, DcmtkSettings, command


def test_files_get_unique_names_and_no_command_runs(tmp_path: Path) -> None:
    arguments = command(DcmtkSettings(port=104, ae_title="US"), tmp_path)
    assert arguments[0] == "storescp"
    assert arguments[-6:] == ["+uf", "-fe", ".dcm", "-od", str(tmp_path), "104"]
    assert "--fork" in arguments
    assert arguments[arguments.index("-aet") + 1] == "US"
    assert not set(FORBIDDEN) & set(arguments)


@pytest.mark.parametrize("argument", FORBIDDEN)
def test_arguments_that_break_the_promise_are_refused(tmp_path: Path, argument: str) -> None:
    settings = DcmtkSettings(arguments=("-v", argument))
    with pytest.raises(ValueError, match="not passed on"):
        command(settings, tmp_path)
    receiver = DcmtkReceiver(settings, tmp_path, lambda: None)
    receiver.start()
    assert not receiver.state.is_up
    assert argument in receiver.state.message


def test_tls(tmp_path: Path) -> None:
    settings = DcmtkSettings(certificate="c.pem", key="k.pem")
    line = " ".join(command(settings, tmp_path))
    assert "+tls k.pem c.pem -ic" in line
    line = " ".join(command(replace(settings, client_ca="ca.pem"), tmp_path))
    assert "+tls k.pem c.pem +cf ca.pem" in line


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    receiver = DcmtkReceiver(DcmtkSettings(program="no-such-storescp"), tmp_path, lambda: None)
    receiver.start()
    assert not receiver.state.is_up
    assert "not installed" in receiver.state.message
    assert 0 < receiver.next_poll_in() <= 1
    receiver.stop(1.0)


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        settings = DcmtkSettings(port=other.getsockname()[1], program="true")
        receiver = DcmtkReceiver(settings, tmp_path, lambda: None)
        receiver.start()
    assert "taken" in receiver.state.message


def test_it_is_started_again_and_stopped_with_its_children(tmp_path: Path) -> None:
    """Any program that ignores its arguments and stays will do for the supervisor."""
    program = tmp_path / "stays"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    ahead = [0.0]
    receiver = DcmtkReceiver(
        DcmtkSettings(port=0, program=str(program)),
        tmp_path,
        lambda: None,
        lambda: time.monotonic() + ahead[0],
    )
    receiver.start()
    assert receiver.state.is_up
    assert receiver.process_id is not None
    os.kill(receiver.process_id, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while receiver.state.is_up:
        assert time.monotonic() < deadline
        receiver.poll()
    assert "ended with code" in receiver.state.message
    ahead[0] = 5.0
    receiver.poll()
    assert receiver.state.is_up
    assert receiver.state.restarts == 1
    receiver.stop(5.0)
    assert receiver.process_id is None
