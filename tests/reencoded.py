"""Real files written again: the same values, as other programs encode them.

`real_files` are those in pydicom's package; `by_pydicom` yields each file's values in
every uncompressed encoding that pydicom can write it in.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ingester.model import Instance
from ingester.prepare import Limits, PrepareRequest, prepare

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
#: Long values, which pydicom leaves in the order they are in: bytes of a word.
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}

#: pydicom reads such files otherwise than we do, or only part of them, and text that it
#: cannot decode it writes as other text.
_READ_OTHERWISE = {
    "duplicate-tags",
    "encoding-differs",
    "form-of-length",
    "undecodable-text",
    "unknown-vr",
    "unreadable-sequence",
}


def real_files() -> list[Path]:
    """Return every file of pydicom's package that is a DICOM object, or nearly one."""
    data = Path(pydicom.__file__).parent / "data"
    folders = ("test_files", "charset_files", "palettes")
    return sorted(each for name in folders for each in (data / name).rglob("*") if each.is_file())


def instance_of(path: Path) -> Instance | None:
    """Return what the archive reads in a file, None where it is no object."""
    found = prepare(PrepareRequest(str(path), "read", "", True, "", "", Limits())).found
    return found if isinstance(found, Instance) else None


def by_pydicom(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (encoding, file) of what pydicom writes for an uncompressed object."""
    found = instance_of(path)
    if found is None or _READ_OTHERWISE & set(found.notes):
        return
    for syntax in SYNTAXES:
        try:
            written = _written(path, syntax)
        except Exception:  # noqa: BLE001 - what pydicom cannot write it raises anything at
            continue
        if written is not None:
            yield UID(syntax).name, written


def _written(path: Path, syntax: str) -> bytes | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = dcmread(path)
        declared = read.file_meta.TransferSyntaxUID
        if declared.is_compressed and not declared.is_deflated:
            return None
        ds = _without_history(read)
        ds.file_meta = read.file_meta
        if (syntax == ExplicitVRBigEndian) != (declared == ExplicitVRBigEndian):
            turn_words(ds)
        if any(each.tag.is_private_creator and each.VR == "SQ" for each in ds):
            return None  # against the rules, and without its VR nobody can know it
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        out = BytesIO()
        ds.save_as(out, enforce_file_format=True)
        return out.getvalue()


def _without_history(ds: Dataset) -> Dataset:
    """Return the same elements as values: pydicom turns no bytes that it has read."""
    fresh = Dataset()
    for element in ds:
        if element.VR == "SQ":
            element.value = [_without_history(item) for item in element.value]
        fresh.add(element)
    return fresh


def turn_words(ds: Dataset) -> None:
    """Put long values into the other byte order, which pydicom leaves to its caller."""
    for element in list(ds):
        if element.VR == "SQ":
            for item in element.value:
                turn_words(item)
        elif element.VR in _WORDS and isinstance(element.value, bytes):
            word, value = _WORDS[element.VR], element.value
            turned = b"".join(value[at : at + word][::-1] for at in range(0, len(value), word))
            ds[element.tag] = DataElement(element.tag, element.VR, turned)
