"""A site for tests: spool, archive and index, driven turn by turn without a service.

site = Site(tmp_path)
drop(site.spool.root / "a.dcm", instance())
site.ingest_all()
assert site.outcomes() == {"archived": 1}
site.check()
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingester.archive import Archive
from ingester.claims import REASON
from ingester.index.writer import Writer
from ingester.ingest import Ingest, IngestSettings
from ingester.model import Clock, Origin, SystemClock
from ingester.spool import Spool
from tests.inline import InlineExecutor


class Site:
    """Spool, archive and index below one folder."""

    def __init__(
        self,
        root: Path,
        *,
        sources: tuple[str, ...] = ("CT1",),
        settings: IngestSettings | None = None,
        clock: Clock | None = None,
        index: str = "archive/index.db",
    ) -> None:
        self.root = root
        (root / "spool").mkdir(parents=True, exist_ok=True)
        (root / "archive").mkdir(exist_ok=True)
        self.spool = Spool(root / "spool", sources=sources)
        self.archive = Archive(root / "archive")
        self.index = root / index
        self.index.parent.mkdir(exist_ok=True)
        self.clock: Clock = clock or SystemClock()
        self.settings = settings or IngestSettings(is_impatient=True)

    @contextmanager
    def ingesting(
        self,
        executor: Executor | None = None,
        *,
        lies_in_spool: Callable[[Origin], bool] = lambda _: False,
        **settings: Any,
    ) -> Iterator[Ingest]:
        """Open an ingest as a service would at its start; recover first."""
        self.spool.make_folders()
        self.archive.make_folders()
        writer = Writer.open(self.index)
        ingest = Ingest(
            self.spool,
            self.archive,
            writer,
            lambda: executor or InlineExecutor(),
            replace(self.settings, **settings),
            self.clock,
            lies_in_spool=lies_in_spool,
        )
        try:
            ingest.recover()
            yield ingest
        finally:
            ingest.close()
            writer.close()

    def ingest_all(self, **settings: Any) -> None:
        """Ingest what lies in the spool, as `run --once` does."""
        with self.ingesting(**settings) as ingest:
            drain(ingest)
        self.spool.tidy(older_than_ns=2**63)

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return the rows of a query; single columns as plain values."""
        with closing(sqlite3.connect(f"file:{self.index}?mode=ro", uri=True)) as connection:
            found = connection.execute(query, values).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    def outcomes(self) -> dict[str, int]:
        """Return how many arrivals met each outcome."""
        return dict(Counter(self.rows("SELECT outcome FROM arrivals")))

    def objects(self) -> dict[str, str]:
        """Return path -> SHA-256 of every object in the tree."""
        return {
            str(path.relative_to(self.archive.root)): digest(path)
            for path in sorted(self.archive.root.rglob("*.dcm"))
            if not any(part.startswith(".") for part in path.relative_to(self.archive.root).parts)
        }

    def left_in_spool(self) -> list[str]:
        """Return every file in the spool that has no outcome yet."""
        found = []
        for folder, folders, names in os.walk(self.spool.root):
            if Path(folder) == self.spool.root:
                folders[:] = [name for name in folders if name != "quarantine"]
                names = [name for name in names if name not in (".site", ".lock")]
            found += [str((Path(folder) / name).relative_to(self.spool.root)) for name in names]
        return sorted(found)

    def check(self) -> None:
        """Assert what must hold at any moment: the tree, the rows and the audit agree."""
        rows = self.rows("SELECT path, sha256, size_bytes FROM instances")
        assert {path: sha for path, sha, _ in rows} == self.objects()
        for path, _, size in rows:
            status = (self.archive.root / path).stat()
            assert (status.st_size, status.st_mode & 0o777) == (size, 0o440)
        arrivals = self.rows("SELECT arrival_id FROM arrivals")
        assert len(arrivals) == len(set(arrivals))
        aside = self.rows(
            "SELECT arrival_id FROM arrivals WHERE outcome IN ('quarantined', 'foreign')"
            " AND retried_as IS NULL AND resolved_at IS NULL"
        )
        folders = sorted(os.listdir(self.spool.root / "quarantine"))
        assert sorted(aside) == folders
        for folder in folders:
            assert (self.spool.root / "quarantine" / folder / REASON).is_file()
        assert self.rows("PRAGMA integrity_check") == ["ok"]
        assert self.rows("PRAGMA foreign_key_check") == []


def drain(ingest: Ingest) -> None:
    """Take turns until nothing is left to do."""
    turn = ingest.turn(look=True)
    while not ingest.is_idle:
        assert turn.trouble is None, turn.trouble
        turn = ingest.turn(look=False)


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
