"""Rows of files that are what they are by their bytes alone: cut, bent, deep, bombs, liars."""

from __future__ import annotations

import pickle
import random
import zlib
from collections.abc import Callable
from pathlib import Path

from ingester.prepare import Limits
from tests.factory import encoded, instance
from tests.hostile.trial import (
    ARCHIVED,
    INPUT,
    Case,
    Expected,
    Trial,
    aside,
    dropped,
    foreign,
    noted,
)
from tests.unit.dicom import raw
from tests.unit.dicom.raw import el, explicit, implicit, item, open_sequence

_SEQUENCE = 0x00081115
_MEBIBYTE = 2**20


def zeros_deflated(mebibytes: int) -> bytes:
    """Return a deflate stream of so many MiB of zeros, without ever having them."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = engine.compress(bytes(_MEBIBYTE)) + engine.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15)
    return block * mebibytes + end.flush()


def nested(depth: int) -> bytes:
    head = el(_SEQUENCE, b"SQ", length=raw.UNDEFINED) + item(length=raw.UNDEFINED)
    return head * depth + (raw.ITEM_END + raw.SEQUENCE_END) * depth


def _deflated_bomb() -> bytes:
    pixels = 600 * _MEBIBYTE
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = explicit() + el(0x7FE00010, b"OW", length=pixels)
    start = engine.compress(head) + engine.flush(zlib.Z_FULL_FLUSH)
    return raw.part10(start + zeros_deflated(600), raw.DEFLATED)


def _with(**values: bytes | None) -> Callable[[], bytes]:
    return lambda: raw.part10(explicit("<", **values) + raw.PIXELS)


def _of(data_set: bytes, syntax: bytes = raw.EXPLICIT) -> Callable[[], bytes]:
    return lambda: raw.part10(data_set, syntax)


def _preamble(head: bytes) -> Callable[[], bytes]:
    return lambda: raw.part10(explicit() + raw.PIXELS, preamble=head.ljust(128, b"\0"))


def _whole() -> bytes:
    return encoded(instance(1))


def _private(count: int) -> bytes:
    creator = el(0x00090010, b"LO", b"HOSTILE ")
    tags = b"".join(
        el(group << 16 | 0x1000 + n, b"LO", b"x ")
        for group in range(0x0009, 0x0009 + 2 * (count // 200 + 1), 2)
        for n in range(200)
    )
    return creator + tags


def _uid(number: int, name: str, keyword: str, value: bytes, expected: Expected) -> Case:
    return dropped(number, name, _with(**{keyword: value}), expected)


def _regrown(folder: Path) -> None:
    """Pixel Data cut short is quarantined; when the file comes whole it is taken."""
    trial = Trial(folder)
    trial.drop(_whole()[:-100])
    trial.ingest()
    assert trial.rows_of(INPUT) == [("quarantined", "incomplete")]
    trial.drop(_whole())
    trial.site.ingest_all()
    assert trial.rows_of(INPUT)[1:] == [("archived", None)]
    trial.check()


def _first_wins(folder: Path) -> None:
    trial = Trial(folder)
    double = el(0x00100020, b"LO", b"ONE ") + el(0x00100020, b"LO", b"TWO ")
    trial.drop(raw.part10(explicit() + double))
    trial.ingest()
    assert {"duplicate-tags", "descending-tags"} <= trial.notes()
    assert "ONE" in trial.site.rows("SELECT patient_id FROM patients")
    assert "TWO" not in trial.site.rows("SELECT patient_id FROM patients")
    trial.check()


def _under_the_data_set_s(folder: Path) -> None:
    trial = Trial(folder)
    trial.drop(raw.part10(explicit(sop=b"1.2.3")))
    trial.ingest()
    assert trial.notes() == {"file-meta-uid-differs"}
    assert "1.2.3" in trial.site.rows("SELECT sop_instance_uid FROM instances")
    trial.check()


def _stripped(folder: Path) -> None:
    trial = Trial(folder)
    trial.drop(raw.part10(explicit(sop=b"1.2.3\0", study=b"1.2.4 ", series=b"1.2.5  \0")))
    trial.ingest()
    query = "SELECT sop_instance_uid, study_instance_uid, series_instance_uid FROM instances"
    assert ("1.2.3", "1.2.4", "1.2.5") in trial.site.rows(query)
    trial.check()


def _nothing_is_run(number: int, name: str, make: Callable[[Path], bytes]) -> Case:
    def run(folder: Path) -> None:
        trial = Trial(folder)
        canary = folder / "canary"
        trial.drop(make(canary))
        trial.ingest()
        assert trial.rows_of(INPUT) == [("foreign", "not-dicom")]
        assert not canary.exists()
        trial.check()

    return Case(number, name, run)


class Touch:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def _trailing(count: int) -> bytes:
    return raw.part10(explicit() + raw.PIXELS + el(0xFFFCFFFC, b"OB", bytes(count)))


_BARE = ("preamble-absent", "file-meta-absent")

CASES = [
    dropped(1, "empty", lambda: b"", foreign("empty")),
    dropped(2, "short", lambda: b"x", foreign("not-dicom")),
    dropped(2, "random", lambda: random.Random(2).randbytes(5000), foreign("not-dicom")),
    dropped(3, "cut-inside-file-meta", lambda: _whole()[:180], aside("incomplete")),
    dropped(4, "native-pixels-cut", lambda: _whole()[:-100], aside("incomplete")),
    Case(4, "comes-whole-later", _regrown),
    dropped(
        5,
        "encapsulated-without-end",
        _of(explicit() + el(0x7FE00010, b"OB", length=raw.UNDEFINED) + item(b"\xff\xd8"), raw.JPEG),
        aside("incomplete"),
    ),
    dropped(
        6,
        "length-of-4-gib",
        _of(explicit() + el(0x7FE00010, b"OW", bytes(1024), length=0xFFFFFFF0)),
        aside("incomplete"),
    ),
    dropped(
        7,
        "undefined-length-of-text",
        _of(explicit() + el(0x00400009, b"UT", length=raw.UNDEFINED) + raw.SEQUENCE_END),
        aside("malformed"),
    ),
    dropped(8, "nested-64", lambda: raw.part10(nested(64) + explicit()), ARCHIVED),
    dropped(8, "nested-65", lambda: raw.part10(nested(65) + explicit()), aside("too-deep")),
    dropped(8, "nested-200", lambda: raw.part10(nested(200) + explicit()), aside("too-deep")),
    dropped(8, "nested-5000", lambda: raw.part10(nested(5000) + explicit()), aside("too-deep")),
    dropped(
        9,
        "million-items",
        lambda: raw.part10(open_sequence(_SEQUENCE, item() * 1_000_000) + explicit()),
        aside("too-large"),
    ),
    dropped(
        9,
        "million-elements",
        lambda: raw.part10(explicit() + el(0x00400275, b"LO", b"") * 1_000_000),
        aside("too-large"),
    ),
    dropped(9, "private-tags", lambda: raw.part10(_private(200_000) + explicit()), ARCHIVED),
    dropped(10, "deflated-bomb", _deflated_bomb, aside("bomb")),
    _uid(13, "sop-uid-climbs", "sop", b"../../etc/cron.d/x", aside("unsafe-uid")),
    *(
        _uid(14, f"study-uid-{name}", "study", value, aside("unsafe-uid"))
        for name, value in {
            "slash": b"1.2/3",
            "nul": b"1.2\x003.4",
            "newline": b"1.2\n3",
            "10-kb": b"1" * 10_000,
            "dot": b".",
            "dots": b"..",
        }.items()
    ),
    _uid(14, "study-uid-empty", "study", b"", aside("no-study-instance-uid")),
    _uid(15, "sop-uid-of-64", "sop", b"1." + b"2" * 62, ARCHIVED),
    _uid(15, "sop-uid-of-65", "sop", b"1." + b"2" * 63, aside("unsafe-uid")),
    Case(15, "padding-is-stripped", _stripped),
    _uid(15, "leading-zero", "sop", b"1.02.3", noted("uid-not-well-formed")),
    _uid(16, "arabic-digits", "study", "1.2.٣".encode(), aside("unsafe-uid")),
    _uid(16, "bidi", "study", "1.2\u202e.3".encode(), aside("unsafe-uid")),
    _uid(16, "nul-inside", "sop", b"1.2\x00.3", aside("unsafe-uid")),
    *(
        dropped(24, name, _preamble(head), noted("executable-preamble"))
        for name, head in {
            "pe": b"MZ\x90\0",
            "elf": b"\x7fELF\2\1\1",
            "mach-o": b"\xcf\xfa\xed\xfe",
            "script": b"#!/bin/sh\nrm -rf /\n",
        }.items()
    ),
    dropped(24, "tiff", _preamble(b"II*\0"), ARCHIVED),
    *(
        dropped(25, name, _preamble(head), noted("polyglot-preamble"))
        for name, head in {
            "html": b"<html><script>alert(1)</script>",
            "pdf": b"%PDF-1.7\n",
            "zip": b"PK\3\4\x14\0\0\0",
        }.items()
    ),
    dropped(
        25,
        "html-in-padding",
        _of(explicit() + raw.PIXELS + el(0xFFFCFFFC, b"OB", b"<script>alert(1)</script> ")),
        ARCHIVED,
    ),
    dropped(
        26,
        "zeros",
        lambda: raw.part10(explicit() + raw.PIXELS + bytes(99)),
        noted("trailing-zeros"),
    ),
    dropped(26, "padding", lambda: _trailing(1 << 20), ARCHIVED),
    dropped(
        26,
        "padding-beyond-the-limit",
        lambda: _trailing(1 << 20),
        aside("too-large"),
        limits=Limits(object_bytes=1 << 20),
    ),
    dropped(
        26,
        "other-bytes",
        lambda: raw.part10(explicit() + raw.PIXELS + b"junk and more"),
        aside("malformed"),
    ),
    dropped(27, "bare-explicit", lambda: explicit() + raw.PIXELS, noted(*_BARE)),
    dropped(27, "bare-implicit", implicit, noted(*_BARE)),
    dropped(27, "bare-without-study", lambda: explicit(study=None), aside("no-study-instance-uid")),
    dropped(27, "bare-nonsense", lambda: b"\x08\0\x05\0" * 300, foreign("not-dicom")),
    dropped(28, "called-explicit", _of(implicit()), noted("encoding-differs")),
    dropped(28, "called-implicit", _of(explicit(), raw.IMPLICIT), noted("encoding-differs")),
    dropped(28, "called-big", _of(explicit(), raw.BIG), noted("encoding-differs")),
    dropped(
        28,
        "unknown-vr",
        _of(explicit() + el(0x00400009, b"ZZ", b"abcd")),
        noted("unknown-vr"),
    ),
    dropped(28, "wrong-vr", _of(explicit() + el(0x00280010, b"LO", b"abcd")), ARCHIVED),
    dropped(28, "odd-length", _of(explicit() + el(0x00400009, b"LO", b"abc")), noted("odd-length")),
    dropped(
        28,
        "no-encoding-fits",
        _of(explicit() + bytes(range(1, 200)) + raw.PIXELS),
        aside("malformed"),
    ),
    Case(29, "file-meta-uid", _under_the_data_set_s),
    dropped(
        30,
        "group-0002",
        _of(el(0x00020010, b"UI", b"1.2 ") + explicit()),
        noted("file-meta-in-data-set"),
    ),
    dropped(
        30,
        "group-0000",
        _of(el(0x00000100, b"US", b"\1\0") + explicit()),
        noted("command-group-in-data-set"),
    ),
    dropped(
        31,
        "descending",
        _of(explicit() + el(0x00080070, b"LO", b"AB")),
        noted("descending-tags"),
    ),
    Case(31, "first-wins", _first_wins),
    dropped(
        31,
        "two-studies",
        _of(explicit() + el(0x0020000D, b"UI", b"1.2.3\0") + raw.PIXELS),
        aside("malformed"),
    ),
    _nothing_is_run(59, "pickle", lambda canary: pickle.dumps(Touch(canary))),
    _nothing_is_run(
        59, "yaml", lambda canary: f"!!python/object/apply:os.mknod ['{canary}']\n".encode()
    ),
    _nothing_is_run(
        59, "python", lambda canary: f"#!/usr/bin/python3\nopen({str(canary)!r}, 'w')\n".encode()
    ),
]
