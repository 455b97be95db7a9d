"""What became of a file, in a sentence that a radiographer understands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingester.model import PATIENT_KEYWORDS, STUDY_KEYWORDS

_PLAIN = {
    "archived": "Archived.",
    "unpacked": "An archive file or DICOMDIR: its members are arrivals of their own.",
    "discarded": "Set aside, and later removed by a person's decision.",
}

_REASONS = {
    "not-dicom": "This is not a DICOM file.",
    "empty": "The file is empty.",
    "incomplete": "The file was cut short: part of it never arrived. Send it again.",
    "no-sop-class-uid": "The file does not say what kind of object it is (SOP Class UID).",
    "no-sop-instance-uid": "The file does not say which object it is (SOP Instance UID).",
    "no-study-instance-uid": (
        "The file does not say which study it belongs to (Study Instance UID)."
    ),
    "no-series-instance-uid": (
        "The file does not say which series it belongs to (Series Instance UID)."
    ),
    "unsafe-uid": (
        "An identifier in the file breaks the rules for UIDs, so the file cannot be filed safely."
    ),
    "malformed": "The file is damaged: it cannot be read to its end as DICOM.",
    "too-deep": "The file holds sequences nested deeper than any real object.",
    "too-large": "The file is larger than this archive accepts.",
    "bomb": "The archive file unpacks to far more than it should, and was not unpacked further.",
    "not-a-regular-file": "This is a link or a device, not a file with an image in it.",
    "poison": "Reading this file failed three times in a way that stopped the reader.",
    "archive-member-unsafe": "This member of an archive file has a name that points outside it.",
    "archive-encrypted": (
        "The archive file is protected by a password. Unpack it first and send the contents."
    ),
    "unreadable": "The file could not be read: the service lacks permission, or the disk failed.",
}

_PIXELS = frozenset({"PixelData", "FloatPixelData", "DoubleFloatPixelData"})

#: Private elements are named like this: they are only counted, for their creator's name is
#: something that a file says.
_PRIVATE = re.compile(r"(:[0-9A-F]{4}xx[0-9A-F]{2}|(^|/)[0-9A-F]{3}[13579BDF][0-9A-F]{4})(/|$)")


def explained(arrival: Mapping[str, Any]) -> str:
    """Return what became of an arrival (a row, its `detail` parsed)."""
    detail = arrival.get("detail")
    told: Mapping[str, Any] = detail if isinstance(detail, dict) else {}
    outcome = arrival["outcome"]
    if outcome == "duplicate":
        return _duplicate(told)
    if outcome == "variant":
        return "The same object with its pixels in another transfer syntax: kept beside it."
    if outcome == "conflict":
        return _conflict(told, is_resolved=arrival.get("resolved_at") is not None)
    if outcome in ("quarantined", "foreign"):
        reason = str(arrival.get("reason"))
        words = str(told.get("message") or _REASONS.get(reason, f"Set aside: {reason}."))
        if arrival.get("retried_as"):
            return f"{words} It was sent back as arrival {arrival['retried_as']}."
        return words
    if outcome == "unpacked" and "referenced" in told:
        return _directory(told)
    if told.get("adopted"):
        return "Found in the archive without a row, and given one."
    return _PLAIN.get(outcome, str(outcome))


def _directory(told: Mapping[str, Any]) -> str:
    referenced, missing = int(told["referenced"]), int(told.get("missing") or 0)
    words = f"A DICOMDIR, the list of what is on a medium: it names {referenced} files"
    if not missing:
        return f"{words}, and all are in the archive."
    are = "1 of them is" if missing == 1 else f"{missing} of them are"
    return f"{words}; {are} not in the archive."


def _duplicate(told: Mapping[str, Any]) -> str:
    if told.get("repaired"):
        return "The same object again: it replaced a missing or damaged file."
    return "The same object again: nothing new was stored."


def _conflict(told: Mapping[str, Any], *, is_resolved: bool) -> str:
    differs = [str(each) for each in told.get("differs") or ()]
    lost = told.get("stored_file")
    words = "It says it is an object that is stored already (the same SOP Instance UID)"
    if lost and not differs:
        words += f". The stored file is {lost}, so nobody can tell whether its pixels are the same"
    elif not differs and told.get("pixels_differ", False) is None:
        words += ", but the two could not be compared"
    else:
        words += f", but {'; it '.join(_clauses(told, differs)) or 'differs from it'}"
    if is_resolved:
        return f"{words}. Both are kept, and a person has decided which is current."
    if lost:
        return f"{words}. This one is kept beside it: restore the lost file, or make this current."
    return f"{words}. Both are kept; the first stays current until a person decides."


def _clauses(told: Mapping[str, Any], differs: list[str]) -> Iterator[str]:
    """Yield what is wrong, the worst first."""
    patient = [each for each in differs if each in PATIENT_KEYWORDS]
    study = [each for each in differs if each in STUDY_KEYWORDS]
    if patient or told.get("patient_differs"):
        yield f"names another patient ({_differ(patient)})"
    if study or told.get("study_differs"):
        is_other = "StudyInstanceUID" in study
        yield f"{'belongs to' if is_other else 'describes'} another study ({_differ(study)})"
    rest = [each for each in differs if each not in (*patient, *study, *_PIXELS)]
    public = [each for each in rest if not _PRIVATE.search(each)]
    parts = [listed(public)] if public else []
    if len(public) < len(rest):
        count = len(rest) - len(public)
        parts.append("a private element" if count == 1 else f"{count} private elements")
    if told.get("pixels_differ"):
        parts.append("its pixels")
    if parts:
        yield f"differs in {' and in '.join(parts)}"
    if told.get("pixels_differ", False) is None and not told.get("stored_file"):
        yield "has its pixels in another transfer syntax, so they were not compared"


def _differ(keywords: Sequence[str]) -> str:
    if not keywords:
        return "among much else"
    return f"{listed(keywords)} {'differs' if len(keywords) == 1 else 'differ'}"


def listed(words: Sequence[str], most: int = 8) -> str:
    """Return "a, b and c"; what is beyond *most* is only counted."""
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
