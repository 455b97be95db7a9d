"""Rows of files that bring others along: bombs, members that climb, a DICOMDIR that points."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from ingester.unpack import UnpackLimits
from tests.factory import encoded, instance, uid
from tests.hostile.files import zeros_deflated
from tests.hostile.trial import Case, Trial, aside, dropped
from tests.unit.test_unpack_dicomdir import dicomdir, record

#: By default the members of a zip are a tenth of a million: with this, a whole one.
MEMBERS = 1_000_000 if os.environ.get("INGESTER_HOSTILE") == "full" else 100_001


def zipped(entries: list[tuple[bytes, int, int, bytes]], *, is_overlapping: bool = False) -> bytes:
    """Return a zip of (name, mode, size unpacked, deflated bytes); checksums are zero."""
    body, directory = bytearray(), bytearray()
    for name, mode, size, packed in entries:
        offset = 0 if is_overlapping else len(body)
        plain = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
        if not is_overlapping or not body:
            body += b"PK\3\4" + plain + name + packed
        directory += b"PK\1\2" + struct.pack("<H", 3 << 8 | 20) + plain
        directory += struct.pack("<HHHLL", 0, 0, 0, mode << 16, offset) + name
    count = min(len(entries), 0xFFFF)
    end = struct.pack("<HHHHLLH", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory) + b"PK\5\6" + end


def _climbing(folder: Path) -> None:
    """Members that climb out are set aside one by one; the others arrive."""
    trial = Trial(folder)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("../../x", "/etc/x", "C:\\x", "a/../../x"):
            archive.writestr(name, b"kept")
        link = zipfile.ZipInfo("link")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("good", encoded(instance(1)))
    trial.drop(out.getvalue(), "box")
    trial.ingest()
    assert (
        trial.site.rows("SELECT reason FROM arrivals WHERE outcome = 'quarantined'")
        == ["archive-member-unsafe"] * 5
    )
    assert trial.site.outcomes() == {"unpacked": 1, "quarantined": 5, "archived": 2}
    assert not any(each.is_symlink() for each in trial.aside())
    trial.check()


def _pointing(folder: Path) -> None:
    """A DICOMDIR that names files outside is kept; nothing outside is looked at."""
    trial = Trial(folder)
    up = ["..", "..", "..", "outside", "precious.dcm"]
    directory = dicomdir(
        folder / "outside/DICOMDIR",
        record(up, uid(88, 1, 1, 1)),
        record("../../../outside/precious.dcm", uid(88, 1, 1, 1)),
        record("/etc/passwd", uid(1, 1, 1, 2)),
        record("IM1", uid(1, 1, 1, 1)),
    )
    trial.drop(directory.read_bytes(), "cd/DICOMDIR")
    directory.unlink()
    trial.drop(encoded(instance(1)), "cd/IM1")
    trial.ingest()
    assert trial.site.outcomes() == {"unpacked": 1, "archived": 2}
    assert uid(88, 1, 1, 1) not in trial.site.rows("SELECT sop_instance_uid FROM instances")
    trial.check()


def _raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


def _bomb(name: str, content: Callable[[], bytes], **limits: int) -> Case:
    return dropped(11, name, content, aside("bomb"), unpack_limits=UnpackLimits(**limits))


def _member(number: int) -> tuple[bytes, int, int, bytes]:
    return b"%d" % number, 0o100644, 0, b"\3\0"


CASES = [
    _bomb("zip-of-600-mib", lambda: zipped([(b"a", 0o100644, 600 << 20, zeros_deflated(600))])),
    _bomb(
        "total-size",
        lambda: zipped([(b"%d" % n, 0o100644, 9000, _raw_deflate(bytes(9000))) for n in range(9)]),
        total_bytes=80_000,
    ),
    _bomb(
        "overlapping",
        lambda: zipped(
            [(b"a", 0o100644, 1000, _raw_deflate(bytes(1000)))] * 3, is_overlapping=True
        ),
    ),
    _bomb("million-members", lambda: zipped([_member(n) for n in range(MEMBERS)])),
    Case(12, "members-that-climb", _climbing),
    Case(50, "dicomdir-that-climbs", _pointing),
]
