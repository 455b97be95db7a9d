"""CT instances to measure with: made, seeded, about a hundred elements each.

Small ones are 64 x 64 (12 KB: header and pixels weigh about the same), ordinary ones
512 x 512 (0.5 MB).  Pixels are a phantom with noise, so that nothing compresses or
caches unnaturally well.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

_ROOT = "1.2.826.0.1.3680043.8.498.77"
_INSTANCES_PER_SERIES = 125
_SERIES_PER_STUDY = 4

#: What a CT writes into every header, beyond what identifies the instance.
_HEADER: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    "InstanceCreationDate": "20240131",
    "InstanceCreationTime": "101530.123000",
    "AcquisitionDate": "20240131",
    "ContentDate": "20240131",
    "AcquisitionTime": "101531.250000",
    "ContentTime": "101532.500000",
    "Modality": "CT",
    "Manufacturer": "SIEMENS",
    "InstitutionName": "General Hospital",
    "InstitutionAddress": "1 Hospital Road^Springfield",
    "ReferringPhysicianName": "Refer^Doctor^^Dr",
    "StationName": "CTAWP00001",
    "StudyDescription": "Abdomen^ABD_PELVIS_VENOUS (Adult)",
    "InstitutionalDepartmentName": "Radiology",
    "PhysiciansOfRecord": "Record^Physician",
    "PerformingPhysicianName": "Perform^Physician",
    "OperatorsName": "Operator^One",
    "ManufacturerModelName": "SOMATOM Definition AS+",
    "PatientSex": "F",
    "PatientAge": "054Y",
    "PatientSize": "1.68",
    "PatientWeight": "71",
    "EthnicGroup": "",
    "PatientComments": "",
    "BodyPartExamined": "ABDOMEN",
    "ScanOptions": "HELIX",
    "SliceThickness": "1.5",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "DeviceSerialNumber": "66042",
    "SoftwareVersions": "syngo CT 2013B",
    "ProtocolName": "ABD_PELVIS_VENOUS",
    "ReconstructionDiameter": "358",
    "DistanceSourceToDetector": "1085.6",
    "DistanceSourceToPatient": "595",
    "GantryDetectorTilt": "0",
    "TableHeight": "142",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "212",
    "Exposure": "106",
    "FilterType": "FLAT",
    "GeneratorPower": "41",
    "FocalSpots": "1.2",
    "DateOfLastCalibration": "20240131",
    "TimeOfLastCalibration": "061500.000000",
    "ConvolutionKernel": "I30f",
    "PatientPosition": "FFS",
    "SingleCollimationWidth": 0.6,
    "TotalCollimationWidth": 38.4,
    "TableSpeed": 46.0,
    "TableFeedPerRotation": 23.0,
    "SpiralPitchFactor": 0.6,
    "ExposureModulationType": "XYZ_EC",
    "EstimatedDoseSaving": 41.2,
    "CTDIvol": 7.16,
    "AcquisitionNumber": 3,
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PositionReferenceIndicator": "",
    "ImageComments": "",
    "PixelSpacing": ["0.69921875", "0.69921875"],
    "WindowCenter": ["50", "300"],
    "WindowWidth": ["350", "1500"],
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "RescaleType": "HU",
    "WindowCenterWidthExplanation": ["WINDOW1", "WINDOW2"],
    "RequestingPhysician": "Request^Physician",
    "RequestedProcedureDescription": "CT Abdomen and Pelvis with Contrast",
    "PerformedProcedureStepStartDate": "20240131",
    "PerformedProcedureStepStartTime": "100512.000000",
    "PerformedProcedureStepID": "PPS0001",
    "PerformedProcedureStepDescription": "CT Abdomen Venous",
    "ContrastBolusAgent": "Iohexol 350",
    "ContrastBolusVolume": "100",
    "ContrastFlowRate": "3",
    "PatientIdentityRemoved": "NO",
}


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of made instances."""

    path: Path
    objects: int
    total_bytes: int


def make_folder(path: Path, count: int, *, edge: int) -> Folder:
    """Write *count* CT instances of *edge* x *edge* pixels, one folder per series."""
    total = 0
    for number in range(count):
        series = number // _INSTANCES_PER_SERIES
        above = path / f"S{series:04d}"
        above.mkdir(parents=True, exist_ok=True)
        data = _encoded(_instance(number, series, edge))
        (above / f"I{number:06d}").write_bytes(data)
        total += len(data)
    return Folder(path, count, total)


def _instance(number: int, series: int, edge: int) -> Dataset:
    study = series // _SERIES_PER_STUDY
    ds = Dataset()
    for keyword, value in _HEADER.items():
        setattr(ds, keyword, value)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{_ROOT}.{edge}.{study}.{series}.{number}"
    ds.SeriesInstanceUID = f"{_ROOT}.{edge}.{study}.{series}"
    ds.StudyInstanceUID = f"{_ROOT}.{edge}.{study}"
    ds.FrameOfReferenceUID = f"{_ROOT}.{edge}.{study}.0.1"
    ds.StudyDate = ds.SeriesDate = "20240131"
    ds.StudyTime = ds.SeriesTime = "100512.000000"
    ds.AccessionNumber = f"ACC{edge}{study:05d}"
    ds.StudyID = str(study)
    ds.PatientID = f"BENCH{edge}{study:05d}"
    ds.PatientName = f"Bench{study}^Mark"
    ds.PatientBirthDate = "19700131"
    ds.SeriesDescription = f"Venous 1.5 I30f {series}"
    ds.SeriesNumber = series + 1
    ds.InstanceNumber = number + 1
    ds.ImagePositionPatient = ["-179", "-179", f"{number * 1.5:.1f}"]
    ds.SliceLocation = f"{number * 1.5:.1f}"
    ds.ReferencedImageSequence = _references(series, edge)
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x08, "CS", "SOM 5")
    block.add_new(0x10, "OB", bytes(range(256)) * 4)
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = edge
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = _pixels(number, edge)
    ds["PixelData"].VR = "OW"
    return ds


def _references(series: int, edge: int) -> Sequence:
    reference = Dataset()
    reference.ReferencedSOPClassUID = CTImageStorage
    reference.ReferencedSOPInstanceUID = f"{_ROOT}.{edge}.9.{series}.1"
    return Sequence([reference])


def _pixels(number: int, edge: int) -> bytes:
    random = np.random.default_rng(number)
    across = np.linspace(-1, 1, edge)
    radius = np.hypot(across[:, None], across[None, :] * (1.2 + number % 50 / 500))
    body = np.where(radius < 0.85, 1064, 24) + random.normal(0, 12, (edge, edge))
    return np.clip(body, 0, 4095).astype("<u2").tobytes()


def _encoded(ds: Dataset) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()
