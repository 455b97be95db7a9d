"""A CD as a modality burns it: numbered folders, a DICOMDIR, a viewer nobody asked for."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from tests.factory import encoded, instance


def burn(folder: Path, objects: Iterable[Dataset] | None = None) -> Path:
    """Write a CD into *folder*: two series of five images, unless *objects* are given."""
    if objects is None:
        objects = [instance(1, 1, series, n) for series in (1, 2) for n in range(1, 6)]
    with warnings.catch_warnings():
        # It tidies its temporary folder away when it is forgotten, and warns of that.
        warnings.simplefilter("ignore", ResourceWarning)
        _write_file_set(folder, objects)
        gc.collect()
    (folder / "autorun.inf").write_text("[autorun]\nopen=viewer.exe\n")
    (folder / "viewer.exe").write_bytes(b"MZ" + bytes(3000))
    (folder / "README.TXT").write_text("Open viewer.exe to see the images.\n" * 20)
    return folder


def _write_file_set(folder: Path, objects: Iterable[Dataset]) -> None:
    files = FileSet()
    for ds in objects:
        files.add(dcmread(BytesIO(encoded(ds))))
    files.write(folder)


def images(cd: Path) -> list[Path]:
    """Return the objects on a CD, in the order of their paths."""
    return sorted(path for path in cd.glob("PT*/**/*") if path.is_file())


def respell(cd: Path, *, is_lower: bool = False, suffix: str = "") -> None:
    """Let every name look as another system shows it: in lower case, or with `;1`."""
    for path in sorted(cd.rglob("*"), key=lambda each: -len(each.parts)):
        name = path.name + (suffix if path.is_file() else "")
        path.rename(path.with_name(name.lower() if is_lower else name))
