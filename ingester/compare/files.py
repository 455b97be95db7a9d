"""Two files opened, compared and judged.

The stored file is hashed first where its recorded digest is known: what is not the
bytes that were archived is no witness for what the object said.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ingester.compare.datasets import PIXELS, DataSet, Path, are_recompressed, differences
from ingester.dicom import part10
from ingester.dicom.dictionary import PIXEL_DATA, entry
from ingester.dicom.elements import Bulk
from ingester.dicom.part10 import Parsed
from ingester.dicom.sources import File
from ingester.errors import Reject
from ingester.model import PATIENT_KEYWORDS, STUDY_KEYWORDS, Outcome, Verdict
from ingester.prepare import Limits, reading_settings

#: So many names are told of a conflict; the rest only counts.
MOST_NAMES = 64

_OF_PIXELS = frozenset(entry(tag).name for tag in PIXELS)

#: All uncompressed transfer syntaxes write pixels alike, byte order aside.
_NATIVE = frozenset(
    (
        part10.IMPLICIT_VR_LITTLE_ENDIAN,
        part10.EXPLICIT_VR_LITTLE_ENDIAN,
        part10.EXPLICIT_VR_BIG_ENDIAN,
        "1.2.840.10008.1.2.1.99",
    )
)

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: A stored file that cannot be read, though the disk around it can.
_UNREADABLE = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENXIO,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
    )
)


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Which stored file to read, and the digest that the index recorded of it."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Which files to compare; the new one is the one that just arrived.

    `old_sha256` is what the index recorded of the stored file, empty where that is not
    to be looked at.  The character sets stand in where a file names none.
    """

    new_path: str
    old_path: str
    limits: Limits = field(default_factory=Limits)
    character_set: str = ""
    old_character_set: str = ""
    old_sha256: str = ""


class CannotCompare(Exception):
    """The stored file cannot be compared; `is_lost`: it is not what was archived."""

    def __init__(self, is_lost: bool) -> None:
        super().__init__(is_lost)
        self.is_lost = is_lost


def check(request: CheckRequest) -> Verdict:
    """Say that a stored file is, to the last byte, what was archived: a duplicate of it.

    Raises
    ------
    CannotCompare
        It is not: gone, unreadable or damaged.
    """
    with _stored(request.path, request.sha256):
        return Verdict(Outcome.DUPLICATE)


def compare(request: CompareRequest) -> Verdict:
    """Say whether the new file is the old one again, a variant of it, or in conflict.

    Raises
    ------
    CannotCompare
        The stored file is gone, unreadable or damaged, or beyond the limits.
    Reject, OSError
        The new file cannot be walked or read: it is not what was read before.
    """
    with (
        _opened(request.new_path) as new,
        _stored(request.old_path, request.old_sha256) as old,
    ):
        return _verdict(
            _parsed(new, request.limits),
            request.character_set,
            _parsed_again(old, request),
            request.old_character_set,
        )


@contextmanager
def _stored(path: str, sha256: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise _cannot(error) from error
    try:
        try:
            is_lost = not stat.S_ISREG(os.fstat(descriptor).st_mode) or (
                bool(sha256) and _sha256(descriptor) != sha256
            )
        except OSError as error:
            raise _cannot(error) from error
        if is_lost:
            raise CannotCompare(is_lost=True)
        yield descriptor
    finally:
        os.close(descriptor)


def _parsed_again(descriptor: int, request: CompareRequest) -> Parsed:
    try:
        return _parsed(descriptor, request.limits)
    except OSError as error:
        raise _cannot(error) from error
    except Reject as error:
        # The very bytes that were archived, as far as known: the limits were wider then.
        raise CannotCompare(is_lost=not request.old_sha256) from error


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, _FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _cannot(error: OSError) -> OSError | CannotCompare:
    return CannotCompare(is_lost=True) if error.errno in _UNREADABLE else error


def _sha256(descriptor: int) -> str:
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(descriptor: int, limits: Limits) -> Parsed:
    return part10.read(File(descriptor, os.fstat(descriptor).st_size), reading_settings(limits))


def _verdict(new: Parsed, character_set: str, old: Parsed, old_character_set: str) -> Verdict:
    sides = _root(new, character_set), _root(old, old_character_set)
    is_other = _pixel_syntax(new) != _pixel_syntax(old)
    is_recompressed = is_other and are_recompressed(*sides)
    found = differences(*sides, is_other_syntax=is_other)
    return verdict_of(found, are_pixels_compared=not is_recompressed)


def verdict_of(paths: Iterable[Path], *, are_pixels_compared: bool) -> Verdict:
    """Return what differing names mean; none of them: duplicate or variant."""
    names: dict[str, None] = {}
    has = dict.fromkeys((_OF_PIXELS, PATIENT_KEYWORDS, STUDY_KEYWORDS), False)
    for path in paths:
        if len(names) < MOST_NAMES:
            names["/".join(path)] = None
        for group in has:
            has[group] |= len(path) == 1 and path[0] in group
    if not names:
        return Verdict(Outcome.DUPLICATE if are_pixels_compared else Outcome.VARIANT)
    return Verdict(
        Outcome.CONFLICT,
        tuple(names),
        pixels_differ=has[_OF_PIXELS] if are_pixels_compared else None,
        patient_differs=has[PATIENT_KEYWORDS],
        study_differs=has[STUDY_KEYWORDS],
    )


def _root(parsed: Parsed, character_set: str) -> DataSet:
    return DataSet(parsed.elements, parsed.encoding.order, character_set, parsed.source)


def is_other_syntax(transfer_syntax_uid: str, other: str) -> bool:
    """Tell whether two transfer syntaxes write pixels differently."""
    return transfer_syntax_uid != other and not {transfer_syntax_uid, other} <= _NATIVE


def _pixel_syntax(parsed: Parsed) -> str:
    # As above, but what is declared may not be so.
    is_encapsulated = any(
        tag == PIXEL_DATA and type(value) is Bulk and value.spans is not None
        for tag, _, value in parsed.elements
    )
    uid = parsed.transfer_syntax_uid
    return "native" if uid in _NATIVE and not is_encapsulated else uid
