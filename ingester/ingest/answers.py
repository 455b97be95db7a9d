"""What the reading of a claimed file means for it.

The pool answers for every file: an object, an archive file, a reason to refuse it,
or an error.  Here the answer becomes what happens next: an `Entry` for the batch, an
`Unpacking` or `Directory` for `unpacking.py`, or None where the file has to wait, or
be read again, before anything can be said of it.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import replace

from ingester.claims import is_reachable
from ingester.errors import Retry
from ingester.ingest.line import Line
from ingester.ingest.values import Directory, Entry, IngestSettings, Item, Unpacking
from ingester.ingest.waiting import Waiting
from ingester.model import (
    Container,
    ContainerKind,
    Instance,
    Prepared,
    Reason,
    Refusal,
    WriterState,
)
from ingester.pool import Answer
from ingester.quarantine import FILE_ERRORS
from ingester.settle import OVERRULED_AFTER

_logger = logging.getLogger(__name__)

#: Errors of the share that a file lies on: the files of others go on.
_SHARE_ERRORS = frozenset(
    {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)
_ZERO_TAIL_QUIET = 60.0
_FOR_EVER = float("inf")
_NESTED_ONCE = 1
_REMOVED = Refusal(
    Reason.UNREADABLE, "Somebody removed the file after it was taken, before it was archived."
)


class Answers:
    """Decides what becomes of a file, from what was read of it."""

    def __init__(self, line: Line, waiting: Waiting, settings: IngestSettings) -> None:
        self._line = line
        self._waiting = waiting
        self._settings = settings

    def consider(self, item: Item, answer: Answer) -> Entry | Unpacking | Directory | None:
        """Decide what the reading of a file means for it.

        Raises
        ------
        Retry, OSError : the world's fault; the file waits
        """
        if item.refusal is not None:
            return Entry(item, None, refusal=item.refusal)
        if isinstance(answer, Retry):
            self._park(item, None, _FOR_EVER)
            raise answer
        if isinstance(answer, OSError):
            return self.error(item, answer)
        if not answer.is_steady:
            self._park(item, answer, _FOR_EVER)
            return None
        if answer.writer is WriterState.WRITING and not item.is_overruled:
            if not self._park(item, answer, OVERRULED_AFTER):
                item.is_overruled = True
                self._line.append([item])
            return None
        if isinstance(answer.found, Refusal):
            return self.refusal(item, answer, answer.found)
        if isinstance(answer.found, Container):
            return self._container(item, answer, answer.found)
        return self._instance(item, answer, answer.found)

    def error(self, item: Item, error: OSError) -> Entry | None:
        """Decide about a file that could not be read.

        Raises
        ------
        OSError : the world's fault; the file waits
        """
        if error.errno == errno.ENOENT and is_reachable(item.claim):
            _logger.warning("somebody removed the claimed file of %s", item.claim.arrival_id)
            return Entry(item, None, refusal=_REMOVED)
        if error.errno == errno.ENOENT:
            self._park(item, None, _FOR_EVER)  # its share is gone; it will come back
            return None
        if error.errno in FILE_ERRORS:
            most = 0.0 if self._settings.is_impatient else self._settings.incomplete_after
            if self._park(item, None, most):
                return None
            words = f"The file cannot be read ({error.strerror}): see to its permissions."
            return Entry(item, None, refusal=Refusal(Reason.UNREADABLE, words))
        self._park(item, None, _FOR_EVER)
        if error.errno not in _SHARE_ERRORS:
            raise error
        return None

    def refusal(self, item: Item, prepared: Prepared, refusal: Refusal) -> Entry | None:
        """Decide about a file that cannot be taken as it is, but may grow."""
        is_final = (
            not refusal.may_grow
            or self._settings.is_impatient
            or item.claim.is_received
            or item.claim.parent_id is not None
            or refusal.reason is Reason.EMPTY  # it has waited before it was claimed
        )
        if is_final or not self._park(item, prepared, self._settings.incomplete_after):
            return Entry(item, prepared, refusal=refusal)
        return None

    def _instance(self, item: Item, prepared: Prepared, instance: Instance) -> Entry | None:
        is_suspect = prepared.has_zero_tail and prepared.writer is WriterState.UNKNOWN
        if is_suspect and self._park(item, prepared, _ZERO_TAIL_QUIET):
            return None
        return Entry(item, prepared, instance=instance)

    def _container(
        self, item: Item, prepared: Prepared, container: Container
    ) -> Entry | Unpacking | Directory:
        # What brings others along and lies in no folder is a batch of its own name.
        name = item.claim.original_name.rsplit("/", 1)[-1]
        item.claim = replace(item.claim, batch=item.claim.batch or name)
        if container.kind is ContainerKind.DICOMDIR:
            return Directory(item, prepared)
        if item.claim.arrival_id.count(".") > _NESTED_ONCE:
            words = (
                "An archive file inside an archive file inside an archive file is not unpacked:"
                " take it from here, and drop it or what is in it."
            )
            return Entry(item, prepared, refusal=Refusal(Reason.BOMB, words))
        return Unpacking(item, prepared, container)

    def _park(self, item: Item, prepared: Prepared | None, most: float) -> bool:
        self._line.drop_copy(item)
        return self._waiting.park(item, prepared, most)
