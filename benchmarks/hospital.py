"""A hospital that does not exist: what became of every file it ever sent.

    fill(writer, studies=40)                an index of 40 studies, with derivatives and events
    records(studies=40)                     the arrival records alone, in order of arrival
    derivatives([(instance_id, record)])    what was made of each instance

Scanners send day by day, an old PACS is brought over month by month, CDs come in with
their viewers.  Series lack slices, studies are sent twice, objects come back changed or
compressed, files are cut short.  All of it is drawn from a seed and nothing asks the
clock: the same arguments give the same rows.  Whatever the size, what the constants name
is there: a CT of `DAY` sent by `SOURCE` under `ACCESSION_NUMBER`, an MR that came with
`BATCH` and an ultrasound with cines, all three of `PATIENT_NAME`.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice

from benchmarks.plan import (
    ACCESSION_NUMBER,
    BATCH,
    DAY,
    MISSING,
    PATIENT_ID,
    PATIENT_NAME,
    SERIES_INSTANCE_UID,
    SOURCE,
    STUDY_INSTANCE_UID,
    Calendar,
    StudyPlan,
)
from benchmarks.plan import studies as planned
from benchmarks.study_objects import Alteration, Made, objects
from ingester.archive import derivative_path
from ingester.index import Event, Writer
from ingester.model import (
    ArrivalRecord,
    Derivative,
    DerivativeReason,
    Kind,
    Outcome,
    Reason,
    Status,
    Version,
    moment,
)

__all__ = [
    "ACCESSION_NUMBER",
    "BATCH",
    "BATCH_FILES",
    "DAY",
    "MISSING",
    "PATIENT_ID",
    "PATIENT_NAME",
    "PIPELINE_VERSION",
    "SEED",
    "SERIES_INSTANCE_UID",
    "SOURCE",
    "STUDY_INSTANCE_UID",
    "Calendar",
    "derivatives",
    "fill",
    "records",
]

SEED = 4711
#: As many as the ingest commits together.
BATCH_FILES = 64
PIPELINE_VERSION = 1

_VERSIONS = {
    Outcome.ARCHIVED: Version.CURRENT,
    Outcome.VARIANT: Version.VARIANT,
    Outcome.CONFLICT: Version.CONFLICT,
}
_ON_EVERY_CD = (
    ("AUTORUN.INF", 84, Outcome.FOREIGN, Reason.NOT_DICOM),
    ("DICOMDIR", 48_312, Outcome.UNPACKED, None),
    ("VIEWER/VIEWER.EXE", 3_145_728, Outcome.FOREIGN, Reason.NOT_DICOM),
    ("DICOM/IM_LAST", 131_072, Outcome.QUARANTINED, Reason.INCOMPLETE),
)
_BROKEN = (
    Reason.INCOMPLETE,
    Reason.MALFORMED,
    Reason.NO_STUDY_INSTANCE_UID,
    Reason.UNSAFE_UID,
    Reason.EMPTY,
)


@dataclass(frozen=True, slots=True)
class _Sending:
    """Files of a study on their way: the study itself, or some of it once more."""

    plan: StudyPlan
    at: datetime
    outcome: Outcome = Outcome.ARCHIVED
    altered: Alteration | None = None
    most: int | None = None

    @property
    def batch(self) -> str:
        """Return the batch of the arrivals: another association where it is sent again."""
        if self.outcome is Outcome.ARCHIVED or self.plan.is_on_cd:
            return self.plan.batch
        return f"{int(self.at.timestamp()):016x}{self.plan.number:08x}"


def records(
    studies: int,
    instances_per_study: int = 50,
    *,
    seed: int = SEED,
    first_study: int = 0,
    calendar: Calendar = Calendar(),  # noqa: B008 (immutable)
    next_instance_id: int = 1,
) -> Iterator[ArrivalRecord]:
    """Yield what became of every file, in order of arrival.

    Parameters
    ----------
    studies : how many; together they hold *studies* x *instances_per_study* instances
    first_study : the number of the first: 0 brings those that the constants name
    calendar : when they arrive
    next_instance_id : what the index gives the first instance; duplicates name theirs
    """
    plans = planned(seed, first_study, studies, calendar, instances_per_study)
    sendings = sorted(chain.from_iterable(map(_sendings, plans)), key=lambda each: each.at)
    awaited = {each.plan.number for each in sendings if each.outcome is Outcome.DUPLICATE}
    ids: dict[str, int] = {}
    for sending, at, file in _interleaved(sendings):
        if not isinstance(file, Made):
            yield _set_aside(sending, at, *file)
            continue
        uid = file.instance.sop_instance_uid
        yield _record(sending, at, file, ids.get(uid))
        if sending.outcome is not Outcome.DUPLICATE:
            if sending.plan.number in awaited:
                ids.setdefault(uid, next_instance_id)
            next_instance_id += 1


def derivatives(recorded: Iterable[tuple[int, ArrivalRecord]]) -> Iterator[Derivative]:
    """Yield the two derivatives of each archived instance, given with its id."""
    for instance_id, record in recorded:
        if record.instance is None or record.stored is None:
            continue
        at = record.stored.archived_at
        path = record.stored.path
        is_failed = instance_id % 997 == 5
        yield Derivative(
            instance_id,
            Kind.THUMBNAIL,
            Status.FAILED if is_failed else Status.MADE,
            DerivativeReason.CORRUPT_PIXELS if is_failed else None,
            derivative_path(path, Kind.THUMBNAIL),
            PIPELINE_VERSION,
            at,
            {
                "rendering": "card" if is_failed or not record.instance.has_pixels else "pixels",
                "frame": 1, "window": [40.0, 400.0], "window_source": "header", "width": 256,
                "height": 256, "decoder": "native", "phi": "possible",
                "versions": {"Pillow": "12.1.0", "imagecodecs": "2025.11.11"},
            },
        )  # fmt: skip
        yield _video(instance_id, record, path, at)


def fill(
    writer: Writer,
    studies: int,
    instances_per_study: int = 50,
    *,
    seed: int = SEED,
    on_batch: Callable[[int], None] = lambda _: None,
) -> int:
    """Fill a new index as the ingest would; returns the number of instances.

    *on_batch* is told after each commit how many there are.
    """
    made = 0
    stream = records(studies, instances_per_study, seed=seed)
    day, seen = "", dict[str, str]()
    while batch := list(islice(stream, BATCH_FILES)):
        recorded = [
            (instance_id, record)
            for record, instance_id in zip(batch, writer.record(batch), strict=True)
            if instance_id is not None and record.stored is not None
        ]
        writer.record_derivatives(list(derivatives(recorded)))
        made += len(recorded)
        on_batch(made)
        if batch[0].arrived_at[:10] != day:
            writer.add_events(_completed(seen))
            day, seen = batch[0].arrived_at[:10], {}
        seen |= {
            each.instance.study_instance_uid: each.finished_at for each in batch if each.instance
        }
    writer.add_events(_completed(seen))
    return made


def _completed(seen: dict[str, str]) -> list[Event]:
    return [Event(at, "study.complete", uid) for uid, at in seen.items()]


def _sendings(plan: StudyPlan) -> Iterator[_Sending]:
    number, at = plan.number, plan.arrives_at.replace(tzinfo=UTC)
    altered = None
    if number % 40 == 11:
        altered = Alteration(study_description="Fremdaufnahme", only_last_series=True)
    if number % 120 == 13:
        altered = Alteration(patient_name="Unbekannt^Patient", only_last_series=True)
    yield _Sending(plan, at, altered=altered)
    later = at + timedelta(hours=3)
    if number % 33 == 5:
        yield _Sending(plan, later, Outcome.DUPLICATE)
    if number == 1:
        yield _Sending(plan, later, Outcome.DUPLICATE, most=2)
    if number % 50 == 7:
        window = {"WindowCenter": [35.0, 310.0], "WindowWidth": [310.0, 1400.0]}
        yield _Sending(plan, later, Outcome.CONFLICT, Alteration(window), most=2)
    if number % 60 == 9:
        yield _Sending(plan, later, Outcome.VARIANT, Alteration(is_compressed=True), most=3)
    if number % 45 == 3:
        yield _Sending(plan, later, Outcome.QUARANTINED)


_File = Made | tuple[str, int, Outcome, Reason | None]


def _interleaved(sendings: Iterable[_Sending]) -> Iterator[tuple[_Sending, datetime, _File]]:
    """Yield the files of sendings (in order of their beginning) as they arrive."""
    under_way: list[tuple[datetime, int, _Sending, Iterator[tuple[datetime, _File]], _File]] = []

    def push(number: int, sending: _Sending, files: Iterator[tuple[datetime, _File]]) -> None:
        for at, file in files:
            heapq.heappush(under_way, (at, number, sending, files, file))
            break

    def pop() -> tuple[_Sending, datetime, _File]:
        at, number, sending, files, file = heapq.heappop(under_way)
        push(number, sending, files)
        return sending, at, file

    for number, sending in enumerate(sendings):
        while under_way and under_way[0][0] <= sending.at:
            yield pop()
        push(number, sending, _files(sending))
    while under_way:
        yield pop()


def _files(sending: _Sending) -> Iterator[tuple[datetime, _File]]:
    chance = random.Random(f"sending {sending.plan.number} {sending.outcome}")
    at = sending.at
    files: Iterable[_File] = objects(sending.plan, sending.altered)
    if sending.outcome is Outcome.QUARANTINED:
        reason = _BROKEN[sending.plan.number // 45 % len(_BROKEN)]
        files = [("IM_BROKEN", chance.randrange(100_000), reason.outcome, reason)]
    elif sending.plan.is_on_cd and sending.outcome is Outcome.ARCHIVED:
        files = chain(files, _ON_EVERY_CD)
    for file in islice(files, sending.most):
        at += timedelta(microseconds=chance.randrange(40_000, 220_000))
        yield at, file


def _record(sending: _Sending, at: datetime, made: Made, known_id: int | None) -> ArrivalRecord:
    plan, outcome = sending.plan, sending.outcome
    finished_at = moment(at + timedelta(milliseconds=310))
    stored = None
    detail: dict[str, object] = {}
    first = _first_path(plan, made)
    if outcome is Outcome.DUPLICATE:
        detail["duplicate_of"] = first
    else:
        stored = made.stored(plan.source, finished_at, _VERSIONS[outcome])
    if outcome in (Outcome.VARIANT, Outcome.CONFLICT):
        detail["compared_with"] = first
    if outcome is Outcome.CONFLICT and sending.altered is not None:
        detail |= {"differs": sorted(sending.altered.attributes), "pixels_differ": False}
    number = made.instance.image.instance_number or 0
    if plan.is_on_cd:
        name = f"{sending.batch}/DICOM/ST1/SE{made.series.number}/IM{number:04d}"
    elif plan.source == plan.device.source:
        name = f"{sending.batch}.{made.series.number:02d}{number:04d}.dcm"
    else:
        name = f"{sending.batch}/{plan.uid}/{made.instance.sop_instance_uid}.dcm"
    return ArrivalRecord(
        arrival_id=_arrival_id(at, made.sha256),
        source=plan.source,
        batch=sending.batch,
        original_name=name,
        arrived_at=moment(at),
        finished_at=finished_at,
        size_bytes=made.size_bytes,
        sha256=made.sha256,
        outcome=outcome,
        detail=detail,
        instance_id=known_id if outcome is Outcome.DUPLICATE else None,
        instance=None if stored is None else made.instance,
        stored=stored,
    )


def _first_path(plan: StudyPlan, made: Made) -> str:
    """Return where the first version of an object lies."""
    return made.stored(plan.source, "", Version.CURRENT).path


def _set_aside(
    sending: _Sending,
    at: datetime,
    name: str,
    size_bytes: int,
    outcome: Outcome,
    reason: Reason | None,
) -> ArrivalRecord:
    digest = random.Random(f"{sending.batch} {name}").randbytes(32).hex()
    return ArrivalRecord(
        arrival_id=_arrival_id(at, digest),
        source=sending.plan.source,
        batch=sending.batch,
        original_name=f"{sending.batch}/{name}",
        arrived_at=moment(at),
        finished_at=moment(at + timedelta(milliseconds=120)),
        size_bytes=size_bytes,
        sha256=digest,
        outcome=outcome,
        reason=reason,
        detail={} if reason else {"members": 0},
    )


def _arrival_id(at: datetime, digest: str) -> str:
    return f"{int(at.timestamp() * 1_000_000):016x}{digest[:8]}"


def _video(instance_id: int, record: ArrivalRecord, path: str, at: str) -> Derivative:
    assert record.instance is not None
    frames = record.instance.image.number_of_frames
    if frames is None:
        has_pixels = record.instance.has_pixels
        reason = DerivativeReason.SINGLE_FRAME if has_pixels else DerivativeReason.NO_PIXELS
        return Derivative(
            instance_id, Kind.VIDEO, Status.SKIPPED, reason, None, PIPELINE_VERSION, at
        )
    said = json.loads(record.instance.attributes)
    frame_time = said.get("FrameTime")
    fps = round(1000 / frame_time, 3) if frame_time else 8.0
    return Derivative(
        instance_id,
        Kind.VIDEO,
        Status.MADE,
        None,
        derivative_path(path, Kind.VIDEO),
        PIPELINE_VERSION,
        at,
        {
            "kind": "cine" if frame_time else "rotate", "fps": fps,
            "timing_source": "FrameTime" if frame_time else "default", "frames": frames,
            "seconds": round(frames / fps, 3), "width": said["Columns"], "height": said["Rows"],
            "encoded": "encoded", "decoder": "native", "versions": {"ffmpeg": "7.1"},
        },
    )  # fmt: skip
