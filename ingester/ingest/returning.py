"""Sending quarantined files back into the spool, each as a new arrival.

One after the other would cost a handful of flushes per file; so files go together, and
each step is flushed for all of them before the next begins.  The order is what a crash
may interrupt anywhere: the next start finds `retried_as` in the reason and goes on.

    reason.json names the new arrival (flushed)
    the file renamed to where its source, batch and id are in its path (flushed)
    the rows name the new arrivals (one transaction)
    the folders in quarantine removed
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ingester import durable
from ingester.archive import remove_tree
from ingester.claims import REASON
from ingester.index.writer import Writer
from ingester.model import Clock, moment, new_id
from ingester.quarantine import Quarantined, file_in
from ingester.spool import Spool, handed_over

_T = TypeVar("_T")

_FILE_MODE = 0o640
_TOGETHER = 128
_FLUSHERS = 8
_SHORTEST = 6


@dataclass(slots=True)
class Returned:
    """What was sent back, as (old id, new id), and what could not be, with the reason."""

    retried: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Return:
    """A file on its way back: its folder in quarantine, and what its reason says now."""

    folder: Path
    told: Quarantined
    new_id: str


def send_back(
    spool: Spool,
    writer: Writer,
    words: Iterable[str],
    clock: Clock,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> Returned:
    """Send files back; *words* are their ids, or beginnings that only one has.

    *meanwhile* is called between parts, for whatever cannot wait so long.

    Raises
    ------
    OSError, Retry : the world's fault; what was begun is finished at the next start
    """
    done, seen = Returned(), set[str]()
    # Listed once; what came to lie there since is not meant.
    names = sorted(path.name for path in spool.quarantine_folder.iterdir())
    ids = frozenset(names)
    with ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="flush") as pool:
        for part in _parts(words, _TOGETHER):
            meant = []
            for text in part:
                name = _named(names, text)
                if name in seen:
                    continue  # two words may mean one file
                found = _meant(spool, name, clock) if name in ids else name
                if isinstance(found, str):
                    done.failed.append((text, found))
                else:
                    seen.add(name)
                    meant.append(found)
            _send_together(spool, writer, meant, clock, pool)
            done.retried += [(each.told.arrival_id, each.new_id) for each in meant]
            meanwhile()
    return done


def _parts(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    left = iter(dict.fromkeys(items))
    while part := list(islice(left, size)):
        yield part


def _named(names: Sequence[str], text: str) -> str:
    """Return the folder that is called so, or in words why there is none."""
    at = bisect_left(names, text)
    found = [text] if names[at : at + 1] == [text] else []
    if not found and len(text) >= _SHORTEST:
        found = [name for name in names[at : at + 2] if name.startswith(text)]
    if len(found) > 1:
        return f"several quarantined files begin so: {', '.join(found)}, …"
    return found[0] if found else "there is no such file in quarantine"


def _meant(spool: Spool, name: str, clock: Clock) -> _Return | str:
    folder = spool.quarantine_folder / name
    told = Quarantined.read(folder)
    if told is None:
        return "its reason.json cannot be read: put the file itself into a drop folder"
    if told.retried_as is None and file_in(folder) is None:
        return "it has a reason but no file: there is nothing to send back"
    return _Return(folder, told, told.retried_as or new_id(clock.now()))


def _send_together(
    spool: Spool, writer: Writer, meant: Sequence[_Return], clock: Clock, pool: Executor
) -> None:
    if not meant:
        return
    list(pool.map(_name_successor, meant))
    changed: set[Path] = set()
    for each in meant:
        changed |= _put_back(spool, each)
    for level in durable.deepest_first(changed):
        list(pool.map(_flush_names, level))
    list(pool.map(_flush_names, [each.folder for each in meant]))
    writer.mark_all_retried([(each.told.arrival_id, each.new_id) for each in meant], _now(clock))
    for each in meant:
        remove_tree(each.folder)


def _flush_names(folder: Path) -> None:
    durable.flush_folder(folder)


def _name_successor(each: _Return) -> None:
    if each.told.retried_as is None:
        told = replace(each.told, retried_as=each.new_id)
        durable.replace_file(each.folder / REASON, told.as_json(), _FILE_MODE)


def _put_back(spool: Spool, each: _Return) -> set[Path]:
    """Give a file its name in the spool; returns the folders whose listing changed."""
    path = file_in(each.folder)
    if path is None:
        return set()  # an earlier attempt came so far
    told = each.told
    back = spool.root / handed_over(told.source, told.batch, each.new_id, told.original_name)
    made = durable.make_folders(spool.root, back.parent, spool.mode & 0o777)
    durable.rename(path, back)
    return {*made, back.parent}


def _now(clock: Clock) -> str:
    return moment(clock.now())
