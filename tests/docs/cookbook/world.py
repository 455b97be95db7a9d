"""A small hospital, twice: as an index, and as plain Python that knows no SQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import hospital
from ingester.index import Event, Writer
from ingester.model import (
    ArrivalRecord,
    Derivative,
    DerivativeReason,
    Kind,
    Status,
    moment,
)
from tests.docs.cookbook import oddities

Row = dict[str, Any]
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

STUDIES, INSTANCES_PER_STUDY = 150, 15
PIPELINE_VERSION = 1


@dataclass
class World:
    """What the index holds, row by row; JSON parsed as `said` and `told`."""

    arrivals: list[Row] = field(default_factory=list)
    objects: list[Row] = field(default_factory=list)
    series: dict[str, Row] = field(default_factory=dict)
    studies: dict[str, Row] = field(default_factory=dict)
    patients: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    derivatives: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def current(self) -> list[Row]:
        """Return the objects without their other versions."""
        return [each for each in self.objects if each["version"] == "current"]

    def objects_of(self, study_instance_uid: str) -> list[Row]:
        return [o for o in self.objects if o["study_instance_uid"] == study_instance_uid]

    def series_of(self, study_instance_uid: str) -> list[Row]:
        return [s for s in self.series.values() if s["study_instance_uid"] == study_instance_uid]

    def modalities_of(self, study_instance_uid: str) -> set[str]:
        return {each["modality"] for each in self.series_of(study_instance_uid)}

    def patient_of(self, study: Row) -> Row:
        return self.patients[study["patient"]]

    def derived(self, instance_id: int, kind: str) -> Row | None:
        """Return the derivative of this kind, if it has a row."""
        for each in self.derivatives:
            if (each["instance_id"], each["kind"]) == (instance_id, kind):
                return each
        return None

    def by_series(self, objects: Iterable[Row]) -> Iterator[tuple[Row, list[Row]]]:
        """Yield each series with its objects among these."""
        for uid, members in grouped(objects, lambda o: o["series_instance_uid"]):
            yield self.series[uid], members

    def take(self, record: ArrivalRecord) -> None:
        """Note what a record tells, as the index must."""
        arrival = {**asdict(record), "outcome": record.outcome.value, "told": record.detail}
        arrival["reason"] = record.reason.value if record.reason else None
        self.arrivals.append(arrival)
        if record.instance is None or record.stored is None:
            return
        instance, stored = record.instance, record.stored
        patient = asdict(instance.patient)
        identity = tuple(
            patient[name]
            for name in (
                "patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date",
            )
        )  # fmt: skip
        self.patients.setdefault(identity, {**patient, "patient": identity})
        study = self.studies.get(instance.study_instance_uid)
        if study is None:
            study = self.studies[instance.study_instance_uid] = {
                "study_instance_uid": instance.study_instance_uid,
                "patient": identity,
                "first_archived_at": stored.archived_at,
                "last_archived_at": stored.archived_at,
                **asdict(instance.study),
            }
        study["first_archived_at"] = min(study["first_archived_at"], stored.archived_at)
        study["last_archived_at"] = max(study["last_archived_at"], stored.archived_at)
        series = {
            "series_instance_uid": instance.series_instance_uid,
            "study_instance_uid": instance.study_instance_uid,
            **asdict(instance.series),
        }
        for known, said in (
            (self.series.setdefault(instance.series_instance_uid, series), series),
            (study, asdict(instance.study)),
        ):
            for name, value in said.items():
                if known[name] is None:
                    known[name] = value
        arrival["instance_id"] = len(self.objects) + 1
        self.objects.append(
            {
                "instance_id": len(self.objects) + 1,
                "sop_instance_uid": instance.sop_instance_uid,
                "series_instance_uid": instance.series_instance_uid,
                "study_instance_uid": instance.study_instance_uid,
                "sop_class_uid": instance.sop_class_uid,
                "transfer_syntax_uid": instance.transfer_syntax_uid,
                **asdict(instance.image),
                "source": record.source,
                **asdict(stored),
                "version": stored.version.value,
                "patient_said": patient,
                "said": json.loads(instance.attributes),
            }
        )


def build(path: Path, columns: Sequence[str]) -> World:
    """Make the index at *path*, with these promoted columns, and its double."""
    world = World()
    with closing(Writer.open(path, columns=columns)) as writer:
        made = list(hospital.records(STUDIES, INSTANCES_PER_STUDY))
        (like,) = (
            each
            for each in made
            if each.outcome == "archived"
            and each.instance is not None
            and each.instance.sop_instance_uid == oddities.FIRST_SLICE
        )
        records = [*made, *oddities.records(like)]
        ids = writer.record(records, announce=False)
        for record in records:
            world.take(record)
        assert [each["instance_id"] for each in world.arrivals] == ids
        derivatives = list(
            hospital.derivatives(
                (id_, record)
                for id_, record in zip(ids, records, strict=True)
                if id_ is not None and record.stored is not None
            )
        )
        cine = max(o["instance_id"] for o in world.objects if o["number_of_frames"])
        derivatives = [
            replace(
                each,
                status=Status.FAILED,
                reason=DerivativeReason.ENCODER_FAILED,
                detail={"fps": 99.0},
            )
            if (each.instance_id, each.kind) == (cine, Kind.VIDEO)
            else each
            for each in derivatives
        ]
        writer.record_derivatives(derivatives)
        world.derivatives = [_as_row(each) for each in derivatives]
        world.events = _events(made) + oddities.EVENTS
        writer.add_events(world.events)
        _decide(writer, world)
    return world


def _as_row(derivative: Derivative) -> Row:
    return {
        **asdict(derivative),
        "kind": derivative.kind.value,
        "status": derivative.status.value,
        "reason": derivative.reason.value if derivative.reason else None,
        "told": derivative.detail,
    }


def _events(records: Iterable[ArrivalRecord]) -> list[Event]:
    """Return an event for each complete study, an hour after its last object came."""
    last: dict[str, str] = {}
    for record in records:
        if record.instance is not None:
            last[record.instance.study_instance_uid] = record.finished_at
    hour = timedelta(hours=1)
    return [
        Event(moment(datetime.fromisoformat(at) + hour), "study.complete", uid)
        for uid, at in last.items()
    ]


def _decide(writer: Writer, world: World) -> None:
    """Send files of quarantine back, settle another and a conflict, let a video fail."""
    conflict = next(each for each in world.arrivals if each["outcome"] == "conflict")
    settled = ("settled-1", conflict["arrival_id"])
    for arrival in world.arrivals:
        arrival_id = arrival["arrival_id"]
        is_retried = arrival_id.startswith("retried")
        arrival["retried_as"] = "night-2" if is_retried else None
        is_settled = is_retried or arrival_id in settled
        arrival["resolved_at"] = hospital.DAY if is_settled else None
        if is_retried:
            writer.mark_retried(arrival_id, "night-2", hospital.DAY)
    writer.run_in_transaction(
        lambda c: c.executemany(
            "UPDATE arrivals SET resolved_at = ? WHERE arrival_id = ?",
            [(hospital.DAY, arrival_id) for arrival_id in settled],
        )
    )


# -- the words of the answers ------------------------------------------------------------


def grouped(rows: Iterable[T], key: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    """Return (key, members) in order of the keys, an absent value first, as SQLite does."""
    ordered = sorted(rows, key=lambda row: sortable(key(row)))
    return [(each, list(members)) for each, members in groupby(ordered, key)]


def sortable(value: Any) -> Any:
    """Return what sorts as SQLite sorts: nothing before something."""
    if isinstance(value, tuple):
        return tuple(map(sortable, value))
    return (value is not None, value if value is not None else 0)


def total(rows: Iterable[Row], name: str = "size_bytes") -> int:
    return sum(row[name] for row in rows)


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


@dataclass(frozen=True, slots=True)
class Rounded:
    """A number that the answer shows with so many digits after the point."""

    value: float
    digits: int

    def fits(self, found: object) -> bool:
        """Return whether *found* is this number rounded, a tie up or down."""
        half = 0.5 * 10.0**-self.digits
        return isinstance(found, float) and abs(found - self.value) <= half * (1 + 1e-6)


def known(values: Iterable[T | None]) -> list[T]:
    """Return the values that are there."""
    return [value for value in values if value is not None]


def local(moment: str) -> datetime:
    """Return one of our moments on the clock on the wall."""
    return datetime.fromisoformat(moment).astimezone().replace(tzinfo=None)


def is_within(moment: str, begin: datetime, length: timedelta) -> bool:
    return begin <= local(moment) < begin + length


def years(born: str, then: str) -> float:
    return (date.fromisoformat(then) - date.fromisoformat(born)).days / 365.25


def flat(lists: Iterable[Iterable[T]]) -> list[T]:
    return list(chain.from_iterable(lists))
