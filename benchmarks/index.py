"""`python -m benchmarks.index`: how fast the index takes rows, and answers.

An index is filled through the ingest's own `Writer`, in batches as the ingest commits
them, with the hospital that `hospital.py` makes up.  Then the rate of inserting is taken on
an empty index and on the full one by turns, and every query of docs/sql.md is run as
`ingester sql` runs it, beside what `find`, `show` and `status` ask.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from benchmarks import hospital
from benchmarks.cookbook import PAGE, Question, page_text, promoted_columns, questions
from ingester.index import Reader, Writer
from ingester.index.connection import connect_reader
from ingester.model import SystemClock, type_json
from ingester.receipt import BatchInSpool, receipt_of
from ingester.service.status import from_index
from ingester.spool import Spool

_INSTANCES_PER_STUDY = 50
#: Goals: milliseconds for what is bounded and for what reads the whole archive.
_BOUNDED_MS, _WHOLE_MS = 100.0, 3000.0
_LEAST_SHARE = 0.7
_WARM_RUNS = 5
#: Studies, arriving later than all others, from which a turn of inserts takes its batches.
_TURN_STUDIES = 320
_LATER = date(2026, 4, 1)

#: Asks something of an index; returns how many rows came.
Ask = Callable[[Reader], int]


@dataclass(frozen=True, slots=True)
class Answer:
    """How long one question took."""

    question: str
    is_bounded: bool
    rows: int
    best_ms: float
    cpu_ms: float  # of the best run: less than that where the machine is busy otherwise
    first_ms: float

    @property
    def goal_ms(self) -> float:
        """Return what it may take."""
        return _BOUNDED_MS if self.is_bounded else _WHOLE_MS

    @property
    def is_met(self) -> bool:
        """Return whether it took no longer than it may."""
        return self.best_ms < self.goal_ms


@dataclass(frozen=True, slots=True)
class Inserts:
    """Records a second, by turns on an empty index and on the full one."""

    empty: tuple[float, ...]
    full: tuple[float, ...]

    @property
    def share(self) -> float:
        """Return the full index's rate as a share of the empty one's."""
        return statistics.median(self.full) / statistics.median(self.empty)


@click.command()
@click.option("--instances", default=1_000_000, show_default=True, help="How many to index.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the index in this folder, and use what is kept there already.",
)
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, help="Queries to run.")
@click.option("--turns", default=3, show_default=True, help="Turns of measuring inserts.")
@click.option("--batches", default=200, show_default=True, help="Batches of 64 in a turn.")
@click.option("--only", type=click.Choice(["queries", "inserts"]), help="Only one half.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(
    instances: int,
    keep: Path | None,
    page: Path,
    turns: int,
    batches: int,
    only: str | None,
    as_json: bool,
) -> None:
    """Measure the index at a million instances, or as many as you like."""
    text = page_text(page)
    columns = promoted_columns(text)
    scratch = None if keep else Path(tempfile.mkdtemp(prefix="ingester-index-"))
    folder = keep or scratch
    assert folder is not None
    try:
        path = folder / "index.db"
        filled = _fill(path, instances, columns)
        answers = [] if only == "inserts" else list(_answers(path, questions(text)))
        inserts = None if only == "queries" else _inserts(path, columns, turns, batches)
        told = _document(path, filled, answers, inserts)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _show(told, answers, inserts)


# -- filling -----------------------------------------------------------------------------


def _fill(path: Path, instances: int, columns: Sequence[str]) -> dict[str, float]:
    """Fill the index unless it is kept; returns how long what was done took."""
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(console=Console(stderr=True))
    filled: dict[str, float] = {}
    with progress:
        if not path.exists():
            task = progress.add_task("filling", total=instances)
            aside = path.with_name("filling.db")
            for each in aside.parent.glob(f"{aside.name}*"):
                each.unlink()
            with closing(Writer.open(aside)) as writer:
                filled = _record_all(writer, instances, progress, task)
            aside.rename(path)
        task = progress.add_task("back-filling columns", total=None)
        begun = time.perf_counter()
        Writer.open(path, columns=columns).close()
        filled["columns_seconds"] = round(time.perf_counter() - begun, 3)
        progress.update(task, total=1, completed=1)
    return filled


def _record_all(
    writer: Writer, instances: int, progress: Progress, task: TaskID
) -> dict[str, float]:
    begun = time.perf_counter()
    studies = max(1, instances // _INSTANCES_PER_STUDY)
    hospital.fill(
        writer,
        studies,
        min(instances, _INSTANCES_PER_STUDY),
        on_batch=lambda made: progress.update(task, completed=made),
    )
    writer.checkpoint(idle=True)
    return {"fill_seconds": round(time.perf_counter() - begun, 1)}


# -- inserting ---------------------------------------------------------------------------


def _inserts(path: Path, columns: Sequence[str], turns: int, batches: int) -> Inserts:
    empty, full = [], []
    with Progress(console=Console(stderr=True)) as progress:
        for _ in progress.track(range(turns), description="inserting"):
            # The same studies for both: such as the full index has not seen.
            known = 1 + _number(path, "SELECT max(CAST(study_id AS INTEGER)) FROM studies")
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                empty.append(_rate(Path(scratch) / "index.db", columns, known, batches))
            full.append(_rate(path, columns, known, batches))
    return Inserts(tuple(empty), tuple(full))


def _rate(path: Path, columns: Sequence[str], first_study: int, count: int) -> float:
    """Return records a second while studies are added that arrive after all others."""
    with closing(Writer.open(path, columns=columns)) as writer:
        stream = hospital.records(
            _TURN_STUDIES,
            first_study=first_study,
            calendar=hospital.Calendar(_LATER + timedelta(first_study // _TURN_STUDIES), 1),
            next_instance_id=1 + _number(path, "SELECT count(*) FROM instances"),
        )
        batches = [list(islice(stream, hospital.BATCH_FILES)) for _ in range(count)]
        os.sync()  # nobody pays for what was written before
        begun = time.perf_counter()
        for batch in batches:
            writer.record(batch)
        seconds = time.perf_counter() - begun
        writer.checkpoint(idle=True)
    return sum(map(len, batches)) / seconds


def _number(path: Path, sql: str) -> int:
    with Reader.open(path) as reader:
        return int(next(reader.query(sql)[1])[0])


# -- asking ------------------------------------------------------------------------------


def _answers(path: Path, asked: Iterable[Question]) -> Iterator[Answer]:
    with Progress(console=Console(stderr=True)) as progress:
        every = [*_commands(), *((each.title, each.is_bounded, _ask(each.sql)) for each in asked)]
        for title, is_bounded, ask in progress.track(every, description="asking"):
            with Reader.open(path) as reader:
                rows, first, _ = _timed(ask, reader)
                _, best, cpu = min(_timed(ask, reader) for _ in range(_WARM_RUNS))
            yield Answer(title, is_bounded, rows, round(best, 2), round(cpu, 2), round(first, 2))


def _timed(ask: Ask, reader: Reader) -> tuple[int, float, float]:
    """Return how many rows came, and the milliseconds by the clock and of the processor."""
    begun, used = time.perf_counter(), time.process_time()
    rows = ask(reader)
    return rows, (time.perf_counter() - begun) * 1000, (time.process_time() - used) * 1000


def _ask(sql: str) -> Ask:
    return lambda reader: len(list(reader.query(sql)[1]))


def _commands() -> list[tuple[str, bool, Ask]]:
    """Return what the commands ask of the index, by the words that are typed."""
    found: list[tuple[str, bool, Ask]] = [
        (f"find {words}", True, _find(words))
        for words in (
            "Müller",
            "mueller",
            "山田",
            "иванов",
            hospital.DAY,
            hospital.DAY[:7],
            hospital.DAY[:4],
            "MR",
            "thorax",
            hospital.ACCESSION_NUMBER,
            hospital.PATIENT_ID,
            hospital.STUDY_INSTANCE_UID,
            "Müller 2026-03",
            "nobody",
        )
    ]
    for level, uid in (("study", hospital.STUDY_INSTANCE_UID),
                       ("series", hospital.SERIES_INSTANCE_UID)):  # fmt: skip
        found.append((f"show <{level}>", True, _show_of(uid)))
    found.append(("show <instance>", True, _show_an_instance))
    found.append(("status", True, _overview))
    found.append(("receipt", True, _receipt))
    found.append(("problems", False, lambda reader: len(reader.problems())))
    found.append(("batches", False, _ask("SELECT * FROM batches")))
    return found


def _receipt(reader: Reader) -> int:
    (source,) = reader.sources_of_batch(hospital.BATCH)
    place = BatchInSpool(Spool(Path("/nowhere")), source, hospital.BATCH)
    with receipt_of(reader, Path("/nowhere"), place) as told:
        return sum(1 for _ in told.files())


def _find(words: str) -> Ask:
    return lambda reader: len(reader.find(words.split(), 100))


def _show_of(uid: str) -> Ask:
    def ask(reader: Reader) -> int:
        shown = reader.show(uid)
        assert shown is not None
        return len(shown.instances)

    return ask


def _show_an_instance(reader: Reader) -> int:
    sql = "SELECT max(sop_instance_uid) AS uid FROM instances WHERE series_instance_uid = ?"
    uid = reader.rows(sql, (hospital.SERIES_INSTANCE_UID,))[0]["uid"]
    return _show_of(uid)(reader)


def _overview(reader: Reader) -> int:
    with closing(connect_reader(reader.path)) as connection:
        from_index(connection, SystemClock())
    return 1


# -- telling -----------------------------------------------------------------------------


def _document(
    path: Path, filled: dict[str, float], answers: list[Answer], inserts: Inserts | None
) -> dict[str, type_json]:
    return {
        "machine": _machine(),
        "index": {
            "instances": _number(path, "SELECT count(*) FROM instances"),
            "studies": _number(path, "SELECT count(*) FROM studies"),
            "arrivals": _number(path, "SELECT count(*) FROM arrivals"),
            "size_bytes": path.stat().st_size,
            **filled,
        },
        "inserts": inserts and {
            "records_per_second_empty": [round(each) for each in inserts.empty],
            "records_per_second_full": [round(each) for each in inserts.full],
            "share": round(inserts.share, 2),
            "goal": _LEAST_SHARE,
            "is_met": inserts.share >= _LEAST_SHARE,
        },
        "queries": [
            {**asdict(each), "goal_ms": each.goal_ms, "is_met": each.is_met} for each in answers
        ],
    }  # fmt: skip


def _machine() -> dict[str, object]:
    return {
        "revision": _revision(),
        "sqlite": sqlite3.sqlite_version,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # not a clone


def _show(told: dict[str, type_json], answers: list[Answer], inserts: Inserts | None) -> None:
    console = Console(width=max(110, Console().width))
    for part in (told["machine"], told["index"]):
        console.print(", ".join(f"{key} {value}" for key, value in part.items()))
    if inserts is not None:
        met = "met" if inserts.share >= _LEAST_SHARE else "NOT MET"
        console.print(
            f"inserts: {statistics.median(inserts.empty):,.0f} records/s on an empty index, "
            f"{statistics.median(inserts.full):,.0f} on this one: {inserts.share:.2f} "
            f"(goal {_LEAST_SHARE}, {met})"
        )
    table = Table()
    table.add_column("question", overflow="fold")
    table.add_column("class")
    for column in ("rows", "ms", "CPU ms", "first ms", "goal ms"):
        table.add_column(column, justify="right")
    table.add_column("met")
    for each in answers:
        table.add_row(
            each.question,
            "bounded" if each.is_bounded else "whole",
            f"{each.rows:,}",
            f"{each.best_ms:,.1f}",
            f"{each.cpu_ms:,.1f}",
            f"{each.first_ms:,.1f}",
            f"{each.goal_ms:,.0f}",
            "yes" if each.is_met else "[red]NO[/red]",
        )
    console.print(table)
    missed = [each for each in answers if not each.is_met]
    console.print(f"{len(answers) - len(missed)} of {len(answers)} goals met")


if __name__ == "__main__":
    main()
