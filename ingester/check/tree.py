"""The archive's folders and the index's rows, side by side in one order.

Both come sorted by folder, so that the largest archive is compared with the memory
of one study's folder: a merge of two sorted streams, as one compares two lists.
Rows are fetched in pages, never in one long read that would keep the write-ahead log
of a running service from shrinking.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ingester.index.readers import Reader

_PAGE_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class KnownObject:
    """What the index says of one object's file, and of its derivatives' files."""

    path: str
    size_bytes: int
    sha256: str
    archived_at: str
    derivatives: tuple[str, ...]


@dataclass(slots=True)
class Folder:
    """One folder of the archive: files on disk by name, objects in the index by name.

    `error` says why a folder cannot be listed; what lies below it is not known then.
    """

    path: str
    error: OSError | None = None
    files: dict[str, os.stat_result] = field(default_factory=dict)
    objects: dict[str, KnownObject] = field(default_factory=dict)


def folders(root: Path, reader: Reader, ours: frozenset[str]) -> Iterator[Folder]:
    """Yield every folder that has files or rows; *ours* are names to pass over at the top."""
    on_disk = _on_disk(root, ours)
    in_index = _in_index(reader)
    disk, rows = next(on_disk, None), next(in_index, None)
    while disk is not None or rows is not None:
        if rows is None or (disk is not None and _key(disk.path) < _key(rows.path)):
            assert disk is not None  # one of the two is there
            yield disk
            disk = next(on_disk, None)
        elif disk is None or _key(rows.path) < _key(disk.path):
            yield rows
            rows = next(in_index, None)
        else:
            disk.objects = rows.objects
            yield disk
            disk, rows = next(on_disk, None), next(in_index, None)


class FileKind(Enum):
    """What a file below the archive is by its name and place."""

    OBJECT = "object"
    DERIVATIVE = "derivative"
    DAMAGED = "damaged"  # a copy that was set aside when a good one took its place
    STRAY = "stray"  # somebody else's


_DERIVATIVES = (".jpg", ".mp4")


def kind_of(folder: str, name: str, status: os.stat_result) -> FileKind:
    """Tell what a file is; links and what lies at the top are nobody's of ours."""
    if name.startswith(".damaged-"):
        return FileKind.DAMAGED
    if stat.S_ISREG(status.st_mode) and folder and not name.startswith("."):
        if name.endswith(".dcm"):
            return FileKind.OBJECT
        if name.endswith(_DERIVATIVES):
            return FileKind.DERIVATIVE
    return FileKind.STRAY


def all_files(root: Path, ours: frozenset[str]) -> Iterator[tuple[str, os.stat_result, FileKind]]:
    """Yield the path (relative), status and kind of every file of the tree.

    Raises
    ------
    OSError : a folder cannot be listed
    """
    for folder in _on_disk(root, ours):
        if folder.error is not None:
            raise folder.error
        for name, status in folder.files.items():
            path = f"{folder.path}/{name}" if folder.path else name
            yield path, status, kind_of(folder.path, name, status)


def _key(folder: str) -> str:
    # "a/b" sorts before "a.b" as folders, though not as strings of paths: the slash
    # that follows each name decides, here as in the order of the index.
    return folder + "/"


def _on_disk(root: Path, ours: frozenset[str]) -> Iterator[Folder]:
    """Walk in the order of `_key`; links are files here, never followed."""
    waiting = [""]
    while waiting:
        here, below = _listed(root, waiting.pop(), ours)
        if here.files or here.error is not None:
            yield here
        prefix = f"{here.path}/" if here.path else ""
        waiting += [prefix + name for name in sorted(below, key=_key, reverse=True)]


def _listed(root: Path, path: str, ours: frozenset[str]) -> tuple[Folder, list[str]]:
    """List one folder: its files, and the names of the folders in it."""
    here = Folder(path)
    below: list[str] = []
    try:
        with os.scandir(root / path) as entries:
            for entry in entries:
                if not path and entry.name in ours:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                    continue
                try:
                    here.files[entry.name] = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # went while we looked
    except OSError as error:
        if not path:
            raise
        if error.errno != errno.ENOENT:  # or it went while we looked
            here.error = error
    return here, below


def _in_index(reader: Reader) -> Iterator[Folder]:
    here: Folder | None = None
    for known in _known_objects(reader):
        folder, _, name = known.path.rpartition("/")
        if here is None or here.path != folder:
            if here is not None:
                yield here
            here = Folder(folder)
        here.objects[name] = known
    if here is not None:
        yield here


def _known_objects(reader: Reader) -> Iterator[KnownObject]:
    after = ""
    while True:
        page = reader.rows(
            "SELECT i.path, i.size_bytes, i.sha256, i.archived_at,"
            " t.path AS thumbnail, v.path AS video"
            " FROM instances AS i"
            " LEFT JOIN derivatives AS t ON t.instance_id = i.instance_id"
            " AND t.kind = 'thumbnail'"
            " LEFT JOIN derivatives AS v ON v.instance_id = i.instance_id AND v.kind = 'video'"
            " WHERE i.path > ? ORDER BY i.path LIMIT ?",
            (after, _PAGE_ROWS),
        )
        for row in page:
            made = tuple(path for path in (row["thumbnail"], row["video"]) if path)
            yield KnownObject(
                row["path"], row["size_bytes"], row["sha256"], row["archived_at"], made
            )
        if len(page) < _PAGE_ROWS:
            return
        after = page[-1]["path"]
