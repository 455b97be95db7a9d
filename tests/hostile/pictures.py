"""Rows of pixels that attack decoders: archived all the same, and a picture or a reason why not.

What is decoded is decoded in the workers that the service has, within their limits.
"""

from __future__ import annotations

import io
import os
import random
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from ingester.archive import derivative_path
from ingester.derivatives import decoders
from ingester.derivatives.request import Allowance, DeriveRequest, allowance
from ingester.derivatives.schedule import Derivations, DerivationSettings
from ingester.derivatives.worker import Deriver
from ingester.index.writer import Writer
from ingester.model import Kind, SystemClock
from tests.factory import encoded, instance, uid
from tests.hostile.trial import Case, Trial
from tests.unit.derivatives import targets
from tests.unit.derivatives.films import cine, endoscopy
from tests.unit.derivatives.test_decoders import GRAY8, LOSSLESS

MADE = "made"
CORRUPT = "corrupt-pixels"
CRASHED = "decoder-crashed"
TOO_LARGE = "too-large"
TIMEOUT = "timeout"
#: How long a decoder may work here (seconds of CPU); with the whole table as the service lets it.
CPU_SECONDS = None if os.environ.get("INGESTER_HOSTILE") == "full" else 2
_SCANS = 80_000
_EDGE = 2048
_MPEG4 = "1.2.840.10008.1.2.4.102"

Picture = tuple[Callable[[], bytes], Kind, frozenset[str]]


def _allowed(request: DeriveRequest) -> Allowance:
    full = allowance(request)
    return full if CPU_SECONDS is None else replace(full, cpu_seconds=CPU_SECONDS)


def derive_all(trial: Trial, **how: Any) -> None:
    """Make every pending derivative in a worker, as the service does."""
    ready = threading.Event()
    writer = Writer.open(trial.site.index)
    root = trial.site.archive.root
    try:
        with Deriver(1, on_ready=ready.set, **how) as deriver:
            settings = DerivationSettings()
            work = Derivations(
                writer, root, deriver, settings, SystemClock(), path_of=derivative_path
            )
            while work.turn():
                assert ready.wait(90)
                ready.clear()
            assert work.trouble is None
    finally:
        writer.close()
    assert os.listdir(trial.site.archive.staging) == []


def pictures(number: int, name: str, made: dict[str, Picture], **how: Any) -> Case:
    """Return the row of objects that are archived, each with what may become of its picture."""

    def run(folder: Path) -> None:
        trial = Trial(folder)
        for each, (content, _, _) in made.items():
            trial.drop(content(), each)
        trial.ingest()
        derive_all(trial, **how)
        for each, (_, kind, expected) in made.items():
            assert trial.rows_of(each) == [("archived", None)], each
            ((status, reason),) = trial.site.rows(
                "SELECT status, d.reason FROM derivatives AS d JOIN arrivals USING (instance_id)"
                " WHERE original_name = ? AND kind = ?",
                each,
                kind,
            )
            assert (reason or status) in expected, (each, status, reason)
        status = trial.site.rows(
            "SELECT status FROM derivatives JOIN arrivals USING (instance_id)"
            " WHERE original_name = 'neighbour' AND kind = 'thumbnail'"
        )
        assert status == [MADE]
        trial.check()

    return Case(number, name, run)


def still(number: int, *expected: str, **overrides: Any) -> Picture:
    return lambda: encoded(instance(number, **overrides)), Kind.THUMBNAIL, frozenset(expected)


def squeezed(number: int, data: bytes, syntax: str, **overrides: Any) -> bytes:
    """Return an 8-bit object of one compressed frame."""
    height, width = GRAY8.shape
    values = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, **overrides}
    ds = instance(number, rows=height, columns=width, **values)
    ds.PixelData = encapsulate([data])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return encoded(ds, syntax)


def _huge(kind: str) -> Dataset:
    ds = instance(1 if kind == "none" else 2, Rows=65535, Columns=65535)
    ds.SOPInstanceUID = uid(32, 1, 1, len(kind))
    ds.NumberOfFrames = 2**31 - 1
    if kind == "none":
        del ds.PixelData
    return ds


def _palette(number: int, descriptor: list[int], data: bytes) -> Picture:
    overrides: dict[str, Any] = {
        "PhotometricInterpretation": "PALETTE COLOR",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelData": bytes(range(256)),
    }
    for colour in ("Red", "Green", "Blue"):
        overrides[f"{colour}PaletteColorLookupTableDescriptor"] = descriptor
        overrides[f"{colour}PaletteColorLookupTableData"] = data
    return still(number, MADE, CORRUPT, **overrides)


def fuzzed() -> dict[str, Picture]:
    """Return frames of every family with bytes changed, and such as hold none at all."""
    random_ = random.Random(35)
    out = io.BytesIO()
    Image.fromarray(GRAY8).save(out, "JPEG")
    whole = {syntax: encode(GRAY8) for syntax, encode in LOSSLESS.items()}
    whole[decoders.JPEG_BASELINE] = out.getvalue()
    whole[decoders.RLE] = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x07" * 18
    found: dict[str, Picture] = {}
    number = 350
    for syntax, data in whole.items():
        bent = bytearray(data)
        for _ in range(max(3, len(bent) // 50)):
            bent[random_.randrange(len(bent) // 10, len(bent))] = random_.randrange(256)
        for name, frame, expected in (
            ("bent", bytes(bent), {MADE, CORRUPT, CRASHED}),
            ("rubbish", b"\xff\x4f\xff\x51" * 9, {CORRUPT, CRASHED}),
        ):
            number += 1
            content = squeezed(number, frame, syntax)
            found[f"{name}-{syntax}"] = (
                lambda content=content: content,  # type: ignore[misc]  # bound now
                Kind.THUMBNAIL,
                frozenset(expected),
            )
    return found


def _many_scans() -> bytes:
    # A plain picture: each scan is a few bytes that make the decoder visit every block.
    out = io.BytesIO()
    plain = np.full((_EDGE, _EDGE), 90, np.uint8)
    Image.fromarray(plain).save(out, "JPEG", progressive=True, quality=90)
    data = out.getvalue()
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:last] + data[last:end] * _SCANS + b"\xff\xd9"


def _large_codestream() -> bytes:
    data = bytearray(LOSSLESS[decoders.JPEG_2000_LOSSLESS](GRAY8))
    for at in (8, 12, 24, 28):  # width, height, and those of a tile
        struct.pack_into(">L", data, at, 60_000)
    return bytes(data)[:1024]


def _crashing(folder: Path) -> None:
    """A decoder that ends with SIGSEGV costs its own picture; it is not tried for ever."""
    trial = Trial(folder)
    trial.ingest()
    seen: list[int] = []

    def allowed(request: DeriveRequest) -> Allowance:
        seen.append(request.instance_id)
        return allowance(request)

    with Deriver(
        1, on_ready=(ready := threading.Event()).set, target=_CRASHING, allowed=allowed
    ) as deriver:
        for number in (targets.SEGFAULT, 1):
            deriver.submit(
                DeriveRequest(
                    instance_id=number,
                    path=str(folder / "none"),
                    path_in_archive="X/1.dcm",
                    staging=str(folder / f"derive-{number}"),
                    kinds=frozenset({Kind.THUMBNAIL}),
                )
            )
        found = []
        while deriver.pending:
            assert ready.wait(60)
            ready.clear()
            found += deriver.results()
    reasons = {each.instance_id: each.made[0].reason for each in found}
    assert reasons == {targets.SEGFAULT: CRASHED, 1: None}
    assert seen.count(targets.SEGFAULT) <= 3
    for number in (targets.SEGFAULT, 1):
        for path in (folder / f"derive-{number}").iterdir():
            path.unlink()
        (folder / f"derive-{number}").rmdir()
    trial.check()


_CRASHING = "tests.unit.derivatives.targets:by_number"


def _playlist(number: int, text: bytes) -> Picture:
    def make() -> bytes:
        ds = endoscopy(text + b" " * (len(text) % 2), 10)
        ds.SOPInstanceUID = uid(38, 1, 1, number)
        return encoded(ds, _MPEG4)

    return make, Kind.VIDEO, frozenset({CORRUPT})


CASES = [
    pictures(
        32,
        "65535-squared",
        {
            "none": (lambda: encoded(_huge("none")), Kind.VIDEO, frozenset({"no-pixels"})),
            "short": (
                lambda: encoded(_huge("short")),
                Kind.THUMBNAIL,
                frozenset({MADE, CORRUPT, TOO_LARGE}),
            ),
            "encapsulated": (
                lambda: squeezed(
                    32,
                    _large_codestream(),
                    decoders.JPEG_2000_LOSSLESS,
                    Rows=65535,
                    Columns=65535,
                    NumberOfFrames=2**31 - 1,
                ),
                Kind.THUMBNAIL,
                frozenset({TOO_LARGE}),
            ),
        },
    ),
    pictures(
        33,
        "impossible-depths",
        {
            "bits-0": still(1, CORRUPT, MADE, BitsAllocated=0),
            "bits-3": still(2, CORRUPT, MADE, BitsAllocated=3),
            "bits-64": still(3, CORRUPT, MADE, BitsAllocated=64),
            "samples-0": still(4, CORRUPT, MADE, SamplesPerPixel=0),
            "samples-255": still(5, CORRUPT, MADE, SamplesPerPixel=255),
            "high-bit": still(6, CORRUPT, MADE, HighBit=15, BitsStored=8),
            "high-bit-40": still(7, CORRUPT, MADE, HighBit=40),
        },
    ),
    pictures(
        34,
        "palettes",
        {
            "short-table": _palette(1, [256, 0, 16], bytes(10)),
            "index-beyond": _palette(2, [4, 200, 16], bytes(8)),
            "no-entries": _palette(3, [0, 65535, 3], b""),
        },
    ),
    pictures(35, "fuzzed", fuzzed()),
    Case(35, "decoder-segfaults", _crashing),
    pictures(
        36,
        "80000-scans",
        {
            "scans": (
                lambda: squeezed(
                    36, _many_scans(), "1.2.840.10008.1.2.4.50", Rows=_EDGE, Columns=_EDGE
                ),
                Kind.THUMBNAIL,
                frozenset({TIMEOUT}),
            ),
        },
        allowed=_allowed,
    ),
    pictures(
        37,
        "60000-squared",
        {
            "declared": (
                lambda: squeezed(
                    37,
                    _large_codestream(),
                    decoders.JPEG_2000_LOSSLESS,
                    Rows=60_000,
                    Columns=60_000,
                ),
                Kind.THUMBNAIL,
                frozenset({TOO_LARGE}),
            ),
            # The header says that it is small: refused for the contradiction, also unread.
            "hidden": (
                lambda: squeezed(38, _large_codestream(), decoders.JPEG_2000_LOSSLESS),
                Kind.THUMBNAIL,
                frozenset({CORRUPT, TOO_LARGE}),
            ),
        },
    ),
    pictures(
        38,
        "playlists",
        {
            "hls": _playlist(1, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
            "concat": _playlist(2, b"ffconcat version 1.0\nfile /etc/passwd\n"),
            "url": _playlist(3, b"file:///etc/passwd"),
        },
    ),
    pictures(
        39,
        "10000-frames",
        {
            "cine": (
                lambda: encoded(cine(10_000, 16, 16)),
                Kind.VIDEO,
                frozenset({MADE, TOO_LARGE}),
            )
        },
    ),
]
