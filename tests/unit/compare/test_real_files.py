"""Some real files, written again by pydicom: duplicates, and the pixels variants.

The whole of pydicom's package and the corpus go the same way in tests/corpus.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from ingester.compare import CompareRequest, compare
from ingester.model import Outcome, Verdict
from tests.factory import encoded
from tests.reencoded import by_pydicom, real_files

FILES = {path.name: path for path in real_files()}

SAMPLE = [
    "CT_small.dcm",
    "MR_small_bigendian.dcm",
    "rtplan.dcm",
    "rtdose.dcm",
    "reportsi.dcm",
    "image_dfl.dcm",
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
    "examples_overlay.dcm",
    "ExplVR_BigEnd.dcm",
    "waveform_ecg.dcm",
    "test-SR.dcm",
    "chrH31.dcm",
    "chrRuss.dcm",
    "chrX1.dcm",
]


def verdict(new: Path, old: Path) -> Verdict:
    found = compare(CompareRequest(str(new), str(old)))
    assert compare(CompareRequest(str(old), str(new))) == found
    return found


@pytest.mark.parametrize("name", SAMPLE)
def test_a_real_file_in_another_encoding_is_a_duplicate(name: str, tmp_path: Path) -> None:
    encodings = 0
    for encoding, data in by_pydicom(FILES[name]):
        path = tmp_path / "again"
        path.write_bytes(data)
        assert verdict(path, FILES[name]) == Verdict(Outcome.DUPLICATE), encoding
        encodings += 1
    assert encodings >= 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_rgb_color.dcm"])
def test_a_real_image_compressed_without_loss_is_a_variant(
    name: str, syntax: str, tmp_path: Path
) -> None:
    ds = dcmread(FILES[name])
    ds.compress(syntax, generate_instance_uid=False)
    path = tmp_path / "compressed"
    path.write_bytes(encoded(ds, syntax))
    assert verdict(path, FILES[name]) == Verdict(Outcome.VARIANT)
