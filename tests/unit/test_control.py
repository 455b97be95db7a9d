from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingester.control import SOCKET_NAME, Control, Refused, ask
from ingester.wake import Wake


@contextmanager
def a_service(archive: Path, mode: int = 0o600) -> Iterator[None]:
    """Answer in a thread what the service's loop would answer."""
    with Wake() as wake:
        control = Control(archive, on_request=wake.set, mode=mode)
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                wake.wait(60)
                for request in control.requests():
                    if request.command == "echo":
                        request.answer(request.arguments)
                    else:
                        request.refuse(f"{request.command} is not a command")

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            wake.set()
            thread.join()
            control.close()


def test_no_service_is_none(tmp_path: Path) -> None:
    assert ask(tmp_path, "echo") is None
    assert ask(tmp_path / "nowhere", "echo") is None


def test_a_question_is_answered(tmp_path: Path) -> None:
    with a_service(tmp_path):
        assert ask(tmp_path, "echo", ids=["a", "b"], all=False) == {"ids": ["a", "b"], "all": False}
    assert not (tmp_path / SOCKET_NAME).exists()
    assert ask(tmp_path, "echo") is None


def test_a_no_is_a_sentence(tmp_path: Path) -> None:
    with a_service(tmp_path), pytest.raises(Refused, match="dance is not a command"):
        ask(tmp_path, "dance")


def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    archive = tmp_path / ("long" * 30) / ("longer" * 30)
    archive.mkdir(parents=True)
    with a_service(archive):
        assert ask(archive, "echo", n=1) == {"n": 1}


def test_a_socket_left_by_a_crash_is_no_service_and_is_replaced(tmp_path: Path) -> None:
    short = Path("/proc/self/cwd")
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        left.bind(str(short / SOCKET_NAME))
    left.close()
    assert (tmp_path / SOCKET_NAME).is_socket()
    assert ask(tmp_path, "echo") is None
    with a_service(tmp_path):
        assert ask(tmp_path, "echo", n=2) == {"n": 2}


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_only_owner_and_group_may_connect(tmp_path: Path, mode: int) -> None:
    with a_service(tmp_path, mode):
        found = stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode)
    assert found & ~mode == 0


@pytest.mark.parametrize("line", [b"hello\n", b"[]\n", b'{"command": 1, "arguments": {}}\n', b"\n"])
def test_nonsense_is_refused_and_the_next_is_served(tmp_path: Path, line: bytes) -> None:
    with a_service(tmp_path):
        with (
            pytest.MonkeyPatch.context() as patch,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
        ):
            patch.chdir(tmp_path)
            client.connect(SOCKET_NAME)
            client.settimeout(30)
            client.sendall(line)
            assert b"not a question" in client.recv(4096)
        assert ask(tmp_path, "echo") == {}


def test_a_silent_client_holds_nobody_up(tmp_path: Path) -> None:
    with (
        a_service(tmp_path),
        pytest.MonkeyPatch.context() as patch,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent,
    ):
        patch.chdir(tmp_path)
        silent.connect(SOCKET_NAME)
        assert ask(tmp_path, "echo", n=3) == {"n": 3}


def test_questions_that_wait_at_the_end_are_refused(tmp_path: Path) -> None:
    asked = threading.Event()
    control = Control(tmp_path, on_request=asked.set)
    said: list[str] = []

    def client() -> None:
        with pytest.raises(Refused) as refused:
            ask(tmp_path, "echo")
        said.append(str(refused.value))

    thread = threading.Thread(target=client)
    thread.start()
    assert asked.wait(60)
    control.close()
    thread.join()
    assert said == ["the service is stopping"]
