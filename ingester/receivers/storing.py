"""What becomes of the data set of one C-STORE, and the status that says so.

| situation | status (PS3.4 table B.2-1) |
|---|---|
| durable in the spool | 0000 |
| disk full, disk broken, flush failed or took too long | A700, senders try again |
| above the object limit | A701 |
| SOP class or instance differ from the command | A900 |
| no SOP Instance UID to be found, or an unsafe one | C000 |

A data set that is refused is still read to its end, so that the answer comes where
the sender waits for it; but not for ever.
"""

from __future__ import annotations

import logging
import re

from ingester.receivers import command as dimse
from ingester.receivers.admission import Room
from ingester.receivers.command import Command
from ingester.receivers.file_meta import identify, preamble_and_meta
from ingester.receivers.landing import Landing, Shelf
from ingester.receivers.upper_layer import ProtocolError

_log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
OBJECT_TOO_LARGE = 0xA701
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_UID = re.compile(r"[0-9]([0-9.]{0,62}[0-9])?", re.ASCII)


class Refused:
    """A data set that is read and forgotten."""

    def __init__(self, status: int, comment: str, limit: int) -> None:
        self._status = status
        self._comment = comment
        self._limit = limit
        self.size_bytes = 0

    def feed(self, data: memoryview) -> None:
        """Count what is thrown away.

        Raises
        ------
        ProtocolError : there is no end to it
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._limit:
            raise ProtocolError("data set without an end")

    def finish(self) -> tuple[int, str]:
        """Return the status and the error comment."""
        return self._status, self._comment

    def discard(self) -> None:
        """Nothing was kept."""


class Storing:
    """A data set on its way into the spool."""

    def __init__(
        self,
        landing: Landing,
        room: Room,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        limit: int,
    ) -> None:
        self._landing = landing
        self._room = room
        self._sop_class_uid = sop_class_uid
        self._sop_instance_uid = sop_instance_uid
        self._transfer_syntax_uid = transfer_syntax_uid
        self._limit = limit
        self._refused: Refused | None = None

    @classmethod
    def begin(
        cls,
        shelf: Shelf,
        room: Room,
        *,
        name: str,
        source: str,
        command: Command,
        transfer_syntax_uid: str,
        calling_ae_title: str,
        receiving_ae_title: str,
        limit: int,
    ) -> Storing | Refused:
        """Prepare to store what *command* announces, or to refuse it."""
        sop_class_uid = command.text(dimse.AFFECTED_SOP_CLASS_UID)
        sop_instance_uid = command.text(dimse.AFFECTED_SOP_INSTANCE_UID)
        if not _UID.fullmatch(sop_instance_uid):
            return Refused(CANNOT_UNDERSTAND, "Affected SOP Instance UID is not a UID", limit)
        if not _UID.fullmatch(sop_class_uid):
            return Refused(CANNOT_UNDERSTAND, "Affected SOP Class UID is not a UID", limit)
        prefix = preamble_and_meta(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae_title=calling_ae_title,
            receiving_ae_title=receiving_ae_title,
        )
        landing = Landing(shelf, source, name, prefix)
        return cls(landing, room, sop_class_uid, sop_instance_uid, transfer_syntax_uid, limit)

    @property
    def size_bytes(self) -> int:
        """Return the bytes of the data set so far."""
        return self._landing.size_bytes

    def feed(self, data: memoryview) -> None:
        """Take a piece of the data set.

        Raises
        ------
        ProtocolError : it is refused and there is no end to it
        """
        if self._refused is not None:
            self._refused.feed(data)
        elif self.size_bytes + len(data) > self._limit:
            self._refuse(OBJECT_TOO_LARGE, "larger than the object limit")
        else:
            self._store(data)

    def _store(self, data: memoryview) -> None:
        try:
            has_written = self._landing.feed(data)
        except OSError as error:
            _log.warning("an object cannot be written to the spool: %s", error.strerror)
            self._refuse(OUT_OF_RESOURCES, "the spool cannot take it now")
            return
        # What is small may finish on the last of the space; what streams gives way.
        if has_written and self._room.is_critical():
            self._refuse(OUT_OF_RESOURCES, "the spool is nearly full")

    def _refuse(self, status: int, comment: str) -> None:
        self._landing.discard()
        self._refused = Refused(status, comment, self._limit)

    def finish(self) -> tuple[int, str]:
        """Make the object durable; return the status and the error comment."""
        if self._refused is None:
            self._compare()
        if self._refused is None:
            try:
                self._landing.finish()
                return SUCCESS, ""
            except OSError as error:
                _log.warning("an object is not durable in the spool: %s", error.strerror)
                self._room.flush_failed()
                self._refuse(OUT_OF_RESOURCES, "the spool cannot take it now")
        assert self._refused is not None
        return self._refused.finish()

    def _compare(self) -> None:
        """Refuse a data set that is not the instance that was announced."""
        head = self._landing.head()
        is_all = len(head) == self.size_bytes
        found = identify(head, self._transfer_syntax_uid, is_all=is_all)
        if found.is_open:
            return
        if found.sop_instance_uid is None:
            self._refuse(CANNOT_UNDERSTAND, "no SOP Instance UID in the data set")
        elif found.sop_instance_uid != self._sop_instance_uid:
            self._refuse(DATA_SET_DOES_NOT_MATCH, "SOP Instance UID is not the command's")
        elif found.sop_class_uid not in (None, self._sop_class_uid):
            self._refuse(DATA_SET_DOES_NOT_MATCH, "SOP Class UID is not the command's")

    def discard(self) -> None:
        """Take everything back: the association ended in the middle."""
        self._landing.discard()
