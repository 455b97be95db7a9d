"""Archive files of many objects, made quickly: one encoded object with other numbers."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tests.factory import encoded, instance, uid

Kind = Literal["zip", "tar", "tar.gz"]

_NUMBER = 10_000_000  # numbers of one length, so that no length in the object changes
_PER_SERIES = 100


def objects(count: int, edge: int = 8) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of *count* objects, some in folders; no two are equal.

    *edge* is the side of each image in pixels: 76 makes objects of about 12 KB.
    """
    template = encoded(instance(1, 1, _NUMBER, _NUMBER, rows=edge, columns=edge))
    old_instance = uid(1, 1, _NUMBER, _NUMBER).encode()
    old_series = uid(1, 1, _NUMBER).encode()
    for number in range(1, count + 1):
        series = _NUMBER + 1 + number // _PER_SERIES
        data = template.replace(old_instance, uid(1, 1, series, _NUMBER + number).encode())
        data = data.replace(old_series, uid(1, 1, series).encode())
        folder = f"SERIES{series - _NUMBER:04d}/" if number % 3 else ""
        yield f"{folder}IM{number:06d}", data


def make_archive(path: Path, count: int, edge: int = 8, kind: Kind = "zip") -> Path:
    """Write an archive file of so many objects."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, data in objects(count, edge):
                archive.writestr(zipfile.ZipInfo(name), data)
        return path
    mode: Literal["w|gz", "w|"] = "w|gz" if kind == "tar.gz" else "w|"
    with path.open("wb") as file, tarfile.open(fileobj=file, mode=mode) as tar:
        for name, data in objects(count, edge):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path
