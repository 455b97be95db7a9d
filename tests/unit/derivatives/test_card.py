"""The card says what an object is, and never whose."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import BasicTextSRStorage, RTPlanStorage

from ingester.derivatives import card
from ingester.derivatives.icon import icon_image
from ingester.model import DerivativeReason
from tests.factory import instance


def pixels(image: Image.Image) -> bytes:
    return image.tobytes()


def test_a_card_is_256_square_and_not_empty() -> None:
    image = card.draw(instance(sop_class=RTPlanStorage, Modality="RTPLAN"))
    assert image.size == (256, 256)
    assert np.asarray(image).std() > 5


def test_no_patient_text_gets_onto_a_card() -> None:
    plain = Dataset()
    plain.SOPClassUID, plain.Modality = BasicTextSRStorage, "SR"
    full = instance(sop_class=BasicTextSRStorage, Modality="SR")
    assert pixels(card.draw(plain)) == pixels(card.draw(full))


@pytest.mark.parametrize("modality", ["DOE", "DOE JANE", "", "19700131"])
def test_a_modality_that_is_none_is_not_shown(modality: str) -> None:
    ds = Dataset()
    ds.Modality = modality
    assert card.modality_code(ds) == "DICOM"


def test_a_sop_class_that_is_none_is_not_shown() -> None:
    ds = Dataset()
    ds.SOPClassUID = "1.2.3.19700131"
    assert card.class_name(ds) == "Unknown or private object"
    ds.SOPClassUID = "1.2.840.10008.1.2.1"  # a transfer syntax
    assert card.class_name(ds) == "Unknown or private object"


def test_the_reason_is_on_the_card() -> None:
    ds = instance()
    seen = {pixels(card.draw(ds, reason)) for reason in (None, *card._WORDS)}
    assert len(seen) == 1 + len(card._WORDS)


@pytest.mark.parametrize("modality", sorted(card.MODALITIES))
def test_every_modality_fits(modality: str) -> None:
    image = np.asarray(card.draw(instance(Modality=modality)).convert("L"))
    edge = np.concatenate([image[40:150, 13:18].ravel(), image[40:150, 238:243].ravel()])
    assert edge.max() < 120


def icon(colour: str, samples: int = 1) -> Dataset:
    found = Dataset()
    found.Rows, found.Columns, found.SamplesPerPixel = 4, 8, samples
    found.BitsAllocated = found.BitsStored = 8
    found.PhotometricInterpretation = colour
    found.PixelData = bytes(range(32 * samples))
    return found


@pytest.mark.parametrize(
    ("colour", "samples", "first"), [("MONOCHROME2", 1, 0), ("MONOCHROME1", 1, 255)]
)
def test_icons(colour: str, samples: int, first: int) -> None:
    ds = instance()
    ds.IconImageSequence = Sequence([icon(colour, samples)])
    image = icon_image(ds)
    assert image is not None
    assert image.size == (8, 4)
    assert image.getpixel((0, 0)) == first
    plain = card.draw(ds, DerivativeReason.CORRUPT_PIXELS)
    assert pixels(card.draw(ds, DerivativeReason.CORRUPT_PIXELS, icon=image)) != pixels(plain)


@pytest.mark.parametrize("spoilt", ["Rows", "PixelData", "BitsAllocated"])
def test_a_broken_icon_is_none(spoilt: str) -> None:
    found = icon("MONOCHROME2")
    delattr(found, spoilt)
    ds = instance()
    ds.IconImageSequence = Sequence([found])
    assert icon_image(ds) is None
