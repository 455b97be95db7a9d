"""A batch in numbers and in words: whether it is complete, and if not, why.

Complete means that everything that was expected is in the archive, whichever way (as
the current version, a duplicate, a variant or in conflict), and that nothing of the
batch waits in the spool or lies in quarantine undecided.  Files that are no DICOM are
no lack, unless a DICOMDIR or a list of UIDs says that they ought to be objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingester.index.words import listed
from ingester.receipt.waiting import BatchInSpool

#: The outcomes, in the order of the contract's summary.
OUTCOMES = (
    "archived",
    "duplicate",
    "variant",
    "conflict",
    "quarantined",
    "foreign",
    "unpacked",
    "discarded",
)
#: What may be the matter with something that was expected, and how it is counted in words.
STATUSES = {
    "archived": "archived",
    "elsewhere": "archived by another batch",
    "unpacked": "unpacked",
    "foreign": "no DICOM",
    "waiting": "waiting in the spool",
    "quarantined": "in quarantine",
    "discarded": "discarded by a person",
    "missing": "missing",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """How a batch measures up to one expectation: how many things have which status."""

    kind: str
    name: str
    expected: int
    statuses: Mapping[str, int]
    lacking: int

    @property
    def sentence(self) -> str:
        """Return it in words."""
        parts = [
            f"{self.statuses[status]:,} {words}"
            for status, words in STATUSES.items()
            if self.statuses.get(status)
        ]
        return f"{self.name} lists {self.expected:,}: {', '.join(parts) or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Summary:
    """A batch in numbers, and why it is not complete (sentences; none: it is).

    `counts` has `arrived` and each outcome; of what `waiting` counts, `temporary` files
    have names of copies under way; `undecided` ones lie in quarantine; `unexpected` ones
    nothing names (None: nothing was expected).
    """

    source: str
    batch: str
    counts: Mapping[str, int]
    size_bytes: int
    first_arrived_at: str | None
    last_finished_at: str | None
    waiting: int
    temporary: int
    undecided: int
    unexpected: int | None
    measured: tuple[Measured, ...]
    lacks: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is lacking."""
        return not self.lacks

    @classmethod
    def of(
        cls,
        place: BatchInSpool,
        row: Mapping[str, Any] | None,
        *,
        waiting: int,
        temporary: int,
        undecided: int,
        unexpected: int | None,
        measured: tuple[Measured, ...],
        unreadable: Sequence[str],
        is_open: bool,
    ) -> Summary:
        """Sum up; *row* is the batch's in the view `batches`, None where it has none yet."""
        found: Mapping[str, Any] = row or {}
        lacks = [
            f"{each.lacking:,} of the {each.expected:,} that {each.name} lists"
            for each in measured
            if each.lacking
        ]
        lacks += _waiting_words(waiting, temporary)
        if undecided:
            lacks.append(f"{_files(undecided)} in quarantine, undecided")
        if is_open:
            lacks.append("its association is still open: more may come")
        lacks += [f"what a DICOMDIR lists is not known: {why}" for why in unreadable]
        lacks += [f"a folder cannot be looked at: {why}" for why in sorted(set(place.troubles))]
        return cls(
            source=place.source,
            batch=place.batch,
            counts={name: found.get(name, 0) for name in ("arrived", *OUTCOMES)},
            size_bytes=found.get("size_bytes", 0),
            first_arrived_at=found.get("first_arrived_at"),
            last_finished_at=found.get("last_finished_at"),
            waiting=waiting,
            temporary=temporary,
            undecided=undecided,
            unexpected=unexpected,
            measured=measured,
            lacks=tuple(lacks),
        )


def _waiting_words(waiting: int, temporary: int) -> Iterator[str]:
    if waiting > temporary:
        yield f"{_files(waiting - temporary)} still in the spool"
    if temporary:
        yield f"{_files(temporary)} still being copied, by the name, or left behind half-copied"


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count:,} files are"


def words_of(row: Mapping[str, Any]) -> str:
    """Return what is the matter with something that was expected, for people."""
    status, arrival_id = row["status"], row["arrival_id"]
    if status == "archived":
        return "Archived."
    if status == "elsewhere":
        return f"Archived, but by {_other_batch(row)}."
    if status == "unpacked":
        return "Unpacked: what was in it, or what it names, are files of their own."
    if status == "foreign":
        return f"It arrived, but is no DICOM ({row['reason']})."
    if status == "waiting":
        return "It still waits in the spool."
    if status == "quarantined":
        next_ = f"ingester retry {arrival_id}, or: ingester resolve {arrival_id}"
        return f"It arrived, and is in quarantine ({row['reason']}). Next: {next_}"
    if status == "discarded":
        return "It arrived, and a person discarded it."
    if arrival_id is not None:
        return f"It never arrived; a file of this name did, with other contents ({arrival_id})."
    return "It never arrived."


def _other_batch(row: Mapping[str, Any]) -> str:
    parts = [f"batch {row['batch']}" if row["batch"] else "a file of no batch"]
    if row["source"]:
        parts.append(f"source {row['source']}")
    return listed(parts) if row["arrival_id"] else "another batch"
