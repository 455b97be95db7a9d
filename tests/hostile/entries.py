"""Rows of what a directory entry may be, and what becomes of it while one looks."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from ingester import durable
from ingester.model import Reason, Refusal
from ingester.prepare import prepare
from tests.clocks import HandClock
from tests.factory import drop, encoded, instance
from tests.hostile.trial import INPUT, NEIGHBOUR, Case, Trial, settle
from tests.unit.cli.home import Home
from tests.unit.cli.test_every_command_explains import asked_in_a_process
from tests.unit.test_prepare import request

#: How often a file is swapped for a link in the middle of a look.
SWAPS = 10_000 if os.environ.get("INGESTER_HOSTILE") == "full" else 500


def _whole(patient: int = 1) -> bytes:
    return encoded(instance(patient))


def _entry(number: int, name: str, make: Callable[[Trial, Path], None]) -> Case:
    """Return the row of an entry that is no regular file: moved aside, never opened."""

    def run(folder: Path) -> None:
        trial = Trial(folder)
        path = trial.site.spool.root / INPUT
        make(trial, path)
        kind = stat.S_IFMT(path.lstat().st_mode)
        target = os.readlink(path) if path.is_symlink() else None
        trial.ingest()
        assert trial.rows_of(INPUT) == [("quarantined", "not-a-regular-file")]
        (kept,) = trial.aside()
        assert stat.S_IFMT(kept.lstat().st_mode) == kind
        assert target is None or os.readlink(kept) == target
        trial.check()

    return Case(number, name, run)


def _socket(_: Trial, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(path.parent, os.O_PATH)
        try:
            listener.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


def _to_archived(trial: Trial, path: Path) -> None:
    trial.drop(_whole(7), "before")
    trial.site.ingest_all()
    (archived,) = trial.site.objects()
    path.symlink_to(trial.site.archive.root / archived)


def _other_name(folder: Path) -> None:
    """A hard link to another's file is copied; theirs keeps its mode and its bytes."""
    trial = Trial(folder)
    os.link(trial.outside / "precious.dcm", trial.site.spool.root / INPUT)
    trial.ingest()
    assert trial.rows_of(INPUT) == [("archived", None)]
    assert (trial.outside / "precious.dcm").stat().st_nlink == 1
    trial.check()


def _name_of_an_archived_one(folder: Path) -> None:
    trial = Trial(folder)
    trial.drop(_whole(), "first")
    trial.site.ingest_all()
    (archived,) = trial.site.objects()
    os.link(trial.site.archive.root / archived, trial.site.spool.root / INPUT)
    trial.ingest()
    assert trial.rows_of(INPUT) == [("duplicate", None)]
    trial.check()


def _folder_like_a_file(folder: Path) -> None:
    trial = Trial(folder)
    trial.drop(_whole(), "x.dcm/inside")
    trial.ingest()
    assert trial.site.outcomes() == {"archived": 2}
    trial.check()


def _swapped_at_the_claim(folder: Path) -> None:
    """A file is swapped for a link between the look and the claim: the link is moved aside."""
    trial = Trial(folder)
    path = trial.drop(_whole())
    swapped: list[str] = []

    def swap(name: str, _: str) -> None:
        if name == "rename" and not swapped:
            swapped.append(name)
            path.unlink()
            path.symlink_to(trial.outside / "precious.dcm")

    with durable.observe(swap):
        trial.site.ingest_all()
    assert swapped
    trial.ingest()
    assert trial.rows_of(INPUT) == [("quarantined", "not-a-regular-file")]
    trial.check()


#: What is swapped for a link to what, in the moment in which it is opened.
_swapping: dict[str, Path] = {}


def _swap_at_open(event: str, arguments: tuple[object, ...]) -> None:
    # An audit hook: the interpreter calls it between our look at a file and the opening.
    if event == "open" and (target := _swapping.pop(str(arguments[0]), None)) is not None:
        path = Path(str(arguments[0]))
        path.unlink()
        path.symlink_to(target)


def _swapped_again_and_again(folder: Path) -> None:
    """A file that is swapped for a link just before it is opened: the target is never read."""
    trial = Trial(folder)
    path = folder / "swapped"
    data = _whole()
    sys.addaudithook(_swap_at_open)
    for _ in range(SWAPS):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        _swapping[str(path)] = trial.outside / "precious.dcm"
        seen = prepare(request(path, intake="read"))
        assert not _swapping, "it was swapped"
        assert isinstance(seen.found, Refusal)
        assert seen.found.reason is Reason.NOT_A_REGULAR_FILE
    path.unlink()
    trial.ingest()
    trial.check()


def _named(name: str, raw_name: bytes, content: Callable[[], bytes], outcome: str) -> Case:
    def run(folder: Path) -> None:
        trial = Trial(folder)
        data = content()
        (trial.site.spool.root / "CT1").mkdir(exist_ok=True)
        drop(trial.site.spool.root / "CT1" / os.fsdecode(raw_name), data)
        trial.ingest()
        query = "SELECT outcome, original_name FROM arrivals WHERE original_name <> 'neighbour'"
        ((found, shown),) = trial.site.rows(query)
        assert found == outcome
        assert shown.isprintable()
        assert hashlib.sha256(data).hexdigest() in trial.kept()
        trial.check()

    return Case(44, name, run)


def _unreadable(folder: Path) -> None:
    """A file that may not be read is set aside, and its bytes are there for who may."""
    home = Home(folder / "site")
    trial = Trial(folder)
    data = _whole()
    path = trial.drop(data)
    path.chmod(0)
    drop(trial.site.spool.root / "neighbour", instance(NEIGHBOUR))
    answer = asked_in_a_process(["--config", str(home.config), "run", "--once"])
    assert answer.exit_code == 1, answer.stderr
    assert trial.rows_of(INPUT) == [("quarantined", "unreadable")]
    assert trial.rows_of("neighbour") == [("archived", None)]
    (kept,) = trial.aside()
    assert kept.read_bytes() == data
    trial.check()


def _appended(folder: Path) -> None:
    """A writer that goes on after the claim is noticed; what is archived is not theirs."""
    clock = HandClock()
    trial = Trial(folder, clock)
    data = _whole()
    path = trial.drop(data[:-200])
    with trial.site.ingesting() as ingest:
        ingest.turn(look=True)
        settle(ingest)
        assert trial.site.outcomes() == {}
        (claim,) = trial.site.spool.claimed()
        assert not path.exists()
        with claim.path.open("r+b") as writer:
            writer.seek(0, os.SEEK_END)
            writer.write(data[-200:])
            writer.flush()
            for _ in range(4):
                clock.seconds += 61
                settle(ingest)
            assert trial.rows_of(INPUT) == [("archived", None)]
            writer.seek(0)
            writer.write(b"changed afterwards")
    assert hashlib.sha256(data).hexdigest() in trial.kept()
    trial.check()


def _filled(folder: Path) -> None:
    """Space reserved first and filled over ten minutes: nothing is taken before its end."""
    clock = HandClock()
    trial = Trial(folder, clock)
    data = encoded(instance(1, rows=400, columns=400))
    path = trial.drop(bytes(len(data)))
    piece = len(data) // 20 + 1
    with trial.site.ingesting() as ingest, path.open("r+b") as writer:
        for at in range(0, len(data), piece):
            assert trial.site.outcomes() == {}
            writer.write(data[at : at + piece])
            writer.flush()
            ingest.turn(look=True)
            settle(ingest)
            clock.seconds += 30
        writer.close()
        for _ in range(4):
            ingest.turn(look=True)
            settle(ingest)
            clock.seconds += 61
    assert trial.rows_of(INPUT) == [("archived", None)]
    assert hashlib.sha256(data).hexdigest() in trial.kept()
    trial.check()


def _opened_often(folder: Path) -> None:
    trial = Trial(folder, HandClock())
    data = _whole()
    path = trial.site.spool.root / INPUT
    with trial.site.ingesting() as ingest:
        for at in range(50):
            with path.open("ab") as writer:
                end = len(data) if at == 49 else (at + 1) * len(data) // 50
                writer.write(data[at * len(data) // 50 : end])
                ingest.turn(look=True)
                settle(ingest)
        ingest.turn(look=True)
        settle(ingest)
    assert trial.rows_of(INPUT) == [("archived", None)]
    trial.check()


def _renamed(folder: Path) -> None:
    trial = Trial(folder, HandClock())
    with trial.site.ingesting() as ingest:
        part = trial.drop(_whole(), f"{INPUT}.part")
        ingest.turn(look=True)
        settle(ingest)
        assert trial.site.outcomes() == {}
        part.rename(part.with_name(INPUT))
        ingest.turn(look=True)
        settle(ingest)
    assert trial.site.rows("SELECT original_name, outcome FROM arrivals") == [(INPUT, "archived")]
    trial.check()


def _raced(folder: Path) -> None:
    """Eight files of one UID and eight patients, read at once: one is current, all are kept."""
    trial = Trial(folder)
    files = [encoded(instance(1, PatientID=f"RACE{n}")) for n in range(8)]
    for number, data in enumerate(files):
        trial.drop(data, f"race{number}")
    with ThreadPoolExecutor(8) as pool, trial.site.ingesting(pool) as ingest:
        ingest.turn(look=True)
        while not ingest.is_idle:
            ingest.turn(look=False)
    assert trial.site.outcomes() == {"archived": 1, "conflict": 7}
    assert {hashlib.sha256(data).hexdigest() for data in files} <= trial.kept()
    assert trial.site.rows("SELECT count(*) FROM problems WHERE kind = 'conflict'") == [7]
    trial.ingest()
    trial.check()


def _refuses(name: str, spoil: Callable[[Home, Path], None], said: str) -> Case:
    """Return the row of a site that was tampered with: nothing starts on it."""

    def run(folder: Path) -> None:
        home = Home(folder / "site")
        trial = Trial(folder)
        trial.ingest()
        before = {path: path.read_bytes() for path in trial.site.archive.root.rglob("*.dcm")}
        spoil(home, trial.site.index)
        answer = asked_in_a_process(["--config", str(home.config), "run", "--once"])
        assert answer.exit_code == 2
        assert said in answer.stderr
        assert "Traceback" not in answer.stderr
        assert before == {path: path.read_bytes() for path in before}

    return Case(60, name, run)


def _symlinked(_: Home, index: Path) -> None:
    index.rename(index.with_name("elsewhere.db"))
    index.symlink_to("elsewhere.db")


def _replaced(_: Home, index: Path) -> None:
    for path in index.parent.glob("index.db*"):
        path.unlink()
    with closing(sqlite3.connect(index)) as theirs:
        theirs.execute("CREATE TABLE appointments (at TEXT)")


def _writable(home: Home, _: Path) -> None:
    home.config.chmod(0o666)


CASES = [
    _entry(40, "to-system-file", lambda _, path: path.symlink_to("/etc/passwd")),
    _entry(40, "to-archive-file", _to_archived),
    _entry(40, "to-folder", lambda trial, path: path.symlink_to(trial.outside)),
    _entry(40, "dangling", lambda _, path: path.symlink_to("nowhere")),
    _entry(40, "loop", lambda _, path: path.symlink_to(path.name)),
    Case(41, "anothers-file", _other_name),
    Case(41, "archived-file", _name_of_an_archived_one),
    _entry(42, "fifo", lambda _, path: os.mkfifo(path)),
    _entry(42, "socket", _socket),
    _entry(42, "device", lambda _, path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))),
    Case(42, "folder", _folder_like_a_file),
    Case(43, "swapped-at-the-claim", _swapped_at_the_claim),
    Case(43, "swapped-while-read", _swapped_again_and_again),
    *(
        _named(name, raw_name, _whole, "archived")
        for name, raw_name in {
            "255-bytes": b"n" * 255,
            "not-utf-8": b"\xff\xfe.dcm",
            "newline": b"a\nb",
            "leading-dash": b"-rf",
            "command": b"$(id)`id`",
            "right-to-left": "\u202egnp.dcm".encode(),
            "reason": b"reason.json",
        }.items()
    ),
    *(
        _named(f"{name}-aside", raw_name, lambda: b"hello " * 100, "foreign")
        for name, raw_name in {"reason": b"reason.json", "255-bytes": b"n" * 255}.items()
    ),
    Case(45, "mode-000", _unreadable),
    Case(46, "appended-after-the-claim", _appended),
    Case(47, "reserved-and-filled", _filled),
    Case(48, "opened-50-times", _opened_often),
    Case(49, "renamed", _renamed),
    Case(51, "eight-at-once", _raced),
    _refuses("index-is-a-link", _symlinked, "symbolic link"),
    _refuses("index-of-others", _replaced, "not an index of ingester"),
    _refuses("configuration-writable", _writable, "chmod o-w"),
]
