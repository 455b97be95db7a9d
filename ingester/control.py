"""What commands ask of the running service, over a Unix socket in the archive.

One writer on one SQLite file is a rule here, so a command that changes something
asks the service where one runs.  The socket lies at `archive/.control`; its path may
exceed the 107 bytes a socket address holds, so both sides go through the folder's
descriptor (`/proc/self/fd/N/.control`).  A question is one line of JSON, an answer
one line of JSON, a connection one question.

    client   ask(archive, "status")                     None: no service runs
    thread   accepts, reads the line, queues a Request, rings the loop, waits
    loop     for request in control.requests(): request.answer({...})
    thread   writes the answer, closes

Who may connect is decided by the socket's mode: owner, and group where there is one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingester import durable
from ingester.errors import IngesterError
from ingester.model import type_json

log = logging.getLogger(__name__)

SOCKET_NAME = ".control"
_LONGEST_LINE = 64 * 2**20
_MOST_CONNECTIONS = 32
_READ_SECONDS = 10.0
_ANSWER_SECONDS = 3600.0

Document = dict[str, type_json]


class Refused(IngesterError):
    """The service understood the question and says no, in a sentence."""


@dataclass(slots=True)
class Request:
    """A question from a command, to be answered on the main loop, exactly once."""

    command: str
    arguments: Document
    _answer: queue.SimpleQueue[Document] = field(default_factory=queue.SimpleQueue)

    def answer(self, document: Document) -> None:
        """Give the answer."""
        self._answer.put({"answer": document})

    def refuse(self, sentence: str) -> None:
        """Say no, and why."""
        self._answer.put({"error": sentence})

    def wait(self) -> Document:
        """Return what the loop said; for the connection's thread."""
        try:
            return self._answer.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            return {"error": "the service did not answer within an hour"}


@contextmanager
def _address(archive: Path) -> Iterator[str]:
    """Yield an address of the socket that is short whatever the archive's path is."""
    folder = os.open(archive, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)


class Control:
    """The listening side, owned by the service that holds the archive's lock.

    A socket left by a crash is replaced: only the holder of the lock comes here.
    """

    def __init__(self, archive: Path, *, on_request: Callable[[], None], mode: int = 0o600) -> None:
        self._path = archive / SOCKET_NAME
        self._on_request = on_request
        self._waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._is_closing = False
        durable.unlink(self._path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel takes the name's mode from the socket's own, under the umask:
        # set before `bind`, there is no moment at which everybody may connect.
        os.fchmod(self._listener.fileno(), mode)
        with _address(archive) as address:
            self._listener.bind(address)
        self._listener.listen(_MOST_CONNECTIONS)
        self._thread = threading.Thread(target=self._listen, name="control", daemon=True)
        self._thread.start()

    def requests(self) -> Iterator[Request]:
        """Yield the questions that wait; each must be answered or refused."""
        while True:
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return

    def close(self) -> None:
        """Stop listening; questions that still wait are refused."""
        self._is_closing = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the thread's `accept`
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        self._thread.join()
        self._listener.close()
        durable.unlink(self._path)
        for request in self.requests():
            request.refuse("the service is stopping")

    def _listen(self) -> None:
        while not self._is_closing:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._is_closing:
                    return
                log.warning("control: a connection could not be accepted: %s", error)
                if error.errno not in (errno.ECONNABORTED, errno.EINTR):
                    # Out of descriptors or memory: give them time to come back.
                    threading.Event().wait(1.0)
                continue
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="control-answer", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_READ_SECONDS)
                answer = self._ask_loop(_read_line(connection))
                connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            log.debug("control: a client went away: %s", error)
        finally:
            self._slots.release()

    def _ask_loop(self, line: bytes) -> Document:
        try:
            question = json.loads(line)
            command, arguments = question["command"], question["arguments"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"error": "that is not a question this service understands"}
        if not isinstance(command, str) or not isinstance(arguments, dict):
            return {"error": "that is not a question this service understands"}
        request = Request(command, arguments)
        if self._is_closing:
            return {"error": "the service is stopping"}
        self._waiting.put(request)
        self._on_request()
        return request.wait()


def ask(
    archive: Path, command: str, *, timeout: float | None = None, **arguments: type_json
) -> Document | None:
    """Ask the service that holds *archive*; None where none runs.

    Raises
    ------
    Refused
        The service says no, or went away before it answered; the sentence says which.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(timeout)
        try:
            with _address(archive) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except PermissionError:
            raise Refused(
                "a service runs on this archive, but this user may not speak to it: "
                "use the service's own user or group"
            ) from None
        try:
            connection.sendall(
                json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"
            )
            line = _read_line(connection)
            answer = json.loads(line)
        except TimeoutError:
            raise Refused(f"the service did not answer within {timeout:g} s") from None
        except (OSError, ValueError):
            raise Refused("the service went away before it answered; ask again") from None
    if "error" in answer:
        raise Refused(str(answer["error"]))
    document: Document = answer["answer"]
    return document


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        block = connection.recv(65536)
        if not block:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        line += block
        if len(line) > _LONGEST_LINE:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    return bytes(line)
