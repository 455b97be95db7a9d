"""When is a study, or a batch, complete?  The protocol has no such signal.

A study counts as complete when nothing of it came for `study_quiet`, none of its
files waits in the spool and no association of its senders is open.  A file that can
never be taken would hold that up for ever, so the waiting has an end, and the event
then says that something still waits.  Nothing here knows a clock, a folder or the
index: the service asks, with the time.

    completion.saw(records, now)
    for finished in completion.due(now, is_waiting=...): announce it
    for finished in completion.rest(is_waiting=...): announce it, nothing more will come
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingester.model import ArrivalRecord, Origin, Outcome

#: A study that something waits for is asked again after so many seconds.
_AGAIN_SECONDS = 5.0
_NEW_OBJECTS = frozenset({Outcome.ARCHIVED, Outcome.VARIANT, Outcome.CONFLICT})


@dataclass(frozen=True, slots=True)
class StudyKey:
    """A study, by its UID."""

    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class BatchKey:
    """A batch of a source."""

    source: str
    batch: str


Key = StudyKey | BatchKey


@dataclass(frozen=True, slots=True)
class Finished:
    """A study or batch that is complete; `is_forced` where something still waits."""

    key: Key
    origins: tuple[Origin, ...]
    is_forced: bool


@dataclass(slots=True)
class _Quiet:
    since: float
    due: float
    origins: dict[Origin, None] = field(default_factory=dict)


class Completion:
    """Remembers what came lately and tells what has been quiet long enough.

    Parameters
    ----------
    quiet : seconds without anything new
    at_most : seconds, beyond *quiet*, that waiting files may hold it up
    """

    def __init__(self, *, quiet: float, at_most: float) -> None:
        self._quiet = quiet
        self._at_most = at_most
        self._open: dict[Key, _Quiet] = {}

    def saw(self, records: Sequence[ArrivalRecord], now: float) -> None:
        """Note arrivals whose outcome is committed."""
        for record in records:
            origin = (record.source, record.batch)
            if record.instance is not None and record.outcome in _NEW_OBJECTS:
                self.note(StudyKey(record.instance.study_instance_uid), origin, now)
            if record.batch is not None:
                self.note(BatchKey(record.source, record.batch), origin, now)

    def note(self, key: Key, origin: Origin | None, now: float) -> None:
        """Note that something of a study or batch came, or was not told of yet."""
        quiet = self._open.setdefault(key, _Quiet(now, now))
        quiet.since, quiet.due = now, now + self._quiet
        if origin is not None:
            quiet.origins.setdefault(origin)

    def due(self, now: float, *, is_waiting: Callable[[Key, Origin], bool]) -> list[Finished]:
        """Return, once, what is complete by *now*.

        *is_waiting* tells whether a file of that origin, which may belong to that key,
        waits or may still come over an open association.
        """
        finished = []
        for key, quiet in list(self._open.items()):
            if quiet.due > now:
                continue
            waits = any(is_waiting(key, origin) for origin in quiet.origins)
            if waits and now < quiet.since + self._quiet + self._at_most:
                quiet.due = now + _AGAIN_SECONDS
                continue
            del self._open[key]
            finished.append(Finished(key, tuple(quiet.origins), waits))
        return finished

    def rest(self, *, is_waiting: Callable[[Key, Origin], bool]) -> list[Finished]:
        """Return, once, all that nothing waits for: nobody will be there to see more come."""
        finished = [
            Finished(key, tuple(quiet.origins), is_forced=False)
            for key, quiet in self._open.items()
            if not any(is_waiting(key, origin) for origin in quiet.origins)
        ]
        for each in finished:
            del self._open[each.key]
        return finished

    def next_due(self) -> float | None:
        """Return when `due` is worth asking next (monotonic)."""
        return min((quiet.due for quiet in self._open.values()), default=None)
