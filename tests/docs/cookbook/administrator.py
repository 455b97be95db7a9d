"""The answers to a PACS administrator's questions, by heading of docs/sql.md."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta

from benchmarks.hospital import (
    ACCESSION_NUMBER,
    BATCH,
    DAY,
    PATIENT_ID,
    PATIENT_NAME,
    SOURCE,
    STUDY_INSTANCE_UID,
)
from tests.docs.cookbook.answers import answers, partly
from tests.docs.cookbook.world import (
    Row,
    World,
    grouped,
    is_within,
    local,
    total,
)

MIDNIGHT = datetime.fromisoformat(f"{DAY}T00:00:00")
ONE_DAY = timedelta(days=1)


def listed(world: World, study: Row) -> Row:
    """Return a row of `study_list`."""
    uid = study["study_instance_uid"]
    objects = world.objects_of(uid)
    folders = {each["path"].rpartition("/")[0] for each in objects}
    return {
        **{name: value for name, value in study.items() if name != "patient"},
        **{n: v for n, v in world.patient_of(study).items() if n != "patient"},
        "series_count": len({each["series_instance_uid"] for each in objects}),
        "instance_count": len(objects),
        "size_bytes": total(objects),
        "modalities": ",".join(sorted(world.modalities_of(uid))),
        "sources": ",".join(sorted({each["source"] for each in objects})),
        "folders": ",".join(sorted(folders)),
    }


def settled_elsewhere(arrival: Row) -> bool:
    return arrival["retried_as"] is not None


def of_batch(world: World) -> list[Row]:
    return [a for a in world.arrivals if (a["source"], a["batch"]) == ("MANUAL", BATCH)]


# -- what came in ------------------------------------------------------------------------


@answers("How many studies are made a day, by modality?")
def studies_a_day(world: World) -> list[Row]:
    days = {(date.fromisoformat(DAY) - timedelta(ago)).isoformat() for ago in range(7)}
    counts = Counter(
        (study["study_date"], modality)
        for uid, study in world.studies.items()
        if study["study_date"] in days
        for modality in world.modalities_of(uid)
    )
    rows = [
        {"study_date": day, "modality": modality, "studies": count}
        for (day, modality), count in counts.items()
    ]
    rows.sort(key=lambda row: (-row["studies"], row["modality"]))
    return sorted(rows, key=lambda row: row["study_date"], reverse=True)


@answers("Who sent what last night?")
def last_night(world: World) -> list[Row]:
    begin = MIDNIGHT - timedelta(hours=6)
    came = [
        each
        for each in world.arrivals
        if is_within(each["finished_at"], begin, timedelta(hours=12))
        and not settled_elsewhere(each)
    ]
    return [
        {
            "source": source,
            "outcome": outcome,
            "files": len(files),
            "size_bytes": total(files),
            "first_at": min(each["finished_at"] for each in files),
            "last_at": max(each["finished_at"] for each in files),
        }
        for (source, outcome), files in grouped(came, lambda a: (a["source"], a["outcome"]))
    ]


@answers("What came in today, hour by hour?")
def hour_by_hour(world: World) -> list[Row]:
    came = [
        each
        for each in world.arrivals
        if is_within(each["finished_at"], MIDNIGHT, ONE_DAY) and not settled_elsewhere(each)
    ]
    rows = []
    for hour, files in grouped(came, lambda a: f"{local(a['finished_at']):%H:00}"):
        counts = Counter(each["outcome"] for each in files)
        rows.append(
            {
                "hour": hour,
                "files": len(files),
                "archived": counts["archived"],
                "needs_a_look": counts["quarantined"] + counts["conflict"],
                "size_bytes": total(files),
            }
        )
    return rows


@answers("What did this source send today?")
def sent_by_source(world: World) -> list[Row]:
    uids = {each["instance_id"]: each["study_instance_uid"] for each in world.objects}
    came = [
        each
        for each in world.arrivals
        if each["source"] == SOURCE
        and each["instance_id"] is not None
        and is_within(each["finished_at"], MIDNIGHT, ONE_DAY)
    ]
    names = ("study_date", "accession_number", "study_description", "study_instance_uid")
    rows = [
        {
            **{name: world.studies[uid][name] for name in names},
            "files": len(files),
            "first_at": min(each["finished_at"] for each in files),
            "last_at": max(each["finished_at"] for each in files),
        }
        for uid, files in grouped(came, lambda a: uids[a["instance_id"]])
    ]
    return sorted(rows, key=lambda row: row["first_at"])


@answers("Which studies came in last?")
def latest_studies(world: World) -> list[Row]:
    names = (
        "last_archived_at", "patient_name", "study_date", "modalities", "study_description",
        "instance_count", "sources",
    )  # fmt: skip
    latest = sorted(world.studies.values(), key=lambda s: s["last_archived_at"], reverse=True)
    rows = [listed(world, study) for study in latest[:25]]
    return [{name: row[name] for name in names} for row in rows]


@partly("What is there under this accession number?")
def accession_number(world: World) -> list[Row]:
    return [
        listed(world, study)
        for study in world.studies.values()
        if study["accession_number"] == ACCESSION_NUMBER
    ]


@answers("Which studies does this patient have?")
def studies_of_patient(world: World) -> list[Row]:
    names = (
        "study_date", "accession_number", "modalities", "study_description", "series_count",
        "instance_count", "study_instance_uid",
    )  # fmt: skip
    his = [s for s in world.studies.values() if world.patient_of(s)["patient_id"] == PATIENT_ID]
    his.sort(key=lambda s: (s["study_date"], s["study_time"]), reverse=True)
    return [{name: listed(world, study)[name] for name in names} for study in his]


@answers("Which patients are called so?")
def patients_called_so(world: World) -> list[Row]:
    rows = []
    for patient in world.patients.values():
        if patient["patient_name"] != PATIENT_NAME:
            continue
        his = [s for s in world.studies.values() if s["patient"] == patient["patient"]]
        rows.append(
            {
                "patient_id": patient["patient_id"],
                "patient_name": PATIENT_NAME,
                "patient_birth_date": patient["patient_birth_date"],
                "studies": len(his),
                "last_study": max(each["study_date"] for each in his),
            }
        )
    return rows


# -- one study, one batch ----------------------------------------------------------------


@answers("Which series has this study?")
def series_of_study(world: World) -> list[Row]:
    rows = []
    for series, objects in world.by_series(world.current):
        if series["study_instance_uid"] == STUDY_INSTANCE_UID:
            rows.append(
                {
                    **{
                        name: series[name]
                        for name in ("series_number", "modality", "series_description",
                                     "protocol_name", "station_name")
                    },
                    "objects": len(objects),
                    "frames": sum(each["number_of_frames"] or 1 for each in objects),
                    "size_bytes": total(objects),
                    "series_instance_uid": series["series_instance_uid"],
                }
            )  # fmt: skip
    return sorted(rows, key=lambda row: row["series_number"])


@answers("Where are the files and pictures of this study?")
def files_of_study(world: World) -> list[Row]:
    def path_of(instance_id: int, kind: str) -> object:
        derivative = world.derived(instance_id, kind)
        return derivative["path"] if derivative else None

    objects = world.objects_of(STUDY_INSTANCE_UID)
    objects.sort(
        key=lambda o: (
            world.series[o["series_instance_uid"]]["series_number"],
            o["instance_number"],
            o["path"],
        )
    )
    return [
        {
            "path": each["path"],
            "thumbnail_path": path_of(each["instance_id"], "thumbnail"),
            "video_path": path_of(each["instance_id"], "video"),
            "sha256": each["sha256"],
        }
        for each in objects
    ]


@answers("What became of every file of this study?")
def history_of_study(world: World) -> list[Row]:
    paths = {each["instance_id"]: each["path"] for each in world.objects_of(STUDY_INSTANCE_UID)}
    return [
        {
            "finished_at": each["finished_at"],
            "source": each["source"],
            "batch": each["batch"],
            "original_name": each["original_name"],
            "outcome": each["outcome"],
            "path": paths[each["instance_id"]],
        }
        for each in sorted(world.arrivals, key=lambda a: a["arrival_id"])
        if each["instance_id"] in paths
    ]


@partly("Did all of this batch get in?")
def batch(world: World) -> list[Row]:
    files = [a for a in world.arrivals if a["batch"] == BATCH and not settled_elsewhere(a)]
    return [
        {
            "source": source,
            "batch": BATCH,
            "first_arrived_at": min(each["arrived_at"] for each in members),
            "last_finished_at": max(each["finished_at"] for each in members),
            "arrived": len(members),
            "size_bytes": total(members),
            **Counter(each["outcome"] for each in members),
        }
        for source, members in grouped(files, lambda a: a["source"])
    ]


@answers("Which files of this batch are not in the archive, and why?")
def left_out_of_batch(world: World) -> list[Row]:
    names = ("original_name", "outcome", "reason", "size_bytes", "arrival_id")
    files = [
        each
        for each in of_batch(world)
        if each["outcome"] in ("quarantined", "foreign", "discarded")
        and not settled_elsewhere(each)
    ]
    files.sort(key=lambda a: a["original_name"])
    return [{name: each[name] for name in names} for each in files]


@answers("What does the DICOMDIR of this batch name that is not there?")
def missing_of_batch(world: World) -> list[Row]:
    there = {each["sop_instance_uid"] for each in world.objects}
    missing = [
        named
        for each in of_batch(world)
        for named in each["told"].get("missing_files", ())
        if named["sop_instance_uid"] not in there
    ]
    return sorted(missing, key=lambda named: named["file_id"])


@answers("Which of the day's studies are not complete yet?")
def incomplete_studies(world: World) -> list[Row]:
    told: dict[str, str] = {}
    for event in world.events:
        if event.study_instance_uid:
            told[event.study_instance_uid] = max(told.get(event.study_instance_uid, ""), event.at)
    names = ("study_instance_uid", "accession_number", "study_description", "last_archived_at")
    found = [
        study
        for uid, study in world.studies.items()
        if is_within(study["last_archived_at"], MIDNIGHT, ONE_DAY)
        and told.get(uid, "") < study["last_archived_at"]
    ]
    found.sort(key=lambda s: (s["last_archived_at"], s["study_instance_uid"]))
    return [{name: study[name] for name in names} for study in found]
