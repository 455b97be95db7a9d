"""Everybody reads the index at once, during an ingest at full speed, and nobody is locked.

`sqlite3`, `ingester sql`, Datasette, DuckDB and pandas open the index, ask, close and
begin anew without a pause, each in processes of its own, while thousands of files go
through the real service.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.factory import drop, instance
from tests.peers.conftest import free_port, is_listening, program
from tests.peers.reading import LISTED, QUERY
from tests.stories.conftest import Command
from tests.waiting import until

#: How many objects come at first, at the least; the longer the ingest, the more is read.
OBJECTS = int(os.environ.get("INGESTER_OBJECTS", "500"))
MORE = 100
ROOT = Path(__file__).parents[2]
#: Each asks at least so often; `ingester sql` starts a whole Python each time.
FEWEST = {"sqlite3": 30, "datasette": 30, "duckdb": 10, "pandas": 10, "ingester sql": 5}


@dataclass
class Reader:
    """What a reader met: numbers of objects, in the order of asking."""

    name: str
    counts: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def has_seen_enough(self) -> bool:
        """Return whether it read often, and met several numbers of objects."""
        return len(self.counts) >= FEWEST[self.name] and len(set(self.counts)) > 3


def fill(folder: Path, first_patient: int, objects: int = OBJECTS) -> Path:
    for number in range(objects):
        made = instance(first_patient + number // 250, 1, 1 + number % 5, number, rows=8, columns=8)
        drop(folder / f"{number % 40:02d}" / f"{number}.dcm", made)
    return folder


def asking(reader: Reader, ask: Callable[[], int], is_over: threading.Event) -> None:
    while not is_over.is_set():
        try:
            reader.counts.append(ask())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shall tell
            reader.errors.append(f"{type(error).__name__}: {error}")


def said_by(*arguments: str) -> str:
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_command_line(path: Path, *, patience: str = "") -> Callable[[], int]:
    arguments = [program("sqlite3"), "-readonly", *(["-cmd", patience] if patience else [])]
    statements = f"{LISTED.format(schema='')}; {QUERY.format(schema='')}"
    return lambda: int(said_by(*arguments, str(path), statements).splitlines()[1].split("|")[0])


def by_ingester(command: Command) -> Callable[[], int]:
    arguments = command.arguments("sql", "--json", QUERY.format(schema=""))
    return lambda: int(json.loads(said_by(*arguments))[0]["objects"])


@contextmanager
def datasette(path: Path, log: Path) -> Iterator[Callable[[], int]]:
    """Run a Datasette on the index; yields how to ask it over HTTP."""
    port = free_port()
    arguments = ["serve", str(path), "--port", str(port), "--setting", "sql_time_limit_ms", "10000"]
    with log.open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "datasette", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        query = urlencode({"sql": QUERY.format(schema=""), "_shape": "array"})
        try:
            connection.request("GET", f"/{path.stem}.json?{query}")
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, body
        return int(json.loads(body)[0]["objects"])

    try:
        until(lambda: is_listening(port), what=f"Datasette answers: {log.read_text()}")
        yield ask
        assert server.poll() is None, log.read_text()
    finally:
        server.terminate()
        server.wait(timeout=20)


@contextmanager
def library(reader: Reader, path: Path, log: Path) -> Iterator[None]:
    """Let a process read with a library, again and again; notes what it finds."""
    with log.open("ab") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.peers.reading", reader.name, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=ROOT,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    said = process.stdout
    listening = threading.Thread(
        target=lambda: reader.counts.extend(int(line) for line in said), name=reader.name
    )
    listening.start()
    try:
        yield
        process.stdin.close()
        if process.wait(timeout=60):
            reader.errors.append(log.read_text())
    finally:
        process.kill()
        process.wait()
        listening.join()
        said.close()


@contextmanager
def everybody(
    command: Command, path: Path, *, patience: str = "", with_command: bool = True
) -> Iterator[dict[str, Reader]]:
    """Let every reader read for the time of the block."""
    readers = {name: Reader(name) for name in FEWEST if with_command or name != "ingester sql"}
    is_over = threading.Event()
    with ExitStack() as stack:
        for name in ("duckdb", "pandas"):
            log = command.root / f"{name}.log"
            stack.enter_context(library(readers[name], path, log))
        asked = {
            "sqlite3": by_command_line(path, patience=patience),
            "datasette": stack.enter_context(datasette(path, command.root / "datasette.log")),
        }
        if with_command:
            asked["ingester sql"] = by_ingester(command)
        threads = [
            threading.Thread(target=asking, args=(readers[name], ask, is_over))
            for name, ask in asked.items()
        ]
        for thread in threads:
            thread.start()
        try:
            yield readers
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


def is_enough(readers: dict[str, Reader]) -> bool:
    """Return whether all have seen enough, or one has met an error."""
    found = readers.values()
    return all(each.has_seen_enough for each in found) or any(each.errors for each in found)


def check(readers: dict[str, Reader]) -> None:
    """Assert that everybody read without a fault while the rows were growing."""
    for reader in readers.values():
        assert not reader.errors, (reader.name, len(reader.errors), reader.errors[:3])
        assert reader.has_seen_enough, (reader.name, len(reader.counts), set(reader.counts))
        assert reader.counts == sorted(reader.counts), f"{reader.name} saw the past again"


def dropping(command: Command, tmp_path: Path, first: int) -> Iterator[int]:
    """Drop *first* files, then some more each time; yields how many there are by then."""
    total = 0
    for number in count():
        objects = MORE if total else first
        folder = fill(tmp_path / f"batch{number}", 1 + number * 100, objects)
        os.rename(folder, command.spool / folder.name)
        total += objects
        yield total


@pytest.mark.timeout(400)
def test_nobody_is_locked_while_the_service_ingests(command: Command, tmp_path: Path) -> None:
    with command.service() as service:
        # Without patience: as long as the service runs, nobody has anything to wait for.
        with everybody(command, command.archive / "index.db") as readers:
            for total in dropping(command, tmp_path, OBJECTS):
                service.await_outcomes({"archived": total}, within=300)
                if is_enough(readers):
                    break
            assert (service.status() or {})["troubles"] == []
        check(readers)
        log = command.archive / "index.db-wal"
        until(lambda: (service.status() or {}).get("pending_derivatives") == 0, within=200)
        until(lambda: log.stat().st_size == 0, what="the log is emptied after all readers")
    assert "WARNING" not in command.log()
    assert "BUSY" not in command.log()
    command.verify()


@pytest.mark.timeout(400)
def test_with_patience_nobody_is_locked_when_it_starts_and_ends_either(
    command: Command, tmp_path: Path
) -> None:
    drops = dropping(command, tmp_path, MORE)
    next(drops)
    command.once()  # from now on there is an index
    with everybody(command, command.archive / "index.db", patience=".timeout 5000") as readers:
        for total in drops:
            assert command.once() == {"arrived": MORE, "archived": MORE, "thumbnails": MORE}
            if total >= 4 * MORE and is_enough(readers):
                break
    check(readers)
    command.verify()


@pytest.mark.timeout(400)
def test_the_snapshot_is_read_while_it_is_replaced(command: Command, tmp_path: Path) -> None:
    command.configure(index={"snapshot": "1s"})
    snapshot = command.archive / "index-snapshot.db"
    with command.service() as service:
        drops = dropping(command, tmp_path, 10)
        next(drops)
        until(snapshot.exists)
        with everybody(command, snapshot, with_command=False) as readers:
            server = readers.pop("datasette")  # keeps the copy that it opened first
            for total in drops:
                service.await_outcomes({"archived": total}, within=300)
                if is_enough(readers):
                    break
    assert server.counts
    assert not server.errors
    check(readers)
    assert "WARNING" not in command.log()
    command.verify()
