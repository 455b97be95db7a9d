"""Headers as scanners write them: which attributes, which values, how long.

`template` gives the JSON text of a series once, with gaps where its instances differ;
`Template.text` fills them.  The attributes are those that CT, MR, US, CR, DX, MG, XA, PT
and NM objects of several vendors carry, private ones included: `headers.attributes` is
about 7 KB for a CT, 5 KB for an MR, 3 KB for ultrasound and plain films, as it is for
objects collected from hospitals.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydicom.datadict import tag_for_keyword

_GAP = re.compile(r'"@@(\w+)@@"')
_PRIVATE = re.compile(r".*?([0-9A-F]{4})(?:xx|00)[0-9A-F]{2}")

_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
#: SOP Class UID of the objects of each kind of series.
SOP_CLASSES = {
    "CT": _CT_STORAGE,
    "MR": _MR_STORAGE,
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "US cine": "1.2.840.10008.5.1.4.1.1.3.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "NM": "1.2.840.10008.5.1.4.1.1.20",
    "SR": "1.2.840.10008.5.1.4.1.1.88.67",
}

_GE = "GEMS_PARM_01", "GEMS_ACQU_01", "GEMS_IMAG_01", "GEMS_RELA_01"
_SIEMENS = "SIEMENS CT VA0 COAD", "SIEMENS MR HEADER", "SIEMENS MED", "SIEMENS MEDCOM HEADER"
#: Creators of private elements, and how many elements they write.
_CREATORS: dict[str, tuple[tuple[str, ...], int]] = {
    "CT": (_GE, 88),
    "MR": (_SIEMENS, 20),
    "US": (("ACUSON:1.2.840.113680.1.0:7f10",), 8),
    "US cine": (("ACUSON:1.2.840.113680.1.0:7f10",), 8),
    "CR": (("FDMS 1.0",), 4),
    "DX": (("AGFA",), 4),
    "MG": (("LORAD Selenia", "HOLOGIC, Inc."), 110),
    "XA": (("SIEMENS SERIES SHADOW ATTRIBUTES",), 34),
    "PT": (("GEMS_PETD_01",), 54),
    "NM": (("GEMS_GENIE_1",), 70),
    "SR": ((), 0),
}

_CODES = [
    {"CodeValue": "T-D4000", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Abdomen"},
    {"CodeValue": "113691", "CodingSchemeDesignator": "DCM",
     "CodeMeaning": "IEC Body Dosimetry Phantom"},
]  # fmt: skip

#: What every object says.
_COMMON: dict[str, Any] = {
    "FileMetaInformationGroupLength": 200,
    "FileMetaInformationVersion": "0001",
    "ImplementationClassUID": "1.2.826.0.1.3680043.10.1437.1",
    "ImplementationVersionName": "INGESTER_01",
    "SpecificCharacterSet": ["ISO_IR 192"],
    "InstanceCreationDate": None,
    "InstanceCreationTime": "@@Time@@",
    "AcquisitionDate": None,
    "ContentDate": None,
    "AcquisitionTime": "@@Time@@",
    "ContentTime": "@@Time@@",
    "InstitutionAddress": "Am Alten Markt 1, 01067 Dresden",
    "InstitutionalDepartmentName": "Radiologie",
    "PhysiciansOfRecord": ["Hausmann^Dr. Ute"],
    "PerformingPhysicianName": ["Radtke^Dr. Jens"],
    "ReferencedStudySequence": [],
    "PatientSize": 1.72,
    "PatientWeight": 74.0,
    "EthnicGroup": None,
    "AdditionalPatientHistory": None,
    "PatientComments": None,
    "DeviceSerialNumber": "66042",
    "SoftwareVersions": ["syngo CT VA48A"],
    "Laterality": None,
    "RequestingPhysician": "Hausmann^Dr. Ute",
    "RequestedProcedureDescription": None,
    "PerformedProcedureStepStartDate": None,
    "PerformedProcedureStepStartTime": "09:41:07.312000",
    "PerformedProcedureStepID": "PPS260302",
    "PerformedProcedureStepDescription": None,
}

#: What every image says.
_IMAGE: dict[str, Any] = {
    "SamplesPerPixel": 1,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "WindowCenter": [50.0, 300.0],
    "WindowWidth": [350.0, 1500.0],
    "RescaleIntercept": -1024.0,
    "RescaleSlope": 1.0,
    "RescaleType": "HU",
    "LossyImageCompression": "00",
    "BurnedInAnnotation": "NO",
}

#: What lies somewhere in the patient.
_PLANE: dict[str, Any] = {
    "PatientPosition": "FFS",
    "SliceThickness": 5.0,
    "SliceLocation": "@@Z@@",
    "ImagePositionPatient": "@@Position@@",
    "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    "PixelSpacing": [0.703125, 0.703125],
    "PositionReferenceIndicator": None,
    "ReferencedPerformedProcedureStepSequence": [
        {"ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.3",
         "ReferencedSOPInstanceUID": "1.2.276.0.7230010.3.1.4.8323329.5463.1517874291.47"}
    ],
    "RequestAttributesSequence": [
        {"RequestedProcedureDescription": "Untersuchung nach Anforderung",
         "ScheduledProcedureStepDescription": "Untersuchung nach Anforderung",
         "ScheduledProcedureStepID": "SPS260302", "RequestedProcedureID": "RP260302"}
    ],
    "AcquisitionNumber": 2,
    "SmallestImagePixelValue": "@@Smallest@@",
    "LargestImagePixelValue": "@@Largest@@",
    "WindowCenterWidthExplanation": ["WINDOW1", "WINDOW2"],
    "ReferencedImageSequence": [
        {"ReferencedSOPClassUID": _CT_STORAGE,
         "ReferencedSOPInstanceUID": "1.2.840.113619.2.55.3.2831164355.781.1517850201.467"}
    ] * 2,
}  # fmt: skip

_X_RAY: dict[str, Any] = {
    "KVP": 120.0,
    "ExposureTime": 500,
    "XRayTubeCurrent": "@@Current@@",
    "Exposure": "@@Exposure@@",
    "FilterType": "BODY FILTER",
    "GeneratorPower": 42,
    "FocalSpots": [1.2],
    "DistanceSourceToDetector": 1099.3100585938,
    "DistanceSourceToPatient": 630.0,
    "ExposureModulationType": ["XYZ_EC"],
    "DateOfLastCalibration": ["2026-01-07"],
    "TimeOfLastCalibration": ["06:15:00"],
}

_FILM: dict[str, Any] = {
    **_X_RAY,
    "PresentationIntentType": "FOR PRESENTATION",
    "ViewPosition": "PA",
    "ImagerPixelSpacing": [0.14, 0.14],
    "Sensitivity": 400.0,
    "ExposureInuAs": 2130,
    "ExposureIndex": "@@ExposureIndex@@",
    "TargetExposureIndex": 400.0,
    "DeviationIndex": -0.4,
    "ImageAndFluoroscopyAreaDoseProduct": "@@AreaDose@@",
    "DetectorType": "SCINTILLATOR",
    "DetectorConfiguration": "AREA",
    "DetectorDescription": "CsI",
    "DetectorID": "D123871",
    "FieldOfViewShape": "RECTANGLE",
    "FieldOfViewDimensions": [430, 350],
    "Grid": ["FIXED", "FOCUSED"],
    "PatientOrientation": ["L", "F"],
    "PixelIntensityRelationship": "LOG",
    "PixelIntensityRelationshipSign": -1,
    "PresentationLUTShape": "IDENTITY",
    "AcquisitionDeviceProcessingDescription": "THORAX PA",
    "AcquisitionDeviceProcessingCode": "0217",
    "AnatomicRegionSequence": [_CODES[0]],
}

_CINE: dict[str, Any] = {
    "FrameTime": "@@FrameTime@@",
    "CineRate": "@@CineRate@@",
    "RecommendedDisplayFrameRate": "@@CineRate@@",
    "FrameIncrementPointer": ["(0018,1063)"],
}

_DOSE_EVENT: dict[str, Any] = {
    "RelationshipType": "CONTAINS",
    "ValueType": "NUM",
    "ConceptNameCodeSequence": [
        {"CodeValue": "113838", "CodingSchemeDesignator": "DCM", "CodeMeaning": "DLP"}
    ],
    "MeasuredValueSequence": [
        {"MeasurementUnitsCodeSequence": [
            {"CodeValue": "mGycm", "CodingSchemeDesignator": "UCUM",
             "CodingSchemeVersion": "1.4", "CodeMeaning": "mGycm"}],
         "NumericValue": [312.4]}
    ],
}  # fmt: skip

_REGION: dict[str, Any] = {
    "RegionSpatialFormat": 1,
    "RegionDataType": 1,
    "RegionFlags": 2,
    "RegionLocationMinX0": 0,
    "RegionLocationMinY0": 0,
    "RegionLocationMaxX1": 799,
    "RegionLocationMaxY1": 599,
    "PhysicalUnitsXDirection": 3,
    "PhysicalUnitsYDirection": 3,
    "PhysicalDeltaX": 0.0274,
    "PhysicalDeltaY": 0.0274,
}

_BY_KIND: dict[str, dict[str, Any]] = {
    "CT": {
        **_IMAGE, **_PLANE, **_X_RAY,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ScanOptions": ["HELICAL MODE"],
        "DataCollectionDiameter": 500.0,
        "ReconstructionDiameter": 360.0,
        "GantryDetectorTilt": 0.0,
        "TableHeight": 133.699997,
        "RotationDirection": "CW",
        "ConvolutionKernel": ["STANDARD"],
        "RevolutionTime": 0.5,
        "SingleCollimationWidth": 0.625,
        "TotalCollimationWidth": 40.0,
        "TableSpeed": 78.75,
        "TableFeedPerRotation": 39.375,
        "SpiralPitchFactor": 0.984375,
        "CTDIvol": "@@CTDIvol@@",
        "CTDIPhantomTypeCodeSequence": [_CODES[1]],
        "ContrastBolusAgent": "Iohexol 350",
        "ContrastBolusVolume": 100.0,
    },
    "MR": {
        **_IMAGE, **_PLANE,
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"],
        "ScanningSequence": ["SE"],
        "SequenceVariant": ["SK", "SP", "OSP"],
        "MRAcquisitionType": "2D",
        "SequenceName": "*tse2d1_15",
        "AngioFlag": "N",
        "RepetitionTime": 3500.0,
        "EchoTime": 84.0,
        "NumberOfAverages": 1.0,
        "ImagingFrequency": 123.25043,
        "ImagedNucleus": "1H",
        "EchoNumbers": [1],
        "MagneticFieldStrength": 3.0,
        "SpacingBetweenSlices": 3.3,
        "NumberOfPhaseEncodingSteps": 255,
        "EchoTrainLength": 15,
        "PercentSampling": 100.0,
        "PercentPhaseFieldOfView": 100.0,
        "PixelBandwidth": 651.0,
        "TransmitCoilName": "Body",
        "AcquisitionMatrix": [0, 384, 288, 0],
        "InPlanePhaseEncodingDirection": "ROW",
        "FlipAngle": 150.0,
        "VariableFlipAngleFlag": "N",
        "SAR": 0.10047983766378,
        "dBdt": 0.0,
    },
    "US": {
        **_IMAGE,
        "ImageType": ["ORIGINAL", "PRIMARY", "ABDOMEN", "0001"],
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "HighBit": 7,
        "TransducerType": "CURVED LINEAR",
        "TransducerFrequency": 3500000,
        "MechanicalIndex": 1.1,
        "BoneThermalIndex": 0.4,
        "DepthOfScanField": 160,
        "SequenceOfUltrasoundRegions": [_REGION],
    },
    "CR": {**_IMAGE, **_FILM, "ImageType": ["DERIVED", "PRIMARY"], "PlateType": "ST-VI",
           "CassetteSize": "35CMX43CM", "CassetteOrientation": "PORTRAIT"},
    "DX": {**_IMAGE, **_FILM, "ImageType": ["ORIGINAL", "PRIMARY"], "PatientOrientation": ["L"]},
    "MG": {**_IMAGE, **_FILM, "ImageType": ["ORIGINAL", "PRIMARY"], "ViewPosition": "MLO",
           "ImageLaterality": "R", "BodyPartThickness": 52.0, "CompressionForce": 96.0,
           "OrganDose": 0.0132, "EntranceDoseInmGy": 4.31, "AnodeTargetMaterial": "TUNGSTEN",
           "FilterMaterial": ["RHODIUM"], "HalfValueLayer": 0.53,
           "ViewCodeSequence": [_CODES[0]] * 2, "AcquisitionContextSequence": []},
    "XA": {**_IMAGE, **_X_RAY, **_CINE, "ImageType": ["ORIGINAL", "PRIMARY", "SINGLE PLANE"],
           "PositionerPrimaryAngle": -30.0, "PositionerSecondaryAngle": 12.0,
           "PositionerMotion": "STATIC", "RadiationMode": "PULSED", "AveragePulseWidth": 7.3,
           "ImageAndFluoroscopyAreaDoseProduct": "@@AreaDose@@", "IntensifierSize": 200.0,
           "ImagerPixelSpacing": [0.308, 0.308], "PixelIntensityRelationship": "LIN"},
    "PT": {**_IMAGE, **_PLANE, "ImageType": ["ORIGINAL", "PRIMARY"], "Units": "BQML",
           "SeriesType": ["WHOLE BODY", "IMAGE"], "CountsSource": "EMISSION",
           "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
           "DecayCorrection": "START", "ReconstructionMethod": "3D IR", "NumberOfSlices": 263,
           "ActualFrameDuration": 180000, "FrameReferenceTime": 1092000.0, "DecayFactor": 1.13241,
           "RadiopharmaceuticalInformationSequence": [
               {"Radiopharmaceutical": "FDG -- fluorodeoxyglucose",
                "RadiopharmaceuticalStartTime": "10:35:00", "RadionuclideTotalDose": 312000000.0,
                "RadionuclideHalfLife": 6588.0, "RadionuclideCodeSequence": [
                    {"CodeValue": "C-111A1", "CodingSchemeDesignator": "SRT",
                     "CodeMeaning": "18F"}]}]},
    "NM": {**_IMAGE, "ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"],
           "CountsAccumulated": "@@Largest@@", "ActualFrameDuration": 900000,
           "CollimatorType": "PARA", "ScanVelocity": 12.0, "WholeBodyTechnique": ["1PS"],
           "NumberOfEnergyWindows": 1, "NumberOfDetectors": 2, "EnergyWindowVector": [1, 1],
           "DetectorVector": [1, 2], "EnergyWindowInformationSequence": [
               {"EnergyWindowName": "Tc99m", "EnergyWindowRangeSequence": [
                   {"EnergyWindowLowerLimit": 126.45, "EnergyWindowUpperLimit": 154.55}]}]},
    "SR": {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED",
           "ValueType": "CONTAINER", "ContinuityOfContent": "SEPARATE",
           "ConceptNameCodeSequence": [
               {"CodeValue": "113701", "CodingSchemeDesignator": "DCM",
                "CodeMeaning": "X-Ray Radiation Dose Report"}],
           "ContentSequence": [_DOSE_EVENT] * 16},
}  # fmt: skip
_BY_KIND["US cine"] = {**_BY_KIND["US"], **_CINE}


@dataclass(frozen=True, slots=True)
class Template:
    """The JSON text of a series, parted at the gaps; every second part names one."""

    parts: tuple[str, ...]

    @classmethod
    def of(cls, kind: str, values: Mapping[str, Any], seed: int) -> Template:
        """Return the template of a series.

        Parameters
        ----------
        kind : a key of `SOP_CLASSES`
        values : by keyword, over what the kind usually says; `gap(name)` leaves a gap
        """
        header = {**_COMMON, **_BY_KIND[kind], **_private(kind, seed % 7), **values}
        ordered = dict(sorted(header.items(), key=lambda each: _place(each[0])))
        text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
        return cls(tuple(_GAP.split(text)))

    def text(self, values: Mapping[str, Any]) -> str:
        """Return the whole with its gaps filled."""
        parts = list(self.parts)
        for number in range(1, len(parts), 2):
            value = values[parts[number]]
            is_plain = type(value) is str and '"' not in value and "\\" not in value
            parts[number] = f'"{value}"' if is_plain else json.dumps(value, ensure_ascii=False)
        return "".join(parts)


def gap(name: str) -> str:
    """Return the value that leaves a gap in a template."""
    return f"@@{name}@@"


@cache
def _place(name: str) -> int:
    tag = tag_for_keyword(name)
    if tag is not None:
        return int(tag)
    match = _PRIVATE.fullmatch(name)
    assert match is not None, f"{name} is no keyword"
    return int(match[1], 16) << 16


@cache
def _private(kind: str, seed: int) -> dict[str, Any]:
    chance = random.Random(f"{kind} {seed}")
    creators, count = _CREATORS[kind]
    found: dict[str, Any] = {}
    for number, creator in enumerate(creators):
        group = 0x0019 + 2 * number
        found[f"{group:04X}0010"] = [creator]
        for element in range(count // len(creators)):
            found[f"{creator}:{group:04X}xx{element:02X}"] = _private_value(chance)
    return found


def _private_value(chance: random.Random) -> Any:
    pick = chance.randrange(8)
    if pick < 3:
        return [chance.randrange(2000)]
    if pick < 5:
        return [round(chance.uniform(-500, 500), 6)]
    if pick == 5:
        return [chance.choice(("NO", "ND", "HEAD FIRST", "+LPH", "1.0", "Fast"))]
    return None if pick == 6 else {"bytes": chance.randrange(65, 4096)}
