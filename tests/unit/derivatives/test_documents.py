"""Reports and waveforms are drawn; everything that is neither is left to the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import BasicTextSRStorage, KeyObjectSelectionDocumentStorage

from ingester.derivatives.documents import document_image
from ingester.derivatives.thumbnail import ThumbnailSettings, render_thumbnail
from ingester.model import Status
from tests.factory import drop, instance


def concept(meaning: str) -> Sequence:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", meaning
    return Sequence([code])


def content(kind: str, name: str, **values: Any) -> Dataset:
    found = Dataset()
    found.RelationshipType, found.ValueType = values.pop("relationship", "CONTAINS"), kind
    found.ConceptNameCodeSequence = concept(name)
    for keyword, each in values.items():
        setattr(found, keyword, each)
    return found


def report(*contents: Dataset, sop_class: str = BasicTextSRStorage) -> Dataset:
    ds = instance(sop_class=sop_class, Modality="SR", PixelData=None, Rows=None, Columns=None)
    ds.ValueType, ds.ConceptNameCodeSequence = "CONTAINER", concept("Chest report")
    ds.ContentSequence = Sequence(contents)
    return ds


def drawn(ds: Dataset) -> bytes:
    image = document_image(ds)
    assert image is not None
    return image.tobytes()


def test_a_report_shows_its_findings() -> None:
    one = drawn(report(content("TEXT", "Finding", TextValue="A nodule")))
    other = drawn(report(content("TEXT", "Finding", TextValue="Nothing")))
    assert one != other


def test_names_and_observation_context_are_left_out() -> None:
    finding = content("TEXT", "Finding", TextValue="A nodule")
    person = content("PNAME", "Observer", PersonName="Doe^Jane")
    subject = content("TEXT", "Subject", TextValue="Jane", relationship="HAS OBS CONTEXT")
    assert drawn(report(subject, person, finding)) == drawn(report(finding))


def test_a_report_without_end_is_cut_off() -> None:
    innermost = content("CONTAINER", "Deep")
    for _ in range(60):
        outer = content("CONTAINER", "Deep")
        outer.ContentSequence = Sequence([innermost])
        innermost = outer
    many = [content("TEXT", "Finding", TextValue="word " * 500) for _ in range(500)]
    assert document_image(report(innermost, *many)) is not None


def waveform(channels: int, samples: int = 1000, **change: Any) -> Dataset:
    ds = instance(Modality="ECG", PixelData=None, Rows=None, Columns=None)
    group = Dataset()
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = channels, samples
    group.SamplingFrequency = 250
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    wave = np.sin(np.arange(samples * channels) / 40) * 900
    group.add_new("WaveformData", "OW", wave.astype("<i2").tobytes())
    for keyword, each in change.items():
        setattr(group, keyword, each)
    ds.WaveformSequence = Sequence([group])
    return ds


@pytest.mark.parametrize("channels", [1, 2, 12, 15])
def test_waveforms_are_drawn(tmp_path: Path, channels: int) -> None:
    found = render_thumbnail(drop(tmp_path / "a.dcm", waveform(channels)))
    assert found.status is Status.MADE
    assert found.detail["rendering"] == "document"
    assert found.detail["phi"] == "possible"


@pytest.mark.parametrize(
    "change",
    [
        {"NumberOfWaveformChannels": 0},
        {"WaveformSampleInterpretation": "XX"},
        {"WaveformData": b"\0\0"},
    ],
)
def test_a_broken_waveform_has_a_card(tmp_path: Path, change: dict[str, Any]) -> None:
    found = render_thumbnail(drop(tmp_path / "a.dcm", waveform(2, **change)))
    assert found.detail["rendering"] == "card"


def test_cards_instead_where_they_are_wanted(tmp_path: Path) -> None:
    path = drop(tmp_path / "a.dcm", report(content("TEXT", "Finding", TextValue="A nodule")))
    assert render_thumbnail(path).detail["rendering"] == "document"
    found = render_thumbnail(path, ThumbnailSettings(documents="card"))
    assert found.detail["rendering"] == "card"
    assert "phi" not in found.detail


def test_key_objects_are_not_reports() -> None:
    ds = report(content("IMAGE", "Image"), sop_class=KeyObjectSelectionDocumentStorage)
    assert document_image(ds) is None
