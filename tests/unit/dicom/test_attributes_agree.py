"""`headers.attributes` against pydicom, which knows nothing of the program."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pydicom
from pydicom import config
from pydicom.dataset import Dataset

from ingester.dicom.header import read_header
from ingester.errors import Reject
from tests.dicom_json import differences
from tests.factory import drop, instance

#: What pydicom itself cannot read.
UNREADABLE = {"badVR.dcm"}


def test_every_file_of_pydicoms_package_agrees() -> None:
    folder = Path(pydicom.__file__).parent / "data"
    compared = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in UNREADABLE:
            continue
        try:
            found = json.loads(read_header(str(path)).attributes)
        except Reject:
            continue
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            differing = differences(found, pydicom.dcmread(path, force=True))
        assert not differing, path
        compared += 1
    assert compared > 100


def test_long_values_of_unknown_representation_are_read_where_the_dictionary_knows_them(
    tmp_path: Path,
) -> None:
    """As they are in an explicit encoding; only what is binary is told by its length."""
    ds = instance()
    numbers = [f"{number}.5" for number in range(40)]
    ds.add_new(0x3004000C, "UN", "\\".join(numbers).encode())  # GridFrameOffsetVector
    ds.add_new(0x00190010, "LO", "AGFA")
    ds.add_new(0x00191010, "UN", b"EC=0.00\\LR=0.00" * 10)  # known to pydicom as text
    ds.add_new(0x00191099, "UN", b"\1\2\3\4" * 30)  # known to nobody
    ds.add_new(0x00091099, "UN", b"text without a creator" * 10)
    path = drop(tmp_path / "a.dcm", ds)
    found = json.loads(read_header(str(path)).attributes)
    assert found["GridFrameOffsetVector"] == [number + 0.5 for number in range(40)]
    assert found["AGFA:0019xx10"][0] == "EC=0.00"
    assert found["AGFA:0019xx99"] == {"bytes": 120}
    assert found["00091099"] == {"bytes": 220}
    assert not differences(found, pydicom.dcmread(path))


def test_a_million_unknown_values_cost_no_more_room_than_before(tmp_path: Path) -> None:
    ds = Dataset()
    ds.update(instance())
    for block in range(0x10, 0x30):
        ds.add_new((0x0019, block), "LO", f"NOBODY {block}")
        for number in range(0x40):
            ds.add_new((0x0019, block << 8 | number), "UN", bytes(range(256)) * 60)
    path = drop(tmp_path / "a.dcm", ds)
    found = json.loads(read_header(str(path)).attributes)
    assert path.stat().st_size > 30 << 20
    told = [value for name, value in found.items() if name.startswith("NOBODY")]
    assert told == [{"bytes": 256 * 60}] * (0x20 * 0x40)
