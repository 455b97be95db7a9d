"""The real command on a terminal of a given width: what a person sees."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """The lines on the screen, and the exit code."""

    lines: list[str]
    exit_code: int

    @property
    def widest(self) -> int:
        return max(map(len, self.lines), default=0)


def on_a_terminal(arguments: Sequence[str], *, columns: int, rows: int = 50) -> Seen:
    """Run a command whose standard output and error are a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    process = subprocess.Popen(
        list(arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the last one has closed the terminal
            break
        if not part:
            break
        shown += part
    os.close(ours)
    text = shown.decode().replace("\r\n", "\n")
    return Seen(text.splitlines(), process.wait(timeout=60))
