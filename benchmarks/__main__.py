"""`python -m benchmarks`: how fast folders and senders get in, beside Orthanc.

Each measurement has a fresh site (and a fresh Orthanc) in a temporary folder; the
same files, the same senders, one after the other on an otherwise idle machine.

What is promised differs: Orthanc 1.10 flushes each file's data, but neither its name
nor its index, before it answers (one fdatasync an object, seen with strace).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.table import Table

import ingester
from benchmarks import orthanc, ours
from benchmarks.objects import Folder, make_folder
from benchmarks.programs import Failed, find
from benchmarks.senders import Senders

T = TypeVar("T")

_SMALL_EDGE, _CT_EDGE = 64, 512


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement: seconds until all objects were where the words say."""

    measured: str
    objects: int
    total_bytes: int
    ours_seconds: float
    orthanc_seconds: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return how many times as fast as Orthanc we are."""
        return self.orthanc_seconds / self.ours_seconds if self.orthanc_seconds else None


class Bench:
    """The measurements asked for, each repeated and given as the median."""

    def __init__(self, scratch: Path, *, repeat: int, has_orthanc: bool) -> None:
        self._scratch = scratch
        self._repeat = repeat
        self._has_orthanc = has_orthanc

    def folder_in(self, what: str, folder: Folder, clients: int) -> Iterator[Figure]:
        """Measure a folder that is moved in."""
        sizes = (folder.objects, folder.total_bytes)
        upload = self._orthanc(lambda at: orthanc.upload(folder, clients, at))
        once = self._times(lambda at: ours.folder_in(folder, at))
        alive = self._times(lambda at: ours.folder_in_running(folder, at))
        words = f"{what}, moved in, archived (Orthanc: REST, {clients} clients)"
        yield Figure(words, *sizes, _median(each.archived_seconds for each in alive), upload)
        words = f"{what}, `run --once`, archived, with its start"
        yield Figure(words, *sizes, _median(each.archived_seconds for each in once), upload)
        words = f"{what}, `run --once`, to its end, with thumbnails"
        yield Figure(words, *sizes, _median(each.whole_seconds or 0 for each in once))

    def store(self, what: str, folder: Folder, senders: Senders) -> Iterator[Figure]:
        """Measure senders that send a folder."""
        sizes = (folder.objects, folder.total_bytes)
        peer = self._orthanc(lambda at: orthanc.store(folder, senders, at))
        stored = self._times(lambda at: ours.store(folder, senders, at))
        words = f"{what}, C-STORE by {senders.words}, acknowledged"
        yield Figure(words, *sizes, _median(each.acknowledged_seconds for each in stored), peer)
        words = f"{what}, C-STORE by {senders.words}, archived"
        yield Figure(words, *sizes, _median(each.archived_seconds for each in stored), peer)

    def _orthanc(self, measure: Callable[[Path], float]) -> float | None:
        return _median(self._times(measure)) if self._has_orthanc else None

    def _times(self, measure: Callable[[Path], T]) -> list[T]:
        results = []
        for _ in range(self._repeat):
            with _fresh(self._scratch) as at:
                os.sync()  # nobody pays for what was written before
                results.append(measure(at))
        return results


@contextmanager
def _fresh(above: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=above))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


@click.command()
@click.option("--small", default=1000, show_default=True, help="How many 12 KB instances.")
@click.option("--ct", default=300, show_default=True, help="How many 0.5 MB instances.")
@click.option("--senders", default=4, show_default=True, help="Senders and clients at once.")
@click.option(
    "--sender",
    "programs",
    multiple=True,
    type=click.Choice(["storescu", "storescu-nodelay", "pynetdicom"]),
    default=("storescu", "storescu-nodelay"),
    show_default=True,
    help="Who sends; storescu-nodelay is storescu with TCP_NODELAY=1. May be repeated.",
)
@click.option("--only", type=click.Choice(["folder", "store"]), help="Only one half.")
@click.option("--repeat", default=1, show_default=True, help="Times each; the median counts.")
@click.option("--scratch", type=click.Path(path_type=Path), help="Where to work (a real disk).")
@click.option("--without-orthanc", is_flag=True, help="Our own figures only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(
    small: int,
    ct: int,
    senders: int,
    programs: tuple[str, ...],
    only: str | None,
    repeat: int,
    scratch: Path | None,
    without_orthanc: bool,
    as_json: bool,
) -> None:
    """Measure how fast files get in, beside Orthanc where it is installed."""
    progress = Console(stderr=True)
    has_orthanc = orthanc.program() is not None and not without_orthanc
    if not has_orthanc and not without_orthanc:
        progress.print("Orthanc is not installed: these are our own figures only.")
    figures: list[Figure] = []
    above = Path(tempfile.mkdtemp(prefix="ingester-bench-", dir=scratch))
    try:
        bench = Bench(above, repeat=repeat, has_orthanc=has_orthanc)
        folders = {}
        for what, count, edge in (("12 KB", small, _SMALL_EDGE), ("CT 0.5 MB", ct, _CT_EDGE)):
            if count:
                folders[what] = make_folder(above / f"made-{edge}", count, edge=edge)
        for what, folder in folders.items():
            if only != "store":
                progress.print(f"{what}: a folder of {folder.objects}")
                figures += bench.folder_in(what, folder, senders)
            for program in _installed(programs, progress) if only != "folder" else ():
                who = Senders(program, senders)
                progress.print(f"{what}: {folder.objects} by {who.words}")
                figures += bench.store(what, folder, who)
    except Failed as failure:
        progress.print(f"[red]{failure}[/red]")
        sys.exit(1)
    finally:
        shutil.rmtree(above)
    if as_json:
        click.echo(json.dumps({"machine": _machine(), "figures": _rows(figures)}, indent=2))
    else:
        _show(figures)


def _installed(programs: tuple[str, ...], progress: Console) -> Iterator[str]:
    for program in programs:
        if program == "pynetdicom" or find("storescu"):
            yield program
        else:
            progress.print(f"{program} is left out: DCMTK is not installed.")


def _machine() -> dict[str, object]:
    version = orthanc.version()
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "ingester": ingester.__version__,
        "orthanc": version,
        "load": round(os.getloadavg()[0], 1),
    }


def _rows(figures: list[Figure]) -> list[dict[str, object]]:
    return [{**asdict(each), "ratio": each.ratio} for each in figures]


def _show(figures: list[Figure]) -> None:
    table = Table(title=", ".join(f"{key} {value}" for key, value in _machine().items()))
    table.add_column("measured", overflow="fold")
    for column in ("objects", "s", "objects/s", "MB/s", "Orthanc objects/s", "ratio"):
        table.add_column(column, justify="right")
    for each in figures:
        rate = each.objects / each.ours_seconds
        peer = f"{each.objects / each.orthanc_seconds:,.0f}" if each.orthanc_seconds else "–"
        table.add_row(
            each.measured,
            f"{each.objects:,}",
            f"{each.ours_seconds:.2f}",
            f"{rate:,.0f}",
            f"{each.total_bytes / each.ours_seconds / 1e6:,.1f}",
            peer,
            f"{each.ratio:.2f}" if each.ratio else "–",
        )
    Console(width=max(110, Console().width)).print(table)


if __name__ == "__main__":
    main()
