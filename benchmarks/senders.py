"""C-STORE senders: DCMTK's `storescu` or pynetdicom, several at once."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.objects import Folder
from benchmarks.programs import run_together


@dataclass(frozen=True, slots=True)
class Senders:
    """So many senders of one kind, each with an association and a share of the files.

    Parameters
    ----------
    program : "storescu", "storescu-nodelay" (with DCMTK's `TCP_NODELAY=1`: a stock one
        leaves Nagle's algorithm on) or "pynetdicom"
    count : senders at once
    """

    program: str
    count: int

    @property
    def words(self) -> str:
        """Return what the senders are, for a table."""
        name = self.program.replace("-nodelay", " TCP_NODELAY=1")
        return f"{self.count} × {name}"

    def send(self, folder: Folder, port: int, called_ae_title: str, scratch: Path) -> float:
        """Send all of *folder*; returns the seconds until the last acknowledgement."""
        shares = _shares(folder, self.count, scratch / "shares")
        try:
            commands = [
                self._command(number, port, called_ae_title, share)
                for number, share in enumerate(shares)
            ]
            is_stock = self.program != "storescu-nodelay"
            environment = {} if is_stock else {"TCP_NODELAY": "1"}
            return run_together(commands, scratch / "senders.log", environment)
        finally:
            shutil.rmtree(scratch / "shares")

    def _command(self, number: int, port: int, called: str, share: Path) -> list[str]:
        title = f"SENDER{number}"
        if self.program == "pynetdicom":
            where = ["127.0.0.1", str(port), called, title, str(share)]
            return [sys.executable, "-m", "benchmarks.send", *where]
        titles = ["-aet", title, "-aec", called]
        return ["storescu", *titles, "+sd", "+r", "127.0.0.1", str(port), str(share)]


def _shares(folder: Folder, count: int, above: Path) -> list[Path]:
    """Deal the files out as links, so that each sender has a folder of its own."""
    shares = [above / str(number) for number in range(count)]
    for share in shares:
        share.mkdir(parents=True)
    files = sorted(path for path in folder.path.rglob("*") if path.is_file())
    for number, path in enumerate(files):
        os.link(path, shares[number % count] / path.name)
    return shares
