"""The ingester's side: a fresh site for each measurement, driven by its command."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.objects import Folder
from benchmarks.programs import Failed, running, until
from benchmarks.senders import Senders


@dataclass(frozen=True, slots=True)
class Intake:
    """How long a folder took to be archived, and (where waited for) to have pictures."""

    archived_seconds: float
    whole_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """How long senders took, and how long it took until everything was archived."""

    acknowledged_seconds: float
    archived_seconds: float


class _Site:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.run("init", str(root))
        config = root / "ingest.toml"
        config.write_text(config.read_text().replace("port = 11112", "port = 0"))
        self.spool = root / "spool"
        self.log = root / "log"

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "ingester", "--config", str(self.root / "ingest.toml")),
            *arguments,
        ]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=3600
        )
        if done.returncode:
            raise Failed(f"ingester {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def archived(self) -> tuple[int, float]:
        """Return how many arrivals are archived, and the moment of the last."""
        address = f"file:{self.root / 'archive/index.db'}?mode=ro"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
                count, last = connection.execute(
                    "SELECT count(*), max(finished_at) FROM arrivals WHERE outcome = 'archived'"
                ).fetchone()
        except sqlite3.OperationalError:  # not made yet
            return 0, 0.0
        return count, datetime.fromisoformat(last).timestamp() if last else 0.0

    def await_archived(self, objects: int) -> float:
        """Wait until everything is archived; returns the moment of the last commit."""
        _, at = until(
            lambda: found if (found := self.archived())[0] >= objects else None,
            f"{objects} objects archived",
        )
        return at

    def port(self) -> int | None:
        """Return where the running service listens, None while it does not."""
        done = subprocess.run(
            self.command("status", "--json"), capture_output=True, text=True, check=False
        )
        try:
            status: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return None
        listening = [each["port"] for each in status.get("receivers", ()) if each["is_up"]]
        return listening[0] if status.get("running") and listening else None

    @contextmanager
    def service(self) -> Iterator[int]:
        """Run the service for the time of the block; gives the port of its SCP."""
        with running(self.command("run"), self.log):
            yield until(self.port, "the service listens", within=60)


def folder_in(folder: Folder, scratch: Path) -> Intake:
    """Move a folder into the spool and run `ingester run --once`, start included."""
    site = _Site(scratch / "site")
    _prepare(folder, scratch / "moved-in")
    os.rename(scratch / "moved-in", site.spool / "folder")
    began = time.time()
    site.run("run", "--once", "--json")
    whole = time.time() - began
    count, last = site.archived()
    _see(count, folder.objects)
    return Intake(last - began, whole)


def folder_in_running(folder: Folder, scratch: Path) -> Intake:
    """Move a folder into the spool of a service that runs already."""
    site = _Site(scratch / "site")
    _prepare(folder, scratch / "moved-in")
    with site.service():
        began = time.time()
        os.rename(scratch / "moved-in", site.spool / "folder")
        last = site.await_archived(folder.objects)
    _see(site.archived()[0], folder.objects)
    return Intake(last - began)


def store(folder: Folder, senders: Senders, scratch: Path) -> Stored:
    """Send a folder to the running service by C-STORE."""
    site = _Site(scratch / "site")
    with site.service() as port:
        began = time.time()
        acknowledged = senders.send(folder, port, "INGESTER", scratch)
        last = site.await_archived(folder.objects)
    _see(site.archived()[0], folder.objects)
    return Stored(acknowledged, max(acknowledged, last - began))


def _prepare(folder: Folder, copy: Path) -> None:
    """Copy the folder (links would be other files' twins) and let the disk settle."""
    shutil.copytree(folder.path, copy)
    os.sync()


def _see(count: int, expected: int) -> None:
    if count != expected:
        raise Failed(f"{count} of {expected} objects archived")
