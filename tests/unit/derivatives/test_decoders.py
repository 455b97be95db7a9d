"""Every compressed syntax is read, by whichever decoder is there, to the same samples."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.pixels.decoders.base import get_decoder

from ingester.derivatives import decoders
from ingester.derivatives.codestream import Family, parse
from ingester.derivatives.decoders import decode
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.layout import Layout
from ingester.model import DerivativeReason

GRAY8 = (np.add.outer(np.arange(40) * 3, np.arange(56) * 2) % 256).astype("u1")
GRAY16 = (np.add.outer(np.arange(40) * 41, np.arange(56) * 23) % 4096).astype("u2")
RGB8 = np.stack([GRAY8, GRAY8[::-1], 255 - GRAY8], axis=2)


def layout(samples: np.ndarray[Any, Any], colour: str, stored: int = 0) -> Layout:
    bits = samples.dtype.itemsize * 8
    return Layout(
        rows=samples.shape[0],
        columns=samples.shape[1],
        samples=samples.shape[2] if samples.ndim == 3 else 1,
        bits_allocated=bits,
        bits_stored=stored or bits,
        is_signed=samples.dtype.kind == "i",
        photometric_interpretation=colour,
    )


def encoder(function: Callable[..., Any], **options: Any) -> Callable[[Any], bytes]:
    return lambda samples: bytes(function(samples, **options))


LOSSLESS = {
    decoders.JPEG_LOSSLESS_SV1: encoder(imagecodecs.ljpeg_encode),
    decoders.JPEG_LS: encoder(imagecodecs.jpegls_encode),
    decoders.JPEG_2000_LOSSLESS: encoder(
        imagecodecs.jpeg2k_encode, level=0, codecformat="j2k", reversible=True
    ),
    decoders.HTJ2K_LOSSLESS: encoder(imagecodecs.htj2k_encode, reversible=True),
    decoders.JPEG_XL[0]: encoder(imagecodecs.jpegxl_encode, lossless=True),
}


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("samples", [GRAY8, GRAY16], ids=["8", "12"])
def test_lossless_is_lossless(syntax: str, samples: np.ndarray[Any, Any]) -> None:
    stored = 8 if samples.dtype == np.uint8 else 12
    found = decode(LOSSLESS[syntax](samples), syntax, layout(samples, "MONOCHROME2", stored))
    assert np.array_equal(found.samples, samples)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("samples", [GRAY8, GRAY16], ids=["8", "12"])
def test_decoders_agree(
    syntax: str, samples: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    present = decoders.installed()
    data = LOSSLESS[syntax](samples)
    stored = 8 if samples.dtype == np.uint8 else 12
    for name in decoders.ORDER[syntax]:
        if present[name]:
            monkeypatch.setitem(decoders.ORDER, syntax, (name,))
            found = decode(data, syntax, layout(samples, "MONOCHROME2", stored))
            assert found.decoder == name
            assert np.array_equal(found.samples, samples)


def test_imagecodecs_alone_reads_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for syntax, encode in LOSSLESS.items():
        if syntax == decoders.JPEG_LOSSLESS_SV1:
            continue  # its encoder is for gray only
        monkeypatch.setitem(decoders.ORDER, syntax, ("imagecodecs",))
        found = decode(encode(RGB8), syntax, layout(RGB8, "RGB"))
        assert np.array_equal(found.samples, RGB8), syntax
        assert found.layout.photometric_interpretation == "RGB"


def jpeg(samples: np.ndarray[Any, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(samples).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def without_markers(data: bytes) -> bytes:
    """Drop APP0, so that nothing tells the colour but the header."""
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


@pytest.mark.parametrize("declared", ["RGB", "YBR_FULL_422", "YBR_FULL"])
@pytest.mark.parametrize("name", ["pillow", "gdcm", "imagecodecs"])
def test_markers_beat_the_declared_colour(
    declared: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingester.derivatives.colour import rgb

    if not decoders.installed()[name]:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setitem(decoders.ORDER, decoders.JPEG_BASELINE, (name,))
    data = jpeg(RGB8, subsampling=0)
    found = decode(data, decoders.JPEG_BASELINE, layout(RGB8, declared))
    shown = rgb(found.samples, found.layout.photometric_interpretation, 8)
    wanted = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(shown.astype(int) - wanted.astype(int)).max() <= 2


def test_without_markers_the_declared_colour_holds() -> None:
    bare = without_markers(jpeg(RGB8, subsampling=0))
    as_ybr = decode(bare, decoders.JPEG_BASELINE, layout(RGB8, "YBR_FULL"))
    as_rgb = decode(bare, decoders.JPEG_BASELINE, layout(RGB8, "RGB"))
    ycbcr = np.asarray(Image.fromarray(RGB8).convert("YCbCr"))
    assert np.abs(as_ybr.samples.astype(int) - RGB8).mean() < 4
    assert np.abs(as_rgb.samples.astype(int) - ycbcr).mean() < 4
    subsampled = without_markers(jpeg(RGB8, subsampling=2))
    stream = parse(subsampled)
    assert stream is not None
    assert stream.photometric_interpretation("RGB") == "YBR_FULL"


def test_twelve_bit_jpeg() -> None:
    data = bytes(imagecodecs.jpeg8_encode(GRAY16, level=98, bitspersample=12))
    found = decode(data, decoders.JPEG_EXTENDED, layout(GRAY16, "MONOCHROME2", 12))
    assert found.decoder == "imagecodecs"
    assert np.abs(found.samples.astype(int) - GRAY16).mean() < 60


def test_a_cut_jpeg_is_shown_as_far_as_it_goes() -> None:
    data = jpeg(np.kron(GRAY8, np.ones((4, 4), "u1")))
    found = decode(data[: len(data) // 2], decoders.JPEG_BASELINE, layout(GRAY8, "MONOCHROME2"))
    assert found.is_partial
    assert found.samples.shape == (160, 224)


def test_the_codestream_tells_a_wrong_transfer_syntax() -> None:
    data = bytes(imagecodecs.jpegls_encode(GRAY16))
    found = decode(data, decoders.JPEG_BASELINE, layout(GRAY16, "MONOCHROME2", 12))
    assert np.array_equal(found.samples, GRAY16)


def test_the_codestream_tells_the_size_and_the_depth() -> None:
    data = bytes(imagecodecs.jpeg2k_encode(GRAY8, level=0, codecformat="j2k", reversible=True))
    wrong = Layout(7, 9, 1, 16, 16, False, "MONOCHROME2")
    found = decode(data, decoders.JPEG_2000, wrong)
    assert np.array_equal(found.samples, GRAY8)
    assert found.layout.bits_stored == 8


def test_deflated_frame() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = packer.compress(GRAY16.tobytes()) + packer.flush()
    found = decode(data, decoders.DEFLATED_FRAME, layout(GRAY16, "MONOCHROME2", 12))
    assert found.samples.tobytes() == GRAY16.tobytes()
    assert found.decoder == "zlib"


@pytest.mark.parametrize("syntax", [*LOSSLESS, decoders.JPEG_BASELINE, decoders.RLE])
@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51" * 9])
def test_rubbish_is_corrupt_pixels(syntax: str, data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data, syntax, layout(GRAY8, "MONOCHROME2"))
    assert caught.value.reason is DerivativeReason.CORRUPT_PIXELS


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.94", "1.2.3"])
def test_syntaxes_nobody_reads(syntax: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(b"\0" * 10, syntax, layout(GRAY8, "MONOCHROME2"))
    assert caught.value.reason is DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX


def test_imagecodecs_is_registered_once() -> None:
    decoders.initialise()
    decoders.initialise()
    for uid in decoders.DECODER_DEPENDENCIES:
        assert "imagecodecs" in get_decoder(uid).available_plugins


def test_libjpeg_of_pylibjpeg_is_never_named() -> None:
    # The plugin "pylibjpeg" is GPL code for JPEG and JPEG-LS, and ours for the rest.
    for syntax, order in decoders.ORDER.items():
        if syntax.startswith("1.2.840.10008.1.2.4.") and int(syntax.split(".")[-1]) < 90:
            assert "pylibjpeg" not in order


def test_run_lengths_cut_short() -> None:
    whole = imagecodecs.packbits_encode(GRAY8.tobytes())
    head = np.zeros(16, "<u4")
    head[:2] = 1, 64
    data = head.tobytes() + whole[: len(whole) // 2]
    found = decode(data, decoders.RLE, layout(GRAY8, "MONOCHROME2"))
    assert found.is_partial
    assert np.array_equal(found.samples[:500], GRAY8.ravel()[:500])


def test_families_are_told_by_their_first_bytes() -> None:
    streams = [parse(encode(GRAY8)) for encode in LOSSLESS.values()]
    assert {stream.family for stream in streams if stream} == {
        Family.JPEG_LOSSLESS,
        Family.JPEG_LS,
        Family.JPEG_2000,
        Family.HTJ2K,
        Family.JPEG_XL,
    }
