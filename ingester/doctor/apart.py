"""Doing something in a process of its own: it may crash, hang, or be somebody else.

A broken decoder takes its process with it, and what the service's user may do is best
tried as that user.  The answer comes back as JSON through a pipe.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from ingester.model import type_json


@dataclass(frozen=True, slots=True)
class Person:
    """A user of this machine, with the groups that count."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @property
    def is_me(self) -> bool:
        """Return whether this process runs as them already."""
        return self.uid == os.geteuid()


class DiedError(Exception):
    """The process ended without an answer; the sentence says how."""


def apart(
    work: Callable[[], type_json], *, person: Person | None = None, seconds: float = 60.0
) -> type_json:
    """Do *work* in a forked process, as *person*; returns its answer, made of JSON's types.

    Call it while there is one thread.

    Raises
    ------
    DiedError : it crashed, hung, or could not become that person
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _live(work, person, writer)
    os.close(writer)
    try:
        answer = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if answer is None:
        raise DiedError(f"it did not answer within {seconds:g} s")
    if code < 0:
        raise DiedError(f"it was ended by {signal.Signals(-code).name}")
    try:
        told = json.loads(answer)
    except ValueError:
        raise DiedError(f"it ended with exit code {code}") from None
    if "error" in told:
        raise DiedError(str(told["error"]))
    return told["answer"]


def _live(work: Callable[[], type_json], person: Person | None, writer: int) -> None:
    """Be the child: never returns."""
    code = 1
    try:
        faulthandler.disable()  # the crash is told in a sentence
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)  # decoders print
        if person is not None and not person.is_me:
            os.setgroups(person.groups)
            os.setresgid(person.gid, person.gid, person.gid)
            os.setresuid(person.uid, person.uid, person.uid)
        told = {"answer": work()}
        code = 0
    except BaseException as error:  # noqa: BLE001 - told to the parent, which raises it
        told = {"error": f"{type(error).__name__}: {error}"}
    try:
        os.write(writer, json.dumps(told).encode())
    finally:
        os._exit(code)


def _read(reader: int, deadline: float) -> bytes | None:
    """Read to the end; None where there is none in time."""
    answer = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        block = os.read(reader, 65536)
        if not block:
            return answer
        answer += block
