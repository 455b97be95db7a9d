"""Runs that the power cuts off: what is done, and what must be true whenever it ends."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ingester.handover import Found, Handed, Handover, take_away
from ingester.ingest import IngestSettings
from ingester.receivers.flusher import FolderFlusher
from ingester.receivers.landing import Landing, Shelf
from tests.factory import encoded, instance
from tests.faults.disk import Disk, Recorder, State, Trace
from tests.faults.everything import fill
from tests.site import Site, digest

_WHOLE = {"archived", "duplicate"}
_SETTLED = "arrival_id, source, original_name, sha256"


@dataclass(frozen=True)
class Scenario:
    """Something that is done to a site while it is recorded.

    `prepare` makes what lies there before; `run` is recorded.  `is_resumed`: what the service
    does by itself when the power is back ends as the run would have ended.  `is_whole`: nothing
    but whole objects is there, so nothing may be set aside.
    """

    name: str
    prepare: Callable[[Site], None]
    run: Callable[[Site, Recorder], None]
    intake: Literal["auto", "link", "copy"] = "auto"
    is_resumed: bool = True
    is_whole: bool = False
    index: str = "archive/index.db"

    def site(self, root: Path) -> Site:
        """Open the site below *root*."""
        settings = IngestSettings(is_impatient=True, intake=self.intake)
        return Site(root, settings=settings, index=self.index)


@dataclass(frozen=True)
class Run:
    """A scenario that was recorded from its beginning to its end."""

    scenario: Scenario
    trace: Trace
    kept: frozenset[str]  # SHA-256 of every file that lay there before and at the end
    expected: dict[str, Any]

    def states(
        self, seed: int, most: int, *, forgotten: str | None = None, is_fresh: bool = False
    ) -> Iterator[tuple[Disk, State]]:
        """Yield different states, up to *most* at each step.

        Where flushes are *forgotten*: only those that were impossible with them.
        """
        seen: set[bytes] = set()
        chance = random.Random(seed)
        index = self.scenario.index
        disk = Disk(self.trace, index, forgotten=forgotten, is_fresh=is_fresh)
        whole = Disk(self.trace, index, is_fresh=is_fresh)

        def is_wanted(state: State) -> bool:
            return forgotten is None or not whole.is_possible(state, disk)

        while True:
            for each in disk.states(chance, most, is_wanted):
                fingerprint = disk.fingerprint(each)
                if fingerprint not in seen:
                    seen.add(fingerprint)
                    yield disk, each
            whole.step()
            if disk.step() is None:
                return

    def violation(self, disk: Disk, left: State, root: Path, *, is_fresh: bool = False) -> str:
        """Start again on a state; returns what is wrong in the end, "" where nothing is."""
        disk.write(left, root)
        try:
            settled = settled_in(disk.content)
            site = self.scenario.site(root)
            try:
                site.ingest_all()
                site.check()
            except (AssertionError, OSError, sqlite3.Error) as error:
                return f"{type(error).__name__}: {error}"
            lost = settled - settled_in(site.index.read_bytes())
            if lost:
                return f"outcomes that were committed are gone: {lost}"
            have = digests(root)
            if not is_fresh and self.kept - have:
                return f"files are lost: {self.kept - have}"
            if set(disk.promises) - have:
                return f"promises are broken: {set(disk.promises) - have}"
            set_aside = "SELECT sha256 FROM arrivals WHERE outcome IN ('quarantined', 'foreign')"
            if bad := {sha for sha in site.rows(set_aside) if sha is not None} - have:
                return f"what was set aside is gone: {bad}"
            if self.scenario.is_whole and (found := site.outcomes()).keys() - _WHOLE:
                return f"a whole object was taken for something else: {found}"
            is_equal_in_the_end = self.scenario.is_resumed and not is_fresh
            if is_equal_in_the_end and (found := summary(site)) != self.expected:
                return f"ends otherwise: {found}"
            return ""
        finally:
            shutil.rmtree(root)


def record(scenario: Scenario, root: Path) -> Run:
    """Run a scenario below *root*, a folder that does not exist yet, and record it."""
    site = scenario.site(root)
    site.spool.make_folders()
    scenario.prepare(site)
    before = digests(root)
    recorder = Recorder(root, site.index)
    with recorder.watching():
        scenario.run(site, recorder)
    site.check()
    return Run(scenario, recorder.trace, before & digests(root), summary(site))


def digests(root: Path) -> frozenset[str]:
    """Return the SHA-256 of every file below *root*."""
    return frozenset(digest(path) for path in root.rglob("*") if path.is_file())


def settled_in(content: bytes) -> set[tuple[Any, ...]]:
    """Return the arrivals that an index holds."""
    if not content:
        return set()
    with closing(sqlite3.connect(":memory:")) as connection:
        # A log belongs to a file: an image in memory must not ask for one.
        connection.deserialize(content[:18] + b"\x01\x01" + content[20:])
        has_table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'arrivals'")
        if has_table.fetchone() is None:
            return set()
        return set(connection.execute(f"SELECT {_SETTLED} FROM arrivals"))


def summary(site: Site) -> dict[str, Any]:
    """Return what must be equal in the end.

    Of files with one UID, which comes first is open until the first row is committed: a
    power cut may give one claim back to the spool and keep a later one.  So outcomes are
    counted, and not told by file.
    """
    columns = "source, batch, original_name, size_bytes, sha256"
    return {
        "files": Counter(site.rows(f"SELECT {columns} FROM arrivals")),
        "outcomes": Counter(site.rows("SELECT outcome, reason FROM arrivals")),
        "objects": Counter(site.objects().values()),
        "versions": Counter(site.rows("SELECT sop_instance_uid, version FROM instances")),
        "problems": Counter(site.rows("SELECT kind, reason FROM problems")),
        "left": site.left_in_spool(),
    }


# -- what is done --------------------------------------------------------------------------


def _ingest(site: Site, _recorder: Recorder) -> None:
    site.ingest_all()


def _receive(site: Site, recorder: Recorder) -> None:
    """Receive objects as the Storage SCP does; each is promised, then all are ingested."""
    shelf = Shelf(site.spool.root, FolderFlusher(), folder_mode=0o2770, file_mode=0o640)
    for number, source in enumerate(("CT1", "MR 2", "CT1"), start=1):
        content = encoded(instance(7, 1, 1, number))
        landing = Landing(shelf, source, f"00000000000000000000000{number}.{number}", content[:200])
        landing.feed(memoryview(content)[200:])
        recorder.promise(digest(landing.finish()))
    site.ingest_all()


def _originals(site: Site) -> list[Path]:
    return sorted((site.root / "cd").iterdir())


def _make_originals(site: Site) -> None:
    (site.root / "cd").mkdir()
    for number in (1, 2, 3):
        (site.root / "cd" / f"{number}.dcm").write_bytes(encoded(instance(8, 1, 1, number)))


def _bring(site: Site, _recorder: Recorder) -> None:
    """Import with `--move`: the originals go once their outcomes are known."""
    handed: list[Handed] = []
    with Handover(
        site.spool.root, "CT1", site.clock, folder_mode=0o2770, min_free_bytes=0
    ) as handover:
        for path in _originals(site):
            handed.append(handover.bring(Found(path, path.name, "cd"), "cd"))
        handover.flush()
    site.ingest_all()
    for each in handed:
        assert take_away(each)


def _set_aside(site: Site) -> None:
    fill(site)
    site.ingest_all()


def _retry(site: Site, _recorder: Recorder) -> None:
    """Send back all that was quarantined; it is quarantined again."""
    with site.ingesting() as ingest:
        for arrival_id in site.rows(
            "SELECT arrival_id FROM arrivals WHERE outcome = 'quarantined'"
        ):
            ingest.retry(arrival_id)
    site.ingest_all()


INGEST = Scenario("a full spool is ingested", fill, _ingest)
COPIED = Scenario(
    "a full spool is ingested by copy",
    fill,
    _ingest,
    "copy",
)
APART = Scenario("an index in a folder of its own", fill, _ingest, index="index/of site.db")
RECEIVE = Scenario(
    "objects are received", lambda _site: None, _receive, is_resumed=False, is_whole=True
)
BRING = Scenario(
    "a CD is brought and taken away", _make_originals, _bring, is_resumed=False, is_whole=True
)
RETRY = Scenario("quarantined files are sent back", _set_aside, _retry, is_resumed=False)
SCENARIOS = (INGEST, COPIED, APART, RECEIVE, BRING, RETRY)

#: Every flush of the program, and a run in which it is needed.
FLUSHES = {
    "archive:flush_homes": INGEST,
    "archive:make_homes": INGEST,
    "claims:keep": INGEST,
    "handover.copying:_flush": BRING,
    "handover.copying:_flush_folder": BRING,
    "index.writer:_make": APART,
    "ingest.returning:_flush_names": RETRY,
    "ingest.returning:_name_successor": RETRY,
    "ingest.sealing:_seal_and_flush": INGEST,
    "prepare:_write_copy": COPIED,
    "quarantine:_make_durable": INGEST,
    "quarantine:finish_quarantine": INGEST,
    "quarantine:quarantine": INGEST,
    "receivers.flusher:_lead": RECEIVE,
    "receivers.landing:finish": RECEIVE,
    "unpack:extract": INGEST,
}
