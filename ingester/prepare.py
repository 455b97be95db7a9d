"""Read a claimed file once, to its end, and say what it is.

`prepare` is a pure function over the bytes of one file: it hashes them, walks their
structure, reads the header, and copies them where a copy is needed.  It runs in a
pool of processes (or on any `concurrent.futures.Executor`), so what it takes and
returns is small and can be pickled.

    lstat, open        never a link, never a FIFO, never blocking
    lease              is anybody still writing?
    read               hash, walk, header; the copy is written from the same bytes
    fstat              did it change meanwhile?
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import logging
import os
import signal
import stat as stat_module
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ingester import durable, settle
from ingester.dicom import header, part10
from ingester.dicom.elements import Limits as WalkLimits
from ingester.dicom.sources import PAGE, File, Memory, Source
from ingester.errors import Reject, Retry
from ingester.model import (
    Container,
    ContainerKind,
    FileIdentity,
    Instance,
    Prepared,
    Reason,
    Refusal,
    WriterState,
)
from ingester.sniff import container_of, foreign_as, packed_as, sniff

__all__ = ["Limits", "PrepareRequest", "initialise", "prepare", "reading_settings", "sniff"]

#: Files up to this size are read whole (bytes); of larger ones the walk sees a few
#: pages, and everything is hashed piece by piece, while each is in the cache.
_WHOLE = 128 * 1024
_PIECE = 128 * 1024

#: A tail of so many zeros may be space that a writer reserved (bytes).
_ZERO_TAIL = bytes(64 * 1024)

#: The header becomes JSON by recursion, which must not reach Python's own limit.
_DEEPEST = 128

_PR_SET_PDEATHSIG = 1
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one file may ask of us (contract, section 6, `[limits]`)."""

    object_bytes: int = 8 * 2**30
    nesting: int = 64
    elements: int = 500_000
    header_bytes: int = 16 * 2**20
    deflate_ratio: int = 200


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """Which file to read, and how.

    `intake` is "copy" where linking is impossible, "read" where nothing is to be
    copied at all (an archived object); `staging` is where the copy goes
    and must not exist.  `is_received`: our own receivers' file, which nobody writes.
    `character_set` and `issuer_of_patient_id` stand in where a file has none.
    """

    path: str
    intake: Literal["auto", "link", "copy", "read"]
    staging: str
    is_received: bool
    character_set: str
    issuer_of_patient_id: str
    limits: Limits


class _Reading(NamedTuple):
    # What one pass over the bytes gave.
    sha256: str
    data_set_sha256: str | None
    has_zero_tail: bool
    staged: bool
    is_whole: bool
    found: Instance | Container | Refusal


def prepare(request: PrepareRequest) -> Prepared:
    """Read the file to its end and say what it is, and what its bytes are.

    Where the file is no regular file or larger than an object may be it is not
    read, and `sha256` is empty.

    Raises
    ------
    OSError
        Where the file cannot be read or has vanished.
    Retry
        Where the copy cannot be written.
    """
    status = os.lstat(request.path)
    if not stat_module.S_ISREG(status.st_mode):
        return _unread(FileIdentity.of(status), _not_regular())
    try:
        descriptor = os.open(request.path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # swapped since: a link, a socket
            return _unread(FileIdentity.of(os.lstat(request.path)), _not_regular())
        raise
    try:
        return _prepare_open(descriptor, request)
    finally:
        os.close(descriptor)


def _prepare_open(descriptor: int, request: PrepareRequest) -> Prepared:
    status = os.fstat(descriptor)
    identity = FileIdentity.of(status)
    if not identity.is_regular:
        return _unread(identity, _not_regular())
    writer = WriterState.FREE if request.is_received else settle.probe(descriptor)
    if identity.size > request.limits.object_bytes:
        return _unread(identity, _too_large(), writer)
    is_copied = request.intake != "read" and (
        request.intake == "copy"
        or identity.nlink > 1
        or (request.intake == "auto" and writer is not WriterState.FREE)
    )
    staging = Path(request.staging) if is_copied else None
    read = _read_whole if identity.size <= _WHOLE else _read_paged
    reading = read(descriptor, identity.size, staging, request)
    is_steady = reading.is_whole and FileIdentity.of(os.fstat(descriptor)) == identity
    if reading.staged and not is_steady:
        durable.unlink(Path(request.staging))
    return Prepared(
        identity=identity,
        is_steady=is_steady,
        writer=writer,
        sha256=reading.sha256,
        data_set_sha256=reading.data_set_sha256,
        staged=reading.staged and is_steady,
        has_zero_tail=reading.has_zero_tail,
        found=reading.found,
    )


# -- reading -----------------------------------------------------------------------------


def _read_whole(
    descriptor: int, size: int, staging: Path | None, request: PrepareRequest
) -> _Reading:
    # One read; hash, walk and copy all see the same bytes.
    content = os.read(descriptor, size + 1)
    while len(content) < size:
        more = os.read(descriptor, size + 1 - len(content))
        if not more:
            break
        content += more
    found, start = _examine(Memory(content), request)
    sha256 = hashlib.sha256(content).hexdigest()
    data_set_sha256 = None
    if start is not None:
        view = memoryview(content)[start:]
        data_set_sha256 = hashlib.sha256(view).hexdigest() if start else sha256
    is_whole = len(content) == size
    staged = staging is not None and is_whole and isinstance(found, Instance)
    if staged and staging is not None:
        _write_copy(staging, content)
    return _Reading(sha256, data_set_sha256, content.endswith(_ZERO_TAIL), staged, is_whole, found)


@contextmanager
def _copying() -> Iterator[None]:
    """Tell a copy that cannot be written (the world's fault) from a file that cannot be read."""
    try:
        yield
    except OSError as error:
        raise Retry(f"a copy cannot be written: {error.strerror}") from error


def _write_copy(staging: Path, content: bytes) -> None:
    with _copying():
        copy = durable.create(staging, 0o640)
    try:
        with _copying():
            durable.write(copy, content, staging)
            durable.flush_file(copy, staging)
    except BaseException:
        durable.unlink(staging)
        raise
    finally:
        os.close(copy)


def _read_paged(
    descriptor: int, size: int, staging: Path | None, request: PrepareRequest
) -> _Reading:
    # Constant memory: a few pages are walked, then everything is hashed, and copied,
    # in one go.  Where a copy is made, it is the copy that is walked.
    source = File(descriptor, size)
    if staging is not None and _may_be_instance(source):
        return _copy_paged(source, staging, request)
    found, start = _examine(source, request)
    digests = _hash(source, start)
    return _Reading(
        digests.sha256, digests.data_set, digests.has_zero_tail, False, digests.is_whole, found
    )


def _may_be_instance(source: Source) -> bool:
    return sniff(source.at(0, 512)[0][:512]) in ("dicom", "maybe")


def _copy_paged(source: File, staging: Path, request: PrepareRequest) -> _Reading:
    guess = part10.data_set_start(source)
    with _copying():
        copy = durable.create(staging, 0o640)
    is_kept = False
    try:
        digests = _hash(source, guess, copy, staging)
        written = os.open(staging, _FLAGS)
        try:
            found, start = _examine(File(written, source.size), request)
        finally:
            os.close(written)
        is_kept = isinstance(found, Instance) and digests.is_whole and start == guess
        if is_kept:
            with _copying():
                durable.flush_file(copy, staging)
    finally:
        os.close(copy)
        if not is_kept:
            durable.unlink(staging)
    is_instance = isinstance(found, Instance)
    return _Reading(
        digests.sha256,
        digests.data_set if is_instance else None,
        digests.has_zero_tail,
        is_kept,
        digests.is_whole and (is_kept or not is_instance),
        found,
    )


class _Digests(NamedTuple):
    sha256: str
    data_set: str | None
    has_zero_tail: bool
    is_whole: bool


def _hash(source: File, start: int | None, copy: int = -1, staging: Path | None = None) -> _Digests:
    # Hashes the file, and the data set from *start* on; writes the copy on the way.
    whole, data_set = hashlib.sha256(), hashlib.sha256()
    view = memoryview(bytearray(_PIECE))
    zeros = 0  # how many of the last bytes are zeros, as far as that matters
    position, size = 0, source.size
    while position < size:
        got = os.preadv(source.descriptor, [view[: min(_PIECE, size - position)]], position)
        if not got:
            break
        piece = view[:got]
        whole.update(piece)
        if start is not None and position + got > start:
            data_set.update(piece[max(start - position, 0) :])
        if staging is not None:
            with _copying():
                durable.write(copy, piece, staging)
        position += got
        if size - position < len(_ZERO_TAIL):
            kept = bytes(piece).rstrip(b"\0")
            zeros = got - len(kept) + (0 if kept else zeros)
    return _Digests(
        whole.hexdigest(),
        data_set.hexdigest() if start is not None else None,
        zeros >= len(_ZERO_TAIL),
        position == size,
    )


# -- what the bytes are ------------------------------------------------------------------


def _examine(
    source: Source, request: PrepareRequest
) -> tuple[Instance | Container | Refusal, int | None]:
    # Returns what the file is, and where its data set begins if it is an instance.
    if not source.size:
        return Refusal(Reason.EMPTY, "The file is empty.", may_grow=True), None
    window, _ = source.at(0, 512)
    head = window[:512]
    kind = sniff(head)
    if kind in ("zip", "tar", "gzip"):
        container = container_of(source, kind)
        return (Container(container) if container else _foreign(source)), None
    if (kind == "packed" or not any(head)) and (packed := packed_as(source)) is not None:
        return _packed(packed), None
    if not any(head) and _is_all_zeros(source):
        return (
            Refusal(
                Reason.INCOMPLETE,
                "The file holds nothing but zeros: its contents never came. Copy or send it again.",
                may_grow=True,
            ),
            None,
        )
    try:
        parsed = part10.read(source, reading_settings(request.limits))
        if header.is_directory(parsed):
            return Container(ContainerKind.DICOMDIR), None
        instance = header.instance(
            parsed,
            character_set=request.character_set,
            issuer_of_patient_id=request.issuer_of_patient_id,
        )
    except Reject as reject:
        is_foreign = reject.refusal.reason is Reason.NOT_DICOM
        return (_foreign(source) if is_foreign else _advised(reject.refusal)), None
    return instance, parsed.data_set_start


def reading_settings(limits: Limits) -> part10.Settings:
    """Return the limits as `part10.read` takes them."""
    return part10.Settings(
        WalkLimits(min(limits.nesting, _DEEPEST), limits.elements, limits.header_bytes),
        limits.deflate_ratio,
        limits.object_bytes,
    )


def _is_all_zeros(source: Source) -> bool:
    position = 0
    while position < source.size:
        window, base = source.at(position, PAGE)
        if window.count(0) != len(window) or not window:
            return False
        position = base + len(window)
    return True


def _unread(
    identity: FileIdentity, refusal: Refusal, writer: WriterState = WriterState.UNKNOWN
) -> Prepared:
    return Prepared(
        identity=identity,
        is_steady=True,
        writer=writer,
        sha256="",
        data_set_sha256=None,
        staged=False,
        has_zero_tail=False,
        found=refusal,
    )


_AGAIN = "Have it sent again; if it comes out the same, ask whoever made it."
_MAKER = "It cannot be filed without that: ask whoever made it."
_LIMIT = "If the file is genuine, raise the limit ([limits] in ingest.toml) and retry it."

_UNPACK_IT = "unpack it and drop the files"

#: What a person can do about it, said after what is wrong.
_ADVICE = {
    Reason.INCOMPLETE: "Copy or send it again.",
    Reason.MALFORMED: _AGAIN,
    Reason.NO_SOP_CLASS_UID: _MAKER,
    Reason.NO_SOP_INSTANCE_UID: _MAKER,
    Reason.NO_STUDY_INSTANCE_UID: _MAKER,
    Reason.NO_SERIES_INSTANCE_UID: _MAKER,
    Reason.UNSAFE_UID: "It cannot be filed under that: ask whoever made it.",
    Reason.TOO_DEEP: _LIMIT,
    Reason.TOO_LARGE: _LIMIT,
}


def _advised(refusal: Refusal) -> Refusal:
    advice = _ADVICE.get(refusal.reason)
    return replace(refusal, message=f"{refusal.message} {advice}") if advice else refusal


def _not_regular() -> Refusal:
    return Refusal(
        Reason.NOT_A_REGULAR_FILE, "This is a link, a pipe or a device: put the file itself there."
    )


def _too_large() -> Refusal:
    return Refusal(Reason.TOO_LARGE, "The file is larger than the configured limit allows.")


def _packed(words: str) -> Refusal:
    return Refusal(Reason.UNREADABLE, f"This is {words}, which is not unpacked here: {_UNPACK_IT}.")


def _foreign(source: Source) -> Refusal:
    words = foreign_as(source)
    if words is None:
        return part10.not_dicom().refusal
    advice = f" If it unpacks itself, {_UNPACK_IT}." if words.startswith("a program with") else ""
    return Refusal(Reason.NOT_DICOM, f"This is {words}, not a DICOM file.{advice}")


# -- processes of the pool ---------------------------------------------------------------


def initialise() -> None:
    """Make a fresh pool process ready: quiet, warm, and gone when its parent is."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the signal was armed
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle.ignore_lease_breaks()
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.ERROR)
