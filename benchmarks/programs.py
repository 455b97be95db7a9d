"""Starting programs, waiting for them, and ending every one of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_bell = threading.Event()


class Failed(Exception):
    """A program did not do what a measurement needs."""


def until(found: Callable[[], T | None], what: str, *, within: float = 600.0) -> T:
    """Return the first true answer of *found*, asked fifty times a second."""
    deadline = time.monotonic() + within
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {within:.0f} s: {what}")
        _bell.wait(0.02)
    return answer


@contextmanager
def running(
    arguments: Sequence[str], log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of the block, its output in *log*; then end it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program politely, and where that does not help, for good."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_together(
    commands: Sequence[Sequence[str]], log: Path, environment: Mapping[str, str]
) -> float:
    """Run several programs at once to their ends; returns the seconds it took."""
    with log.open("ab") as output:
        began = time.monotonic()
        processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
            )
            for command in commands
        ]
    try:
        codes = [process.wait(timeout=1800) for process in processes]
        seconds = time.monotonic() - began
    finally:
        for process in processes:
            end(process)
    if any(codes):
        raise Failed(f"{commands[0][0]} ended with {codes}: {log.read_text()[-2000:]}")
    return seconds


def free_port() -> int:
    """Return a port that was free a moment ago, for programs that cannot choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find(program: str) -> str | None:
    """Return where a program is, daemons' folders included; None where it is not.

    pynetdicom brings scripts of the same names as DCMTK's programs, which are not meant.
    """
    ours = Path(sysconfig.get_path("scripts"))
    folders = [each for each in os.environ.get("PATH", "").split(":") if Path(each) != ours]
    return shutil.which(program, path=":".join([*folders, "/usr/sbin", "/usr/local/sbin"]))
