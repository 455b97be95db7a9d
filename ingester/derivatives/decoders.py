"""From a compressed frame to samples: which decoder, in which order.

Each transfer syntax has an order of decoders, the fastest correct one first; those
that are not installed are left out, and where one refuses a frame the next is
asked.  imagecodecs reads all of them and is always there: it is registered with
pydicom as one more plugin, and a plugin is always named, never left to pydicom's
own order.  JPEG through Pillow, JPEG XL, deflated frames and encapsulated native
frames do not go through pydicom at all.

    initialise()                              once per process
    decode(codestream, syntax, layout)        samples, their colour, who did it
"""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder

from ingester.derivatives import plain
from ingester.derivatives.codestream import Codestream, Family, parse
from ingester.derivatives.errors import DecodeError
from ingester.derivatives.layout import Decoded, Layout, frame_bytes
from ingester.model import DerivativeReason

logger = logging.getLogger(__name__)

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE = "1.2.840.10008.1.2.5"
JPEG_XL = ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"

#: The order of decoders per transfer syntax.
ORDER: dict[str, tuple[str, ...]] = {
    JPEG_BASELINE: ("pillow", "gdcm", "imagecodecs"),
    JPEG_EXTENDED: ("pillow", "gdcm", "imagecodecs"),
    JPEG_LOSSLESS: ("imagecodecs", "gdcm"),
    JPEG_LOSSLESS_SV1: ("imagecodecs", "gdcm"),
    JPEG_LS: ("pyjpegls", "imagecodecs", "gdcm"),
    JPEG_LS_NEAR: ("pyjpegls", "imagecodecs", "gdcm"),
    JPEG_2000_LOSSLESS: ("gdcm", "pylibjpeg", "pillow", "imagecodecs"),
    JPEG_2000: ("gdcm", "pylibjpeg", "pillow", "imagecodecs"),
    HTJ2K_LOSSLESS: ("imagecodecs", "pylibjpeg"),
    HTJ2K_RPCL: ("imagecodecs", "pylibjpeg"),
    HTJ2K: ("imagecodecs", "pylibjpeg"),
    RLE: ("pylibjpeg", "pydicom", "segments"),
    DEFLATED_FRAME: ("zlib",),
    ENCAPSULATED_UNCOMPRESSED: ("copy",),
    **dict.fromkeys(JPEG_XL, ("imagecodecs",)),
}

#: What a family of codestreams may be declared as, the usual one first.
SYNTAXES: dict[Family, tuple[str, ...]] = {
    Family.JPEG: (JPEG_BASELINE, JPEG_EXTENDED),
    Family.JPEG_LOSSLESS: (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS),
    Family.JPEG_LS: (JPEG_LS_NEAR, JPEG_LS),
    Family.JPEG_2000: (JPEG_2000, JPEG_2000_LOSSLESS),
    Family.HTJ2K: (HTJ2K, HTJ2K_LOSSLESS, HTJ2K_RPCL),
    Family.JPEG_XL: JPEG_XL,
}

#: What each decoder's version is recorded as.
PACKAGES = {
    "pillow": "Pillow",
    "gdcm": "python-gdcm",
    "pylibjpeg": "pylibjpeg",
    "pyjpegls": "pyjpegls",
    "imagecodecs": "imagecodecs",
    "pydicom": "pydicom",
}

#: pydicom asks a plugin module for these three (see `Decoder.add_plugin`).
DECODER_DEPENDENCIES = dict.fromkeys(
    (
        *(JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1),
        *(JPEG_LS, JPEG_LS_NEAR, JPEG_2000_LOSSLESS, JPEG_2000),
        *(HTJ2K_LOSSLESS, HTJ2K_RPCL, HTJ2K),
    ),
    ("imagecodecs",),
)


def is_available(uid: str) -> bool:
    """Tell pydicom that imagecodecs is here."""
    return uid in DECODER_DEPENDENCIES


_is_initialised = False


def initialise() -> None:
    """Register imagecodecs with pydicom, once per process, before threads start."""
    global _is_initialised
    if _is_initialised:
        return
    _is_initialised = True
    # pydicom logs header values; what we need to know comes as exceptions.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    for uid in DECODER_DEPENDENCIES:
        get_decoder(uid).add_plugin("imagecodecs", (__name__, "decode_for_pydicom"))
    Image.MAX_IMAGE_PIXELS = None  # sizes are checked by us, before


def versions(decoder: str) -> dict[str, str]:
    """Return the version of a decoder's package, for the record."""
    package = PACKAGES.get(decoder)
    if package is None:
        return {}
    try:
        return {package: version(package)}
    except PackageNotFoundError:
        return {}


def syntax_of(declared: str, codestream: Codestream | None) -> str:
    """Return the transfer syntax a frame really has.

    The declared one stands unless the codestream belongs to another family.
    """
    if codestream is None:
        return declared
    candidates = SYNTAXES[codestream.family]
    if declared in candidates:
        return declared
    if codestream.family is Family.HTJ2K and declared in SYNTAXES[Family.JPEG_2000]:
        return HTJ2K
    return candidates[0]


def decode(data: bytes, syntax: str, layout: Layout) -> Decoded:
    """Decode one frame by the first decoder that can.

    Raises
    ------
    DecodeError
        `unsupported-transfer-syntax` where nobody reads the syntax, and
        `corrupt-pixels` where nobody can make sense of the frame.
    """
    initialise()
    stream = parse(data)
    syntax = syntax_of(syntax, stream)
    order = ORDER.get(syntax)
    if order is None:
        raise DecodeError(
            DerivativeReason.UNSUPPORTED_TRANSFER_SYNTAX,
            f"no decoder reads transfer syntax {syntax or '(none)'}",
        )
    if stream is None and 0 <= len(data) - frame_bytes(layout) <= 1:
        syntax = ENCAPSULATED_UNCOMPRESSED  # said to be compressed, but it is not
    if syntax in (DEFLATED_FRAME, ENCAPSULATED_UNCOMPRESSED):
        return plain.native(data, layout, is_deflated=syntax == DEFLATED_FRAME)
    if stream is not None and stream.family is not Family.JPEG_XL:
        layout = _corrected(layout, stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in order:
            try:
                found = _decode_by(name, data, syntax, layout, stream)
            except (MemoryError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - decoders raise anything, those in Rust even a panic that is no Exception; the next is asked
                logger.debug("decoder %s refused a frame: %s", name, type(error).__name__)
            else:
                # Some decoders fill up a JPEG that was cut short without a word.
                is_cut = name != "pillow" and _lacks_end(data, stream)
                return replace(found, is_partial=found.is_partial or is_cut)
        salvaged = _salvage(data, layout, stream)
    if salvaged is None:
        raise DecodeError(DerivativeReason.CORRUPT_PIXELS, "no decoder could read the frame")
    return salvaged


def _lacks_end(data: bytes, stream: Codestream | None) -> bool:
    return stream is not None and stream.family is Family.JPEG and b"\xff\xd9" not in data[-64:]


def _corrected(layout: Layout, stream: Codestream) -> Layout:
    """Put the codestream's truth in the header's place."""
    if min(stream.rows, stream.columns, stream.components, stream.precision) < 1:
        return layout
    precision = stream.precision
    return replace(
        layout,
        rows=stream.rows,
        columns=stream.columns,
        samples=stream.components,
        bits_allocated=8 if precision <= 8 else 16 if precision <= 16 else 32,
        bits_stored=min(precision, layout.bits_stored),
        high_bit=None,  # decoders put the lowest bit lowest
    )


def _decode_by(
    name: str, data: bytes, syntax: str, layout: Layout, stream: Codestream | None
) -> Decoded:
    if syntax in JPEG_XL:
        samples = imagecodecs.jpegxl_decode(data)
        return _shaped(samples, replace(layout, photometric_interpretation=_plain(layout)), name)
    if syntax in (JPEG_BASELINE, JPEG_EXTENDED) and stream is not None:
        if name == "pillow":
            return _decode_by_pillow(data, layout, stream)
        if stream.precision > 8 and name != "imagecodecs":
            raise ValueError("only imagecodecs reads 12-bit JPEG")
    if name == "segments":
        return plain.run_lengths(data, layout)
    decoder = get_decoder(syntax)
    if name not in decoder.available_plugins:
        raise LookupError(f"{name} is not installed")
    return _decode_by_pydicom(decoder, name, data, layout, stream)


def _plain(layout: Layout) -> str:
    """Return the colour of samples that a decoder has already converted."""
    declared = layout.photometric_interpretation
    return "RGB" if declared.startswith(("YBR", "XYB")) else declared


def _decode_by_pydicom(
    decoder: Decoder, name: str, data: bytes, layout: Layout, stream: Codestream | None
) -> Decoded:
    declared = layout.photometric_interpretation
    if stream is not None and stream.family in (Family.JPEG_2000, Family.HTJ2K):
        if layout.samples == 3 and stream.is_reversible_colour and declared != "YBR_ICT":
            declared = "YBR_RCT"
        elif declared in ("YBR_RCT", "YBR_ICT"):
            declared = "RGB"  # declared but not used: the samples are RGB as they are
    elif stream is not None and layout.samples == 3:
        declared = stream.photometric_interpretation(declared)
    if layout.samples == 1 and not declared.startswith(("MONOCHROME", "PALETTE")):
        declared = "MONOCHROME2"
    options: Any = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "number_of_frames": 1,
        "bits_allocated": layout.bits_allocated,
        # Without a codestream to tell (RLE) all bits are wanted: we mask them ourselves.
        "bits_stored": layout.bits_allocated if stream is None else layout.bits_stored,
        "pixel_representation": int(layout.is_signed),
        "photometric_interpretation": declared,
        "planar_configuration": layout.planar_configuration,
        "pixel_keyword": "PixelData",
    }
    source = encapsulate([data], has_bot=False)
    samples, changed = decoder.as_array(source, index=0, raw=True, decoding_plugin=name, **options)
    colour = str(changed["photometric_interpretation"])
    if colour in ("YBR_RCT", "YBR_ICT"):
        colour = "RGB"  # every JPEG 2000 decoder undoes the component transform
    return _shaped(samples, replace(layout, photometric_interpretation=colour), name)


def _decode_by_pillow(data: bytes, layout: Layout, stream: Codestream) -> Decoded:
    """Decode 8-bit JPEG with libjpeg's own colour conversion, where it is due."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    if image.size != (stream.columns, stream.rows) or stream.components not in (1, 3):
        raise ValueError("not an image of one or three components")
    colour = layout.photometric_interpretation
    if stream.components == 3:
        colour = stream.photometric_interpretation(colour)
        if colour == "RGB" and stream.libjpeg_colour == "YBR_FULL":
            # libjpeg would convert what is RGB already: the draft mode takes the samples as are.
            image.draft("YCbCr", image.size)
        elif colour != "RGB" and stream.libjpeg_colour == "RGB":
            raise ValueError("libjpeg would take YCbCr for RGB")
        else:
            colour = "RGB"
    elif not colour.startswith(("MONOCHROME", "PALETTE")):
        colour = "MONOCHROME2"
    return _shaped(np.array(image), replace(layout, photometric_interpretation=colour), "pillow")


def _shaped(samples: NDArray[Any], layout: Layout, decoder: str) -> Decoded:
    """Check that the samples have two or three dimensions and say what they are."""
    samples = samples.squeeze() if samples.ndim > 3 else samples
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[:, :, 0]
    if samples.ndim not in (2, 3):
        raise ValueError("not a picture")
    count = samples.shape[2] if samples.ndim == 3 else 1
    colour = layout.photometric_interpretation
    if count >= 3 and colour.startswith(("MONOCHROME", "PALETTE")):
        colour = "RGB"
    rows, columns = samples.shape[:2]
    changed = replace(
        layout,
        rows=rows,
        columns=columns,
        samples=count,
        planar_configuration=0,
        photometric_interpretation=colour,
    )
    return Decoded(samples, changed, decoder)


def _salvage(data: bytes, layout: Layout, stream: Codestream | None) -> Decoded | None:
    """Read what there is of a JPEG that was cut short, or None."""
    if stream is None or stream.family is not Family.JPEG or stream.precision > 8:
        return None
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return replace(_decode_by_pillow(data, layout, stream), is_partial=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything
        logger.debug("a truncated frame could not be read: %s", type(error).__name__)
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


_FUNCTIONS: dict[str, Callable[[bytes], NDArray[Any]]] = {
    JPEG_LOSSLESS: imagecodecs.ljpeg_decode,
    JPEG_LOSSLESS_SV1: imagecodecs.ljpeg_decode,
    JPEG_LS: imagecodecs.jpegls_decode,
    JPEG_LS_NEAR: imagecodecs.jpegls_decode,
    JPEG_2000_LOSSLESS: imagecodecs.jpeg2k_decode,
    JPEG_2000: imagecodecs.jpeg2k_decode,
    HTJ2K_LOSSLESS: imagecodecs.htj2k_decode,
    HTJ2K_RPCL: imagecodecs.htj2k_decode,
    HTJ2K: imagecodecs.htj2k_decode,
}


def decode_for_pydicom(src: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame by imagecodecs, for pydicom's plugin interface."""
    syntax = str(runner.transfer_syntax)
    if syntax in (JPEG_BASELINE, JPEG_EXTENDED):
        # Equal colour spaces keep the codec from converting what pydicom converts.
        space = "RGB" if runner.samples_per_pixel > 1 else None
        samples = imagecodecs.jpeg8_decode(src, colorspace=space, outcolorspace=space)
    else:
        samples = _FUNCTIONS[syntax](src)
    samples = np.ascontiguousarray(samples)
    runner.set_option("bits_allocated", samples.dtype.itemsize * 8)
    runner.set_option("planar_configuration", 0)
    if runner.photometric_interpretation in ("YBR_RCT", "YBR_ICT"):
        runner.set_option("photometric_interpretation", "RGB")
    return bytearray(samples.tobytes())


def installed() -> dict[str, bool]:
    """Return which decoders are installed, for `doctor`."""
    modules = {
        "pillow": "PIL",
        "gdcm": "gdcm",
        "pylibjpeg": "pylibjpeg",
        "pyjpegls": "jpeg_ls",
        "imagecodecs": "imagecodecs",
        "pydicom": "pydicom",
    }
    found = {}
    for name, module in modules.items():
        try:
            importlib.import_module(module)
        except ImportError:
            found[name] = False
        else:
            found[name] = True
    return found
