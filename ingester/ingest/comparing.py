"""What the objects of a batch are to the stored versions of their UIDs.

Equal data sets are the same without a look at their values.  Everything else is asked
of the pool, for a whole batch at once: first about the stored files, value by value;
then about the recorded headers, where a stored file is gone or not what was archived.

A pair of files that ends the process that compares them must not end the ingest: after
a crash each pair is compared alone, and one that is not survived counts as a conflict,
which means that both are kept.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import NamedTuple

from ingester.archive import Archive
from ingester.compare import (
    MOST_COMPARED,
    NOBODY_CAN_TELL,
    CannotCompare,
    CheckRequest,
    CompareRequest,
    HeaderRequest,
    check,
    compare,
    compare_headers,
    is_other_syntax,
)
from ingester.errors import Reject
from ingester.index.writer import Writer
from ingester.ingest.allowance import Allowance
from ingester.ingest.sealing import Sealing, Touched
from ingester.ingest.values import MOST_BREAKS, Entry, IngestSettings
from ingester.model import Clock, KnownVersion, Outcome, StoredFile, Verdict
from ingester.moments import mtime_ns_of
from ingester.quarantine import FILE_ERRORS

_DUPLICATE = Verdict(Outcome.DUPLICATE)

#: Beside what has to be read, so much is: bytes a second, and at once after a pause.
_CHECKED_PER_SECOND = 8 << 20
_CHECKED_AT_ONCE = 256 << 20

#: Some file systems keep times no better than this.
_SAME_TIME_NS = 2_000_000_000

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Compared:
    """An object against one stored version, and how that one's file was found."""

    entry: Entry
    version: KnownVersion
    stored_file: StoredFile
    verdict: Verdict

    @property
    def is_lost(self) -> bool:
        """Return whether the stored file is not what was archived."""
        return self.stored_file is not StoredFile.WHOLE


class _Question(NamedTuple):
    entry: Entry
    key: str
    function: Callable[..., Verdict]
    request: CheckRequest | CompareRequest | HeaderRequest


class Comparing:
    """Compares objects with the stored versions of their UIDs, all of a batch at once."""

    def __init__(
        self,
        archive: Archive,
        writer: Writer,
        sealing: Sealing,
        executor: Callable[[], Executor],
        settings: IngestSettings,
        clock: Clock,
    ) -> None:
        self._archive = archive
        self._writer = writer
        self._sealing = sealing
        self._executor = executor
        self._settings = settings
        self._allowance = Allowance(clock, per_second=_CHECKED_PER_SECOND, most=_CHECKED_AT_ONCE)

    def compare(
        self, wanted: Sequence[tuple[Entry, Sequence[KnownVersion]]]
    ) -> list[list[Compared]]:
        """Return for each object what it is to its stored versions, in their order.

        Raises
        ------
        Touched : the new file is not what was read: read it again
        BrokenProcessPool : ask again, with a new pool
        """
        found = [self._begin(entry, versions) for entry, versions in wanted]
        pairs = [each for group in found for each in group]
        by_file = [each for each in pairs if not each.is_lost and self._must_be_read(each)]
        answers = self._ask([self._about_file(each) for each in by_file])
        for each, answer in zip(by_file, answers, strict=True):
            if isinstance(answer, Verdict):
                each.verdict = answer
            elif answer.is_lost:
                each.stored_file = self._archive.lost(each.version.path)
        self._compare_headers([each for each in pairs if each.verdict is NOBODY_CAN_TELL])
        return found

    def _begin(self, entry: Entry, versions: Sequence[KnownVersion]) -> list[Compared]:
        assert entry.prepared is not None
        assert entry.instance is not None
        mine = entry.prepared.data_set_sha256, entry.instance.transfer_syntax_uid
        for each in versions:
            if (each.data_set_sha256, each.transfer_syntax_uid) == mine:
                return [Compared(entry, each, self._stored_file(each), _DUPLICATE)]
        return [
            Compared(entry, each, self._stored_file(each), NOBODY_CAN_TELL)
            for each in (*versions[:1], *versions[1:][-MOST_COMPARED:])
        ]

    def _stored_file(self, version: KnownVersion) -> StoredFile:
        status = self._archive.status_of(version.path)
        if status is None or status.st_size != version.size_bytes:
            return self._archive.lost(version.path)
        return StoredFile.WHOLE

    def _must_be_read(self, pair: Compared) -> bool:
        """Return whether the stored file is read, where it seems to be there.

        Although the data sets are equal it is, where a person waits for the answer, where
        somebody has written to it, and where a repair may have been interrupted (what
        lies there may be this very file, of the size of the lost one, while the row
        still tells of that); else as far as the allowance goes.
        """
        item = pair.entry.item
        if pair.verdict is not _DUPLICATE or item.is_awaited or self._settings.is_impatient:
            return True
        status = self._archive.status_of(pair.version.path)
        written_at = status.st_mtime_ns if status else 0
        is_untouched = abs(written_at - mtime_ns_of(pair.version.archived_at)) <= _SAME_TIME_NS
        if item.is_repeated or not is_untouched:
            return True
        return self._allowance.take(pair.version.size_bytes)

    def _compare_headers(self, pairs: Sequence[Compared]) -> None:
        if not pairs:
            return
        recorded = self._writer.attributes({each.version.instance_id for each in pairs})
        questions = [_about_header(each, recorded[each.version.instance_id]) for each in pairs]
        for each, answer in zip(pairs, self._ask(questions), strict=True):
            assert isinstance(answer, Verdict)
            each.verdict = answer

    def _about_file(self, pair: Compared) -> _Question:
        version = pair.version
        path = str(self._archive.absolute(version.path))
        if pair.verdict is _DUPLICATE:
            request = CheckRequest(path, version.sha256)
            return _Question(pair.entry, f"check {version.path}", check, request)
        source = pair.entry.item.claim.source
        return _Question(
            pair.entry,
            f"file {version.path}",
            compare,
            CompareRequest(
                new_path=str(self._sealing.bytes_of(pair.entry)),
                old_path=path,
                limits=self._settings.limits,
                character_set=self._settings.defaults_of(source).character_set,
                old_character_set=self._settings.defaults_of(version.source).character_set,
                old_sha256=version.sha256,
            ),
        )

    # ---------------------------------------------------------------------- the pool

    def _ask(self, questions: Sequence[_Question]) -> list[Verdict | CannotCompare]:
        """Ask all that has no answer yet, the suspects among them one by one."""
        new = [each for each in questions if each.key not in each.entry.answers]
        self._ask_together([each for each in new if not each.entry.is_suspect])
        for each in new:
            if each.entry.is_suspect:
                self._ask_alone(each)
        return [each.entry.answers[each.key] for each in questions]

    def _ask_together(self, questions: Sequence[_Question]) -> None:
        if not questions:
            return
        try:
            pool = self._executor()
            futures = [pool.submit(each.function, each.request) for each in questions]
            for each, future in zip(questions, futures, strict=True):
                each.entry.answers[each.key] = _answer(each.entry, future)
        except BrokenProcessPool:
            for each in questions:
                each.entry.is_suspect |= each.key not in each.entry.answers
            raise

    def _ask_alone(self, question: _Question) -> None:
        entry = question.entry
        try:
            future = self._executor().submit(question.function, question.request)
            entry.answers[question.key] = _answer(entry, future)
        except BrokenProcessPool:
            entry.breaks += 1
            if entry.breaks >= MOST_BREAKS:
                _logger.error("two files that cannot be compared: %s", entry.item.claim.arrival_id)
                entry.answers[question.key] = NOBODY_CAN_TELL
            raise


def _about_header(pair: Compared, recorded: str) -> _Question:
    instance = pair.entry.instance
    assert instance is not None
    request = HeaderRequest(
        new=instance.attributes,
        old=recorded,
        is_other_syntax=is_other_syntax(
            instance.transfer_syntax_uid, pair.version.transfer_syntax_uid
        ),
    )
    return _Question(pair.entry, f"header {pair.version.path}", compare_headers, request)


def _answer(entry: Entry, future: Future[Verdict]) -> Verdict | CannotCompare:
    try:
        return future.result()
    except CannotCompare as error:
        return error
    except Reject as error:
        raise Touched(entry) from error
    except OSError as error:
        if error.errno in (errno.ENOENT, *FILE_ERRORS):
            raise Touched(entry) from error
        raise
