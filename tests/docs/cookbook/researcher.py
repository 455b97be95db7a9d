"""The answers to a researcher's questions, by heading of docs/sql.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from typing import Any

from benchmarks.hospital import MISSING, SERIES_INSTANCE_UID, STUDY_INSTANCE_UID
from tests.docs.cookbook.answers import answers
from tests.docs.cookbook.oddities import FIRST_SLICE
from tests.docs.cookbook.world import Rounded, Row, World, grouped, known, mean, sortable, years

_PRIVATE = re.compile(r"(.+):([0-9A-F]{4}xx[0-9A-F]{2})")


def most(objects: list[Row], keyword: str) -> Any:
    """Return the largest value that the objects say."""
    return max(known(each["said"].get(keyword) for each in objects), default=None)


def slices(world: World, uid: str = SERIES_INSTANCE_UID) -> list[Row]:
    found = [each for each in world.current if each["series_instance_uid"] == uid]
    return sorted(found, key=lambda o: o["instance_number"])


def first_slice(world: World) -> Row:
    (found,) = (o for o in world.current if o["sop_instance_uid"] == FIRST_SLICE)
    return found


# -- cohorts -----------------------------------------------------------------------------


@answers("Which files belong to my cohort?")
def cohort(world: World) -> list[Row]:
    rows = []
    for each in world.current:
        series = world.series[each["series_instance_uid"]]
        study = world.studies[each["study_instance_uid"]]
        born, then = world.patient_of(study)["patient_birth_date"], study["study_date"]
        said = each["said"]
        if (
            (series["modality"], series["body_part_examined"]) == ("CT", "ABDOMEN")
            and said.get("ContrastBolusAgent")
            and said["SliceThickness"] <= 1.25
            and born
            and then
            and then >= f"{int(born[:4]) + 18}{born[4:]}"
        ):
            rows.append({"path": each["path"], "sha256": each["sha256"]})
    return sorted(rows, key=lambda row: row["path"])


@answers("Which protocols are in use?")
def protocols(world: World) -> list[Row]:
    rows = []
    for (modality, protocol), members in grouped(
        world.series.values(), lambda s: (s["modality"], s["protocol_name"])
    ):
        dates = known(each["series_date"] for each in members)
        rows.append(
            {
                "modality": modality,
                "protocol_name": protocol,
                "studies": len({each["study_instance_uid"] for each in members}),
                "series": len(members),
                "first_date": min(dates, default=None),
                "last_date": max(dates, default=None),
            }
        )
    return sorted(rows, key=lambda row: -row["series"])


@answers("How old are the patients at their studies?")
def ages(world: World) -> list[Row]:
    found = []
    for study in world.studies.values():
        patient = world.patient_of(study)
        born, then = patient["patient_birth_date"], study["study_date"]
        if born and then and then >= born:
            found.append((int(years(born, then) / 10) * 10, patient["patient_sex"]))
    rows = []
    for decade, people in grouped(found, lambda each: each[0]):
        sexes = Counter(sex for _, sex in people)
        rows.append(
            {"decade": decade, "women": sexes["F"], "men": sexes["M"], "studies": len(people)}
        )
    return rows


@answers("What are the prior studies of this one?")
def priors(world: World) -> list[Row]:
    this = world.studies[STUDY_INSTANCE_UID]
    names = ("study_date", "study_description", "accession_number", "study_instance_uid")
    mine = world.modalities_of(STUDY_INSTANCE_UID)
    rows = [
        {
            **{name: study[name] for name in names},
            "is_alike": int(bool(mine & world.modalities_of(uid))),
        }
        for uid, study in world.studies.items()
        if study["patient"] == this["patient"] and (study["study_date"] or "~") < this["study_date"]
    ]
    rows.sort(key=lambda row: str(row["study_date"]), reverse=True)
    return sorted(rows, key=lambda row: -row["is_alike"])


@answers("Which patients were followed up?")
def followed_up(world: World) -> list[Row]:
    scanned = [s for uid, s in world.studies.items() if "CT" in world.modalities_of(uid)]
    rows = []
    for identity, studies in grouped(scanned, lambda s: s["patient"]):
        dates = known(each["study_date"] for each in studies)
        if dates and max(dates) >= three_months_after(min(dates)):
            rows.append(
                {
                    "patient_id": world.patients[identity]["patient_id"],
                    "patient_name": world.patients[identity]["patient_name"],
                    "studies": len(studies),
                    "first_date": min(dates),
                    "last_date": max(dates),
                }
            )
    return sorted(rows, key=lambda row: (-row["studies"], row["patient_id"]))


def three_months_after(day: str) -> str:
    """Return the day three months on; the 31st of a short month is the next one's first."""
    year, month, number = map(int, day.split("-"))
    first = date(year + (month + 2) // 12, (month + 2) % 12 + 1, 1)
    return date.fromordinal(first.toordinal() + number - 1).isoformat()


# -- slices ------------------------------------------------------------------------------


@answers("Which slices does this series lack, by number?")
def missing_by_number(world: World) -> list[Row]:
    numbers = [each["instance_number"] for each in slices(world)]
    assert set(range(min(numbers), max(numbers) + 1)) - set(numbers) == set(MISSING)
    return [{"first_missing": min(MISSING), "last_missing": max(MISSING)}]


@answers("Which slices does this series lack, by position?")
def missing_by_position(world: World) -> list[Row]:
    heights = sorted(each["said"]["ImagePositionPatient"][2] for each in slices(world))
    thickness = slices(world)[0]["said"]["SliceThickness"]
    return [
        {"after_mm": Rounded(below, 3), "gap_mm": Rounded(above - below, 3),
         "slices_missing": round((above - below) / thickness) - 1}
        for below, above in pairwise(heights)
        if above - below > 1.5 * thickness
    ]  # fmt: skip


@answers("Which series lack slices at all?")
def series_with_gaps(world: World) -> list[Row]:
    names = ("series_date", "modality", "station_name", "series_description")
    rows = []
    for series, objects in world.by_series(world.current):
        numbers = {each["instance_number"] for each in objects}
        missing = max(numbers) - min(numbers) + 1 - len(numbers)
        if missing and series["modality"] in ("CT", "MR", "PT"):
            rows.append(
                {**{name: series[name] for name in names}, "there": len(numbers),
                 "missing": missing, "series_instance_uid": series["series_instance_uid"]}
            )  # fmt: skip
    return sorted(rows, key=lambda row: sortable(row["series_date"]), reverse=True)


@answers("How thick are the slices, and how far apart?")
def thicknesses(world: World) -> list[Row]:
    found = [
        (series["modality"], most(objects, "SliceThickness"), most(objects, "SpacingBetweenSlices"))
        for series, objects in world.by_series(world.objects)
    ]
    return [
        {"modality": key[0], "slice_thickness": key[1], "spacing_between_slices": key[2],
         "series": len(members)}
        for key, members in grouped(found, lambda key: key)
        if key[1] is not None
    ]  # fmt: skip


@answers("How were the MR sequences set?")
def mr_settings(world: World) -> list[Row]:
    names = ("protocol_name", "series_description", "field_strength", "echo_time",
             "repetition_time")  # fmt: skip
    found = [
        (
            series["protocol_name"],
            series["series_description"],
            *(most(objects, each) for each in ("MagneticFieldStrength", "EchoTime",
                                               "RepetitionTime")),
        )
        for series, objects in world.by_series(world.objects)
        if series["modality"] == "MR"
    ]  # fmt: skip
    rows = [
        {**dict(zip(names, key, strict=True)), "series": len(members)}
        for key, members in grouped(found, lambda key: key)
    ]
    return sorted(rows, key=lambda row: -row["series"])


@answers("Which contrast agents were given?")
def contrast_agents(world: World) -> list[Row]:
    given = {
        (each["said"]["ContrastBolusAgent"], each["study_instance_uid"])
        for each in world.objects
        if each["said"].get("ContrastBolusAgent")
    }
    rows = []
    for agent, pairs in grouped(given, lambda pair: pair[0]):
        studies = [world.studies[uid] for _, uid in pairs]
        dates = known(each["study_date"] for each in studies)
        rows.append(
            {"contrast_bolus_agent": agent, "studies": len(studies),
             "patients": len({each["patient"] for each in studies}),
             "first_date": min(dates), "last_date": max(dates)}
        )  # fmt: skip
    return sorted(rows, key=lambda row: -row["studies"])


# -- cines -------------------------------------------------------------------------------


def videos(world: World) -> Iterator[tuple[Row, Row]]:
    for each in world.derivatives:
        if (each["kind"], each["status"]) == ("video", "made"):
            yield each, world.objects[each["instance_id"] - 1]


@answers("Which cines are there, how fast and how long?")
def cines(world: World) -> list[Row]:
    rows = [
        {
            "object": instance["path"],
            "video": video["path"],
            "frames": instance["number_of_frames"],
            "fps": video["told"]["fps"],
            "seconds": video["told"]["seconds"],
            "timing_source": video["told"]["timing_source"],
        }
        for video, instance in videos(world)
    ]
    return rows[::-1][:50]


@answers("Which devices do not say how fast their cines are?")
def timing_sources(world: World) -> list[Row]:
    names = ("manufacturer", "manufacturer_model_name", "modality")
    found = []
    for video, instance in videos(world):
        series = world.series[instance["series_instance_uid"]]
        key = (*(series[name] for name in names), video["told"]["timing_source"])
        found.append((key, video["told"]["fps"]))
    return [
        {**dict(zip((*names, "timing_source"), key, strict=True)), "videos": len(members),
         "mean_fps": Rounded(mean(fps for _, fps in members), 2)}
        for key, members in grouped(found, lambda each: each[0])
    ]  # fmt: skip


# -- any attribute -----------------------------------------------------------------------


@answers("What does the header of this object say?")
def header_of_object(world: World) -> list[Row]:
    return [
        {"keyword": keyword, "value": value}
        for keyword, value in first_slice(world)["said"].items()
    ]


def leaves(value: Any, place: str = "$") -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of everything at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name)
            yield from leaves(inner, f"{place}.{name}" if plain else f'{place}."{name}"')
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{place}[{number}]")
    else:
        yield place, value


@answers("Where in this study does this word stand?")
def word_in_study(world: World) -> list[Row]:
    rows = [
        {
            "series_number": world.series[each["series_instance_uid"]]["series_number"],
            "instance_number": each["instance_number"],
            "fullkey": place,
            "value": value,
        }
        for each in world.objects_of(STUDY_INSTANCE_UID)
        for place, value in leaves(each["said"])
        if "phantom" in str(value).lower()
    ]
    return sorted(
        rows, key=lambda row: (row["series_number"], row["instance_number"], row["fullkey"])
    )


@answers("Which attributes differ within this series?")
def differing_in_series(world: World) -> list[Row]:
    said = [each["said"] for each in slices(world)]
    rows = []
    for keyword in sorted(said[0]):
        values = {as_text(each[keyword]) for each in said} - {None}
        if len(values) > 1:
            rows.append(
                {"keyword": keyword, "different": len(values), "least": min(values),
                 "greatest": max(values)}
            )  # fmt: skip
    return rows


def as_text(value: Any) -> Any:
    """Return a container as its JSON text, as SQLite compares it."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (list, dict)) else value


@answers("Which private attributes does this object hold?")
def private_attributes(world: World) -> list[Row]:
    found = [
        (match[1], match[2])
        for keyword in first_slice(world)["said"]
        if (match := _PRIVATE.fullmatch(keyword))
    ]
    return [
        {"creator": creator, "elements": len(members),
         "first_tag": min(tag for _, tag in members), "last_tag": max(tag for _, tag in members)}
        for creator, members in grouped(found, lambda each: each[0])
    ]  # fmt: skip


@answers("How much activity was injected for PET?")
def injected_activity(world: World) -> list[Row]:
    found = []
    for each in world.objects:
        if world.series[each["series_instance_uid"]]["modality"] == "PT":
            (given,) = each["said"]["RadiopharmaceuticalInformationSequence"]
            found.append(
                (given["Radiopharmaceutical"], each["study_instance_uid"],
                 given["RadionuclideTotalDose"])
            )  # fmt: skip
    return [
        {"agent": agent, "studies": len({uid for _, uid, _ in members}),
         "least_mbq": Rounded(min(dose for *_, dose in members) / 1e6, 1),
         "most_mbq": Rounded(max(dose for *_, dose in members) / 1e6, 1)}
        for agent, members in grouped(found, lambda each: each[0])
    ]  # fmt: skip
