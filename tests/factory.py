"""DICOM objects made by patient, study, series and instance number.

Every test object comes from here (or from pydicom's own package): `instance` gives
a data set, `encoded` its bytes as a Part 10 file, `drop` puts such a file somewhere.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498"


def uid(patient: int, study: int = 0, series: int = 0, instance: int = 0) -> str:
    """Return the UID of the numbered thing."""
    return f"{ROOT}.{patient}.{study}.{series}.{instance}"


def instance(
    patient: int = 1,
    study: int = 1,
    series: int = 1,
    instance: int = 1,
    *,
    rows: int = 16,
    columns: int = 16,
    frames: int | None = None,
    sop_class: str = CTImageStorage,
    **overrides: Any,
) -> Dataset:
    """Return a small data set; *overrides* are keywords, None removes one."""
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = uid(patient, study, series, instance)
    ds.StudyInstanceUID = uid(patient, study)
    ds.SeriesInstanceUID = uid(patient, study, series)
    ds.PatientID = f"P{patient:04d}"
    ds.PatientName = f"Family{patient}^Given{patient}"
    ds.PatientBirthDate = "19700131"
    ds.PatientSex = "O"
    ds.StudyDate = f"202401{study:02d}"
    ds.StudyTime = "101530.5"
    ds.StudyID = str(study)
    ds.AccessionNumber = f"A{patient:03d}{study:03d}"
    ds.StudyDescription = "Abdomen"
    ds.Modality = "CT"
    ds.SeriesNumber = series
    ds.SeriesDescription = "Portal venous"
    ds.InstanceNumber = instance
    ds.Rows = rows
    ds.Columns = columns
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 16
    ds.BitsStored = 12
    ds.HighBit = 11
    ds.PixelRepresentation = 0
    count = frames or 1
    if frames is not None:
        ds.NumberOfFrames = frames
    ramp = np.arange(count * rows * columns, dtype="<u2").reshape(count, rows, columns)
    ds.PixelData = ((ramp + instance * 7 % 4096) % 4096).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in overrides.items():
        if value is None:
            if keyword in ds:
                del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def encoded(
    ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, *, sender: str | None = None
) -> bytes:
    """Return the data set as the bytes of a Part 10 file; *sender* is told in File Meta."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2.3")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3.4")
    if sender is not None:
        ds.file_meta.SourceApplicationEntityTitle = sender
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def drop(path: Path, data: bytes | Dataset) -> Path:
    """Put bytes, or a data set as a Part 10 file, at *path*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else encoded(data))
    return path
