"""The nouns of the archive: what is seen, claimed, read, stored and made.

A file is an `Arrival` while it only lies in the spool, a `Claim` once nobody
else will touch it, `Prepared` once its bytes were read to the end (and were
found to be an `Instance`, a `Container` of other files, or a `Refusal`), and
an `ArrivalRecord` with an outcome once its fate is durable.  Each can be built
only from the one before.  This module imports nothing of ours.
"""

from __future__ import annotations

import os
import stat as stat_module
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

#: (source, batch): where a file comes from.
Origin = tuple[str, str | None]

#: A JSON document as `json` reads and writes it.
type_json = Any


class Outcome(StrEnum):
    """What became of a file, once and for all (`arrivals.outcome`)."""

    ARCHIVED = "archived"
    DUPLICATE = "duplicate"
    VARIANT = "variant"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"
    FOREIGN = "foreign"
    UNPACKED = "unpacked"
    DISCARDED = "discarded"


class Reason(StrEnum):
    """Why a file was set aside: stable slugs, each documented in docs/reasons.md."""

    NOT_DICOM = "not-dicom"
    EMPTY = "empty"
    INCOMPLETE = "incomplete"
    NO_SOP_CLASS_UID = "no-sop-class-uid"
    NO_SOP_INSTANCE_UID = "no-sop-instance-uid"
    NO_STUDY_INSTANCE_UID = "no-study-instance-uid"
    NO_SERIES_INSTANCE_UID = "no-series-instance-uid"
    UNSAFE_UID = "unsafe-uid"
    MALFORMED = "malformed"
    TOO_DEEP = "too-deep"
    TOO_LARGE = "too-large"
    BOMB = "bomb"
    NOT_A_REGULAR_FILE = "not-a-regular-file"
    POISON = "poison"
    ARCHIVE_MEMBER_UNSAFE = "archive-member-unsafe"
    ARCHIVE_ENCRYPTED = "archive-encrypted"
    UNREADABLE = "unreadable"

    @property
    def outcome(self) -> Outcome:
        """Return the outcome that goes with this reason (contract, section 7)."""
        return Outcome.FOREIGN if self in (Reason.NOT_DICOM, Reason.EMPTY) else Outcome.QUARANTINED


class DerivativeReason(StrEnum):
    """Why a derivative is not what one would wish for (`derivatives.reason`)."""

    NO_PIXELS = "no-pixels"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    CORRUPT_PIXELS = "corrupt-pixels"
    TOO_LARGE = "too-large"
    TIMEOUT = "timeout"
    DECODER_CRASHED = "decoder-crashed"
    ENCODER_FAILED = "encoder-failed"
    SINGLE_FRAME = "single-frame"
    NOT_A_CINE = "not-a-cine"


class Version(StrEnum):
    """Which of several objects with one SOP Instance UID a row describes."""

    CURRENT = "current"
    VARIANT = "variant"
    CONFLICT = "conflict"


class StoredFile(StrEnum):
    """How the file of a stored version was found."""

    WHOLE = "whole"  # as far as its size tells, or its bytes where they were read
    MISSING = "missing"
    DAMAGED = "damaged"


class Kind(StrEnum):
    """The two kinds of derivative."""

    THUMBNAIL = "thumbnail"
    VIDEO = "video"


class Status(StrEnum):
    """How the making of a derivative ended."""

    MADE = "made"
    SKIPPED = "skipped"
    FAILED = "failed"


class WriterState(StrEnum):
    """Whether somebody still writes to a claimed file, as far as a lease can tell."""

    FREE = "free"  # the kernel granted a read lease: no writer is left
    WRITING = "writing"  # the kernel refused it: somebody has the file open for writing
    UNKNOWN = "unknown"  # no leases here (NFS, FUSE, another owner)


class ContainerKind(StrEnum):
    """Files that are not instances but bring others along."""

    ZIP = "zip"
    TAR = "tar"
    TAR_GZ = "tar.gz"
    GZIP = "gzip"  # of one object
    DICOMDIR = "dicomdir"


class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never jump; the zero is arbitrary."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never jump; the zero is arbitrary."""
        return time.monotonic()


def moment(at: datetime) -> str:
    """Return *at* as the index writes our own moments: UTC ISO 8601, ms, `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_last_id = 0
_id_lock = threading.Lock()


def new_id(at: datetime) -> str:
    """Return a new id that sorts by time of making: 24 lower-case hex digits.

    16 digits of microseconds since 1970, raised where needed so that two ids of
    one process never share a moment, and 8 random digits against other processes.
    """
    global _last_id
    with _id_lock:
        _last_id = max(_last_id + 1, int(at.timestamp() * 1_000_000))
        return f"{_last_id:016x}{os.urandom(4).hex()}"


def first_id(at: datetime) -> str:
    """Return what sorts before every id that was made at *at* or later."""
    return f"{int(at.timestamp() * 1_000_000):016x}"


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What `stat` says of a file; two equal ones mean "not touched in between"."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    is_regular: bool

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """Build the identity from a `stat` result."""
        return cls(
            dev=status.st_dev,
            ino=status.st_ino,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            nlink=status.st_nlink,
            is_regular=stat_module.S_ISREG(status.st_mode),
        )


@dataclass(frozen=True, slots=True)
class Arrival:
    """A path seen in the spool, not trusted.

    `relative` is relative to `root` (the spool, or a drop folder on another file
    system), with undecodable bytes as surrogates (`os.fsdecode`).
    """

    root: Path
    relative: str
    identity: FileIdentity
    source: str
    batch: str | None
    original_name: str
    is_received: bool  # written by our own receivers: durable and whole already
    arrival_id: str | None = None  # given beforehand by `import`, else made at the claim


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that is ours: nobody else will touch it by path.

    `folder` is the claim's, below `.claimed`; the file lies below it at `path`, alone
    or together with others (`is_shared`).  A member of an archive file is a claim too,
    below its archive's claim, with `parent_id` set, and shares a folder with its like.
    """

    arrival_id: str
    folder: Path
    path: Path
    source: str
    batch: str | None
    original_name: str
    arrived_at: str
    is_received: bool
    parent_id: str | None = None
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class PatientAttributes:
    """The patient columns of the index, as one instance states them."""

    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None


@dataclass(frozen=True, slots=True)
class StudyAttributes:
    """The study columns of the index, as one instance states them."""

    study_date: str | None = None
    study_time: str | None = None
    study_id: str | None = None
    accession_number: str | None = None
    study_description: str | None = None
    referring_physician_name: str | None = None
    institution_name: str | None = None


@dataclass(frozen=True, slots=True)
class SeriesAttributes:
    """The series columns of the index, as one instance states them."""

    modality: str | None = None
    series_number: int | None = None
    series_date: str | None = None
    series_time: str | None = None
    series_description: str | None = None
    body_part_examined: str | None = None
    protocol_name: str | None = None
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    station_name: str | None = None
    frame_of_reference_uid: str | None = None


@dataclass(frozen=True, slots=True)
class ImageAttributes:
    """The instance columns of the index that come from the header."""

    instance_number: int | None = None
    number_of_frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    samples_per_pixel: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    photometric_interpretation: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """A validated header: safe UIDs, typed attributes and the whole as JSON.

    `transfer_syntax_uid` is the declared one (implicit little endian where File
    Meta is absent and that is how it reads).  `attributes` is a JSON text, keyed by DICOM
    keyword by the rules of the contract, section 4.  `notes` are slugs of oddities
    (`arrivals.detail`), never header values.  `called_ae` fields come from File Meta.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    patient: PatientAttributes
    study: StudyAttributes
    series: SeriesAttributes
    image: ImageAttributes
    attributes: str
    has_pixels: bool
    source_application_entity_title: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """A file that brings others along: an archive file or a DICOMDIR."""

    kind: ContainerKind


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file cannot be archived as it is: a code and a sentence for people.

    The message never holds a header value.  `may_grow` says that more bytes could
    still make it whole (cut short), so that a file still being written waits.
    """

    reason: Reason
    message: str
    may_grow: bool = False
    detail: dict[str, type_json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What reading a claimed file to its end found.

    `identity` is what `fstat` said before and after (equal, else `is_steady` is
    False and nothing else counts).  `staged` says that the bytes were copied, and
    flushed, to the staging path that was asked for; the digests are then of the copy.
    """

    identity: FileIdentity
    is_steady: bool
    writer: WriterState
    sha256: str
    data_set_sha256: str | None
    staged: bool
    has_zero_tail: bool  # ends in >= 64 KiB of zeros: perhaps preallocated
    found: Instance | Container | Refusal


@dataclass(frozen=True, slots=True)
class Stored:
    """Durable bytes under a final name: `path` is relative to the archive."""

    path: str
    sha256: str
    data_set_sha256: str
    size_bytes: int
    archived_at: str
    version: Version


@dataclass(frozen=True, slots=True)
class ArrivalRecord:
    """One row of `arrivals`: a file whose outcome is known.

    Where the outcome is archived, variant or conflict, `instance` and `stored` say
    what the index shall hold of it; a duplicate names the stored one by `instance_id`,
    and where it took the place of a lost file, says what the index shall now hold of that.
    A rebuild names there the id that an object had; else the index gives it one.
    """

    arrival_id: str
    source: str
    batch: str | None
    original_name: str
    arrived_at: str
    finished_at: str
    size_bytes: int
    sha256: str | None
    outcome: Outcome
    reason: Reason | None = None
    detail: dict[str, type_json] = field(default_factory=dict)
    instance_id: int | None = None
    instance: Instance | None = None
    stored: Stored | None = None


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """What the index knows of a stored version of a SOP Instance UID."""

    instance_id: int
    path: str
    size_bytes: int
    sha256: str
    data_set_sha256: str
    transfer_syntax_uid: str
    version: Version
    archived_at: str

    @property
    def source(self) -> str:
        """Return whom it came from: the first part of its path."""
        return self.path.split("/", 1)[0]


#: The keywords that tell patients apart (contract, section 4), and studies.
PATIENT_KEYWORDS = frozenset(("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"))
STUDY_KEYWORDS = frozenset(
    ("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber")
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of a new file with one stored version of its UID.

    `differs` holds keys of `headers.attributes`, in sequences paths of them
    ("RequestAttributesSequence/ScheduledProcedureStepID"), never values.
    """

    outcome: Outcome  # DUPLICATE, VARIANT or CONFLICT
    differs: tuple[str, ...] = ()
    pixels_differ: bool | None = False  # None: they could not be compared
    patient_differs: bool = False  # one of PATIENT_KEYWORDS
    study_differs: bool = False  # one of STUDY_KEYWORDS

    @property
    def weight(self) -> int:
        """Of several verdicts on one object that of the least weight counts."""
        return (Outcome.DUPLICATE, Outcome.VARIANT, Outcome.CONFLICT).index(self.outcome)

    @property
    def evidence(self) -> dict[str, type_json]:
        """Return what `arrivals.detail` tells of a conflict."""
        return {
            "differs": list(self.differs),
            "pixels_differ": self.pixels_differ,
            "patient_differs": self.patient_differs,
            "study_differs": self.study_differs,
        }


@dataclass(frozen=True, slots=True)
class Derivative:
    """One row of `derivatives`: what was made, from what, or why not.

    `path` is relative to the archive; `detail` as in the contract, section 4.
    """

    instance_id: int
    kind: Kind
    status: Status
    reason: DerivativeReason | None
    path: str | None
    pipeline_version: int
    made_at: str
    detail: dict[str, type_json] = field(default_factory=dict)
