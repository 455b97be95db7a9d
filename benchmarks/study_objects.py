"""The objects of a planned study: headers, paths, hashes, sizes.

`objects(plan)` yields them series by series, slice by slice; `Alteration` says what is
different where a study comes a second time, changed or compressed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.headers import SOP_CLASSES, Template, gap
from benchmarks.plan import SeriesPlan, StudyPlan
from ingester.archive import instance_path
from ingester.model import (
    ImageAttributes,
    Instance,
    SeriesAttributes,
    Stored,
    StudyAttributes,
    Version,
)

_EXPLICIT, _JPEG_LS, _JPEG = (
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.50",
)  # fmt: skip
_DEFLATION = 0.45
#: rows, columns, bits stored of each kind
_SHAPES = {
    "CT": (512, 512, 12), "MR": (384, 384, 12), "US": (600, 800, 8), "US cine": (600, 800, 8),
    "CR": (2140, 1760, 12), "DX": (2800, 2300, 14), "MG": (3328, 2560, 12),
    "XA": (512, 512, 8), "PT": (192, 192, 16), "NM": (1024, 256, 16), "SR": (None, None, None),
}  # fmt: skip
_IN_FRAMES = frozenset({"US cine", "XA", "NM"})
_KERNELS = ("STANDARD", "B30f", "H30s", "LUNG", "BONE")


@dataclass(frozen=True, slots=True)
class Alteration:
    """What is not as it was planned: header values by keyword, columns, another syntax."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    patient_name: str | None = None
    study_description: str | None = None
    is_compressed: bool = False
    only_last_series: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """An object: its header, its place in the study, and the file's digests and size."""

    instance: Instance
    series: SeriesPlan
    sha256: str
    data_set_sha256: str
    size_bytes: int

    def stored(self, source: str, archived_at: str, version: Version) -> Stored:
        """Return where and as what it is archived."""
        instance = self.instance
        return Stored(
            path=instance_path(
                source,
                instance.study.study_date,
                instance.study_instance_uid,
                instance.sop_instance_uid,
                None if version is Version.CURRENT else self.sha256,
            ),
            sha256=self.sha256,
            data_set_sha256=self.data_set_sha256,
            size_bytes=self.size_bytes,
            archived_at=archived_at,
            version=version,
        )


def objects(plan: StudyPlan, altered: Alteration | None = None) -> Iterator[Made]:
    """Yield the objects of a study in the order of sending."""
    for series in plan.series:
        is_last = series is plan.series[-1]
        change = altered if altered and (is_last or not altered.only_last_series) else None
        yield from _Maker(plan, series, change or Alteration()).all()


class _Maker:
    """What the instances of one series share."""

    def __init__(self, plan: StudyPlan, series: SeriesPlan, altered: Alteration) -> None:
        self._plan, self._series, self._altered = plan, series, altered
        self._chance = random.Random(f"series {series.uid}")
        self._patient = plan.patient
        if altered.patient_name is not None:
            self._patient = replace(plan.patient, patient_name=altered.patient_name)
        at = plan.begun_at
        self._date = f"{at:%Y-%m-%d}" if at else None
        self._time = f"{at:%H:%M:%S}" if at else None
        self._study = StudyAttributes(
            study_date=self._date,
            study_time=self._time,
            study_id=str(plan.number),
            accession_number=plan.accession_number,
            study_description=altered.study_description or plan.description,
            referring_physician_name=plan.physician,
            institution_name="Klinikum Musterstadt",
        )
        modality = series.kind.removesuffix(" cine")
        self._has_plane = modality in ("CT", "MR", "PT")
        self._columns = SeriesAttributes(
            modality=modality,
            series_number=series.number,
            series_date=self._date,
            series_time=self._time,
            series_description=series.description,
            body_part_examined=plan.body_part,
            protocol_name=plan.protocol,
            manufacturer=plan.device.manufacturer,
            manufacturer_model_name=plan.device.model,
            station_name=plan.device.station,
            frame_of_reference_uid=f"{series.uid}.0" if self._has_plane else None,
        )
        self._syntax = _JPEG if series.kind.startswith("US") else _EXPLICIT
        if altered.is_compressed:
            self._syntax = _JPEG_LS
        self._thickness = self._chance.choice((1.0, 1.25, 3.0, 5.0))
        self._ctdi = round(self._chance.uniform(1.5, 28.0), 2)
        self._template = Template.of(series.kind, self._header(), plan.number)

    def all(self) -> Iterator[Made]:
        for number in range(1, self._series.count + 1):
            # Drawn for the missing ones too: what is left does not depend on them.
            made = self._one(number)
            if number not in self._series.missing:
                yield made

    def _one(self, number: int) -> Made:
        series, plan, chance = self._series, self._plan, self._chance
        uid = f"{series.uid}.{number}"
        if plan.device.has_random_uids:
            uid = f"2.25.{int(hashlib.md5(uid.encode(), usedforsecurity=False).hexdigest(), 16)}"
        rows, columns, stored = _SHAPES[series.kind]
        frames = chance.randrange(20, 90) if series.kind in _IN_FRAMES else None
        is_coloured = series.kind.startswith("US")
        allocated = None if stored is None else 8 if stored == 8 else 16
        pixels = (rows or 0) * (columns or 0) * (frames or 1) * (allocated or 0) // 8
        pixels *= 3 if is_coloured else 1
        if self._syntax != _EXPLICIT:
            pixels = int(pixels * _DEFLATION * chance.uniform(0.8, 1.0)) & ~1
        image = ImageAttributes(
            instance_number=number,
            number_of_frames=frames,
            rows=rows,
            columns=columns,
            samples_per_pixel=None if rows is None else 3 if is_coloured else 1,
            bits_allocated=allocated,
            bits_stored=stored,
            photometric_interpretation=None
            if rows is None
            else "YBR_FULL_422" if is_coloured else "MONOCHROME2",
        )  # fmt: skip
        text = self._template.text(self._values(uid, number, frames, pixels))
        instance = Instance(
            sop_class_uid=SOP_CLASSES[series.kind],
            sop_instance_uid=uid,
            study_instance_uid=plan.uid,
            series_instance_uid=series.uid,
            transfer_syntax_uid=self._syntax,
            patient=self._patient,
            study=self._study,
            series=self._columns,
            image=image,
            attributes=text,
            has_pixels=rows is not None,
        )
        digest = hashlib.sha256(text.encode()).hexdigest()
        inner = hashlib.sha256(digest.encode()).hexdigest()
        return Made(instance, series, digest, inner, pixels + len(text) // 2 * 2)

    def _values(self, uid: str, number: int, frames: int | None, pixels: int) -> dict[str, Any]:
        chance = self._chance
        z = round(-(number - 1) * self._thickness + 120.0, 3)
        frame_time = chance.choice((16.68, 33.333, 40.0, 66.667))
        current = chance.randrange(60, 600)
        return {
            "SOP": uid,
            "Number": number,
            "Z": z,
            "Position": [-179.6484375, -161.6484375, z],
            "Smallest": chance.randrange(20),
            "Largest": chance.randrange(1200, 4095),
            "Current": current,
            "Exposure": current // 2,
            "CTDIvol": self._ctdi,
            "ExposureIndex": float(chance.randrange(150, 900)),
            "AreaDose": round(chance.uniform(0.05, 30.0), 3),
            "FrameTime": frame_time,
            "CineRate": round(1000 / frame_time),
            "Frames": frames,
            "Pixels": {"bytes": pixels},
            "Time": f"{self._time}.{number % 1000:03d}000" if self._time else None,
        }

    def _header(self) -> dict[str, Any]:
        plan, series, chance = self._plan, self._series, self._chance
        rows, columns, stored = _SHAPES[series.kind]
        header: dict[str, Any] = {
            "MediaStorageSOPClassUID": SOP_CLASSES[series.kind],
            "MediaStorageSOPInstanceUID": gap("SOP"),
            "TransferSyntaxUID": self._syntax,
            "SourceApplicationEntityTitle": plan.device.source,
            "SOPClassUID": SOP_CLASSES[series.kind],
            "SOPInstanceUID": gap("SOP"),
            "StudyDate": self._date,
            "SeriesDate": self._date,
            "StudyTime": self._time,
            "SeriesTime": self._time,
            **dict.fromkeys(("InstanceCreationDate", "AcquisitionDate", "ContentDate"), self._date),
            "AccessionNumber": plan.accession_number,
            "Modality": self._columns.modality,
            "Manufacturer": plan.device.manufacturer,
            "InstitutionName": self._study.institution_name,
            "ReferringPhysicianName": plan.physician,
            "StationName": plan.device.station,
            "StudyDescription": self._study.study_description,
            "SeriesDescription": series.description,
            "OperatorsName": [plan.operator],
            "ManufacturerModelName": plan.device.model,
            "PatientName": self._patient.patient_name,
            "PatientID": self._patient.patient_id,
            "PatientBirthDate": self._patient.patient_birth_date,
            "PatientSex": self._patient.patient_sex,
            "PatientAge": f"{chance.randrange(18, 95):03d}Y",
            "BodyPartExamined": plan.body_part,
            "ProtocolName": plan.protocol,
            "RequestedProcedureDescription": plan.description,
            "PerformedProcedureStepStartDate": self._date,
            "PerformedProcedureStepDescription": plan.description,
            "StudyInstanceUID": plan.uid,
            "SeriesInstanceUID": series.uid,
            "StudyID": self._study.study_id,
            "SeriesNumber": series.number,
            "InstanceNumber": gap("Number"),
        }
        if rows is not None:
            header |= {
                "PhotometricInterpretation": "YBR_FULL_422"
                if series.kind.startswith("US")
                else "MONOCHROME2",
                "Rows": rows,
                "Columns": columns,
                "BitsAllocated": 8 if stored == 8 else 16,
                "BitsStored": stored,
                "PixelData": gap("Pixels"),
            }
        if series.kind in _IN_FRAMES:
            header["NumberOfFrames"] = gap("Frames")
        if self._has_plane:
            header |= {
                "FrameOfReferenceUID": self._columns.frame_of_reference_uid,
                "SliceThickness": self._thickness,
            }
        if series.kind == "CT":
            header["KVP"] = float(chance.choice((80, 100, 120, 140)))
            header["ConvolutionKernel"] = [chance.choice(_KERNELS)]
        if series.kind == "MR":
            header["MagneticFieldStrength"] = 3.0 if plan.device.source == "MR1" else 1.5
            header["EchoTime"] = chance.choice((2.46, 9.5, 30.0, 84.0, 101.0))
            header["RepetitionTime"] = chance.choice((4.2, 550.0, 2500.0, 3500.0, 9000.0))
        return {**header, **self._altered.attributes}
