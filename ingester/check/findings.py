"""What a check found: a kind, a place and a sentence for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

#: Told (objects done, of how many or None where nobody knows, a note).
Progress = Callable[[int, int | None, str], None]


class FindingKind(StrEnum):
    """What does not agree, as stable slugs."""

    INDEX_DAMAGED = "index-damaged"
    INDEX_MISCOUNTED = "index-miscounted"
    MISSING_OBJECT = "missing-object"
    WRONG_SIZE = "wrong-size"
    WRONG_CHECKSUM = "wrong-checksum"
    UNREADABLE = "unreadable"
    OBJECT_WITHOUT_ROW = "object-without-row"
    MISSING_DERIVATIVE = "missing-derivative"
    DERIVATIVE_WITHOUT_ROW = "derivative-without-row"
    STRAY_FILE = "stray-file"
    LEFTOVER = "leftover"
    MISSING_DICOMDIR = "missing-dicomdir"
    DICOMDIR_WITHOUT_ROW = "dicomdir-without-row"
    MISSING_HEADER = "missing-header"
    MISSING_ARRIVAL = "missing-arrival"
    WRONG_TIME = "wrong-time"
    MISSING_QUARANTINED = "missing-quarantined"
    QUARANTINED_WITHOUT_ROW = "quarantined-without-row"
    DISCARDED_LEFT = "discarded-left"
    NOT_AN_OBJECT = "not-an-object"
    SECOND_CURRENT = "second-current"
    SECOND_COPY = "second-copy"
    MISPLACED = "misplaced"
    FEWER_OBJECTS = "fewer-objects"


_MESSAGES = {
    FindingKind.INDEX_MISCOUNTED: "The counts behind lists of studies, batches and days do not "
    "say what the rows say: somebody wrote to the index. `verify --repair` counts again.",
    FindingKind.MISSING_OBJECT: "The index has this object, but its file is gone. Restore it "
    "from a backup, or send the same file again: it then takes its place.",
    FindingKind.WRONG_SIZE: "The file has not the size it was archived with: it was changed or "
    "damaged. Restore it from a backup, or send the same file again: it then takes its place.",
    FindingKind.WRONG_CHECKSUM: "The file is not byte for byte what was archived. Restore it "
    "from a backup, or send the same file again: it then takes its place.",
    FindingKind.UNREADABLE: "The file is there, but cannot be read: permissions, or a disk that "
    "fails.",
    FindingKind.OBJECT_WITHOUT_ROW: "The file lies in the archive, but the index does not know "
    "it. `verify --repair` takes it in.",
    FindingKind.MISSING_DERIVATIVE: "The thumbnail or video is gone. `verify --repair` has it "
    "made again.",
    FindingKind.DERIVATIVE_WITHOUT_ROW: "A thumbnail or video that the index does not know. "
    "Where its object is known it will be made again; else it may be removed.",
    FindingKind.STRAY_FILE: "Not a file of the archive: somebody put it there.",
    FindingKind.LEFTOVER: "A half-made copy that an interrupted run left behind; the next start "
    "of the service removes it.",
    FindingKind.MISSING_DICOMDIR: "The index says that this DICOMDIR was kept, but it is gone: "
    "`receipt` can no longer compare its medium. Restore it from a backup.",
    FindingKind.DICOMDIR_WITHOUT_ROW: "A kept DICOMDIR that the index does not know. "
    "`verify --repair` gives it a row where the `arrival.json` beside it can be read.",
    FindingKind.MISSING_HEADER: "The index has this object without its header: somebody wrote to "
    "the index. `verify --repair` reads it again.",
    FindingKind.MISSING_ARRIVAL: "The index has this object, but not how it came: somebody wrote "
    "to the index. `verify --repair` notes that it came from the archive.",
    FindingKind.WRONG_TIME: "The file's time is not the moment of archiving, which a rebuild goes "
    "by: it was copied without its time. `verify --repair` sets it.",
    FindingKind.MISSING_QUARANTINED: "The index says that this file lies in quarantine, but it "
    "does not. If somebody removed it: `ingester resolve ID --discard`.",
    FindingKind.QUARANTINED_WITHOUT_ROW: "A quarantined file that the index does not know; the "
    "next start of the service, or `verify --repair`, gives it a row.",
    FindingKind.DISCARDED_LEFT: "A person has discarded this file, but it still lies in "
    "quarantine; the next start of the service, or `verify --repair`, removes it.",
    FindingKind.NOT_AN_OBJECT: "The file has the name of an object, but is not a DICOM object "
    "of that name. It stays where it is, without a row.",
    FindingKind.SECOND_CURRENT: "A second file claims to be the same object; both are kept, and "
    "the older one is current.",
    FindingKind.SECOND_COPY: "Byte for byte the same object lies in the archive twice. This copy "
    "has no row and may be removed.",
    FindingKind.MISPLACED: "The object does not lie where its source, Study Date and UIDs put it: "
    "somebody moved it. It has its row where it lies.",
    FindingKind.FEWER_OBJECTS: "The index knows fewer objects than the one of the last backup, "
    "although nothing ever leaves an archive. Look what became of them before you go on.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not agree; *path* is relative to the archive, or to the spool."""

    kind: FindingKind
    path: str
    message: str

    @classmethod
    def of(cls, kind: FindingKind, path: str, why: str = "") -> Finding:
        """Build a finding with the words of its kind, and *why* where that is known."""
        return cls(kind, path, " ".join(part for part in (_MESSAGES.get(kind, ""), why) if part))


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a check found, and how much it looked at."""

    found: tuple[Finding, ...]
    objects: int
    derivatives: int
    bytes_read: int

    @property
    def is_clean(self) -> bool:
        """Return whether archive and index agree."""
        return not self.found

    @property
    def by_kind(self) -> dict[FindingKind, int]:
        """Return how many there are of each kind."""
        return dict(Counter(finding.kind for finding in self.found))
