"""The real command, in a process of its own, on a site of its own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until

SUMMARY = [
    "arrived",
    "archived",
    "duplicate",
    "variant",
    "conflict",
    "quarantined",
    "foreign",
    "unpacked",
    "thumbnails",
    "videos",
    "derivative_failures",
    "bytes",
    "seconds",
]


@dataclass
class Command:
    """`ingester` on the site below *root*; *config* is added to its `ingest.toml`."""

    root: Path
    config: dict[str, dict[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "spool").mkdir(parents=True, exist_ok=True)
        (self.root / "archive").mkdir(exist_ok=True)
        self.configure()

    def configure(self, **sections: dict[str, object]) -> None:
        """Write the configuration: receivers listen on a port that the system chooses."""
        self.config.setdefault("receiver.scp", {"port": 0})
        for section, keys in sections.items():
            self.config.setdefault(section.replace("__", "."), {}).update(keys)
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(v)}\n" for key, v in keys.items())
            for section, keys in self.config.items()
        )
        (self.root / "ingest.toml").write_text(text)

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    def arguments(self, *arguments: str | Path) -> list[str]:
        config = str(self.root / "ingest.toml")
        return [sys.executable, "-m", "ingester", "--config", config, *map(str, arguments)]

    def run(self, *arguments: str | Path, exit_code: int | None = 0) -> str:
        """Run a command to its end; returns its standard output."""
        done = subprocess.run(
            self.arguments(*arguments), capture_output=True, text=True, timeout=110, check=False
        )
        if exit_code is not None:
            assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str | Path, exit_code: int | None = 0) -> Any:
        """Run a command with `--json`; returns the document it printed."""
        return json.loads(self.run(*arguments, "--json", exit_code=exit_code))

    def once(self, exit_code: int | None = 0) -> dict[str, int]:
        """Run `run --once`; returns the counts that are not zero, without bytes and seconds."""
        summary = self.json("run", "--once", exit_code=exit_code)
        assert list(summary) == SUMMARY
        return {
            key: value
            for key, value in summary.items()
            if value and key not in ("bytes", "seconds")
        }

    def rows(self, query: str, *values: object) -> list[Any]:
        """Query the index as any user would; single columns as plain values."""
        address = f"file:{self.archive / 'index.db'}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
            found = connection.execute(query, values).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    def outcomes(self) -> dict[str, int]:
        """Return how many arrivals met each outcome; nothing where there is no index yet."""
        try:
            return dict(Counter(self.rows("SELECT outcome FROM arrivals")))
        except sqlite3.OperationalError:
            return {}

    def left_in_spool(self) -> list[str]:
        """Return every file in the spool that has no outcome yet."""
        found = []
        for here, folders, names in os.walk(self.spool):  # folders may vanish meanwhile
            if Path(here) == self.spool:
                folders[:] = [name for name in folders if name != "quarantine"]
                names = [name for name in names if name not in (".site", ".lock")]
            links = [name for name in folders if (Path(here) / name).is_symlink()]
            found += [str((Path(here) / each).relative_to(self.spool)) for each in names + links]
        return sorted(found)

    def verify(self) -> None:
        """Assert that archive and index agree to the last byte."""
        self.run("verify", "--checksum")

    @contextmanager
    def service(self) -> Iterator[Service]:
        """Run the service; ends it as a person would, and sees that it ends well."""
        with (self.root / "service.log").open("ab") as log:
            process = subprocess.Popen(
                self.arguments("run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        service = Service(self, process)
        try:
            until(service.status, what="the service answers")
            yield service
            assert service.stop() == 0, self.log()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def log(self) -> str:
        return (self.root / "service.log").read_text()


@dataclass
class Service:
    """A running service."""

    command: Command
    process: subprocess.Popen[bytes]

    def status(self) -> dict[str, Any] | None:
        """Return what `status --json` says, None while it does not run."""
        assert self.process.poll() is None, self.command.log()
        if not os.path.lexists(self.command.archive / ".control"):
            return None
        document: dict[str, Any] = self.command.json("status", exit_code=None)
        return document if document.get("running") else None

    def await_outcomes(self, expected: dict[str, int], within: float = 60) -> None:
        """Wait until the arrivals have met exactly these outcomes."""
        until(
            lambda: self.command.outcomes() == expected,
            within=within,
            what=f"{expected}; now {self.command.outcomes()}",
        )

    def stop(self) -> int:
        """End it by SIGTERM; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "site")
