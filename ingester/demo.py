"""Two made images that show what the archive does: a CT-like still, a cine.

Nobody's data: a phantom drawn with numpy, and a beating shape with speckle.  Their
UIDs are always the same, so a second demonstration is a duplicate, not clutter.

    send([still(), cine()], "127.0.0.1", 11112, "INGESTER")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)
from pynetdicom import AE

from ingester.errors import Retry

#: Counts up whenever the made images change: their UIDs then change too.
_EDITION = "1"
_CALLING_AE_TITLE = "DEMO"
_SUCCESS = 0x0000

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sent:
    """An object the receiver has acknowledged."""

    sop_instance_uid: str
    what: str


def still() -> Dataset:
    """Return a CT-like image: a body with lungs, a spine and a nodule, in HU."""
    ds = _object("still", CTImageStorage, "CT", "Chest phantom")
    pixels = _chest(512)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.SliceThickness, ds.KVP = "1.5", "120"
    ds.PixelSpacing = ["0.7", "0.7"]
    ds.ImagePositionPatient = ["-179", "-179", "0"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    _set_pixels(ds, (pixels + 1024).astype("<u2"), bits_stored=12)
    return ds


def cine(frames: int = 45) -> Dataset:
    """Return an ultrasound-like loop of a beating chamber, 30 frames a second."""
    ds = _object("cine", UltrasoundMultiFrameImageStorage, "US", "Four-chamber phantom")
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.NumberOfFrames = frames
    ds.FrameTime = "33.333"
    ds.FrameIncrementPointer = 0x00181063
    ds.CineRate = 30
    ds.LossyImageCompression = "00"
    _set_pixels(ds, _beating(frames, 361, 481), bits_stored=8)
    return ds


def _object(name: str, sop_class: str, modality: str, description: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["ingester demo", _EDITION, name])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["ingester demo", _EDITION, "study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["ingester demo", _EDITION, name, "series"])
    ds.PatientName = "Demo^Phantom"
    ds.PatientID = "DEMO-1"
    ds.PatientBirthDate = "19000101"
    ds.PatientSex = "O"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20260102"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "101500"
    ds.StudyID = "1"
    ds.AccessionNumber = "DEMO1"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Demonstration"
    ds.SeriesDescription = description
    ds.Modality = modality
    ds.Manufacturer = "ingester"
    ds.SeriesNumber = 1 if modality == "CT" else 2
    ds.InstanceNumber = 1
    return ds


def _set_pixels(ds: Dataset, pixels: NDArray[np.unsignedinteger], *, bits_stored: int) -> None:
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = pixels.dtype.itemsize * 8
    ds.BitsStored = bits_stored
    ds.HighBit = bits_stored - 1
    ds.PixelRepresentation = 0
    data = pixels.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _grid(rows: int, columns: int) -> tuple[Plane, Plane]:
    """Return y and x, each (rows, columns), from -1 to 1."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    return y, x


def _chest(edge: int) -> Plane:
    """Return a chest-like slice in HU, (edge, edge)."""
    y, x = _grid(edge, edge)
    noise = np.random.default_rng(1).normal(0, 12, (edge, edge)).astype(np.float32)
    hu = np.full((edge, edge), -1000, np.float32)
    hu[(x / 0.92) ** 2 + (y / 0.68) ** 2 < 1] = -90  # fat
    hu[(x / 0.86) ** 2 + (y / 0.62) ** 2 < 1] = 50  # muscle
    for side in (-1, 1):
        lung = ((x - side * 0.42) / 0.32) ** 2 + ((y + 0.02) / 0.46) ** 2 < 1
        hu[lung] = -850
    hu[((x + 0.06) / 0.26) ** 2 + ((y + 0.16) / 0.24) ** 2 < 1] = 60  # heart
    hu[(x / 0.13) ** 2 + ((y - 0.42) / 0.12) ** 2 < 1] = 400  # vertebra
    hu[(x / 0.05) ** 2 + ((y - 0.44) / 0.05) ** 2 < 1] = 20  # its canal
    hu[((x - 0.5) / 0.05) ** 2 + ((y - 0.1) / 0.05) ** 2 < 1] = 40  # a nodule
    inside = hu > -1000
    hu[inside] += noise[inside]
    clipped: Plane = np.clip(hu, -1024, 3071)
    return clipped


def _beating(frames: int, rows: int, columns: int) -> NDArray[np.uint8]:
    """Return a sector with a chamber that beats once a second, (frames, rows, columns)."""
    y, x = _grid(rows, columns)
    depth = np.hypot(x * columns / rows, y + 1) / 2
    angle = np.arctan2(x * columns / rows, y + 1)
    in_sector = (np.abs(angle) < 0.75) & (depth < 0.97)
    speckle = np.random.default_rng(2).rayleigh(0.5, (rows, columns)).astype(np.float32)
    loop = np.zeros((frames, rows, columns), np.uint8)
    for number in range(frames):
        beat = 0.5 + 0.5 * np.cos(2 * np.pi * number / 30)
        wall = np.hypot(x / (0.3 + 0.08 * beat), (y - 0.1) / (0.42 + 0.12 * beat))
        echo = np.where(wall < 0.85, 18, np.where(wall < 1.1, 190, 80))
        shifted = np.roll(speckle, number % 7 - 3, axis=0)
        bright = echo * (0.45 + 0.75 * shifted) * (1.1 - 0.5 * depth)
        loop[number] = np.where(in_sector, np.clip(bright, 0, 255), 0).astype(np.uint8)
    return loop


def send(objects: Sequence[Dataset], host: str, port: int, called_ae_title: str) -> list[Sent]:
    """Send objects by C-STORE and return those that were acknowledged.

    Raises
    ------
    Retry
        nobody answers there, or an object was not taken.
    """
    ae = AE(ae_title=_CALLING_AE_TITLE)
    for ds in objects:
        ae.add_requested_context(ds.SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate(host, port, ae_title=called_ae_title)
    if not association.is_established:
        raise Retry(f"the receiver at {host}:{port} does not accept an association")
    sent = []
    try:
        for ds in objects:
            answer = association.send_c_store(ds)
            status = answer.get("Status")
            if status != _SUCCESS:
                shown = "no answer" if status is None else f"0x{status:04X}"
                raise Retry(f"the receiver did not take the object: {shown}")
            sent.append(Sent(str(ds.SOPInstanceUID), str(ds.SeriesDescription)))
    finally:
        association.release()
    return sent
