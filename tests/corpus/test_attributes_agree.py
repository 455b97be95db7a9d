"""Real files' headers, against pydicom: every attribute of every file that is in order."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pydicom
from pydicom import config

from ingester.dicom.header import read_header
from ingester.errors import Reject
from tests.dicom_json import differences


def test_every_file_without_an_oddity_agrees(corpus: Path) -> None:
    compared = 0
    for path in sorted(corpus.rglob("*")):
        if not path.is_file():
            continue
        try:
            found = read_header(str(path))
        except Reject:
            continue
        if found.notes:
            continue
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            differing = differences(json.loads(found.attributes), pydicom.dcmread(path, force=True))
        assert not differing, path
        compared += 1
    assert compared > 150
