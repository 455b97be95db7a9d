"""The answers about all that an archive holds and what is wrong in it, by heading."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date, datetime
from itertools import accumulate
from typing import Any

from pydicom._uid_dict import UID_dictionary

from benchmarks.hospital import STUDY_INSTANCE_UID
from tests.docs.cookbook.administrator import ONE_DAY, listed
from tests.docs.cookbook.answers import answers, partly
from tests.docs.cookbook.world import Rounded, Row, World, grouped, local, sortable, total, years

_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


# -- what needs a person -----------------------------------------------------------------


def unresolved(world: World, outcome: str) -> list[Row]:
    return [
        each
        for each in world.arrivals
        if each["outcome"] == outcome and each["resolved_at"] is None
    ]


@partly("What needs a person?")
def problems(world: World) -> list[Row]:
    rows = [
        {"at": each["finished_at"], "kind": kind, "source": each["source"],
         "reason": each["reason"], "arrival_id": each["arrival_id"]}
        for kind in ("quarantined", "conflict")
        for each in unresolved(world, kind)
    ]  # fmt: skip
    arrived = {each["instance_id"]: each["arrival_id"] for each in reversed(world.arrivals)}
    for each in world.derivatives:
        if each["status"] == "failed":
            source = world.objects[each["instance_id"] - 1]["source"]
            rows.append(
                {"at": each["made_at"], "kind": "derivative", "source": source,
                 "reason": each["reason"], "arrival_id": arrived[each["instance_id"]]}
            )  # fmt: skip
    for each in contradicted(world):
        rows.append({**each["row"], "arrival_id": arrived[each["instance_id"]]})
    rows.sort(key=lambda row: row["arrival_id"])
    rows.sort(key=lambda row: row["at"], reverse=True)
    return rows[:50]


def contradicted(world: World) -> list[Row]:
    """Return the first object that disagrees with its study, for each way to disagree.

    Or with another study: of two people with one patient ID.
    """
    found: dict[tuple[str, str], Row] = {}
    for each in world.objects:
        study = world.studies[each["study_instance_uid"]]
        said = {
            "patient_name": (each["patient_said"], world.patient_of(study)),
            "study_description": (
                {"study_description": each["said"].get("StudyDescription")},
                study,
            ),
        }
        for name, (its, known) in said.items():
            if its[name] is not None and its[name] != known[name]:
                kind = "patient-identity" if name == "patient_name" else "contradiction"
                found.setdefault(
                    (each["study_instance_uid"], name),
                    {
                        **each,
                        "row": {
                            "at": each["archived_at"],
                            "kind": kind,
                            "source": each["source"],
                            "reason": name,
                        },
                    },
                )
    return list(found.values()) + namesakes(world)


def namesakes(world: World) -> list[Row]:
    """Return the first object of each patient whose ID somebody before had."""
    first: dict[tuple[Any, ...], Row] = {}
    found = []
    for each in world.objects:
        patient = world.patient_of(world.studies[each["study_instance_uid"]])
        key = (patient["patient_id"], patient["issuer_of_patient_id"])
        other = first.setdefault(key, patient)
        if key[0] is not None and patient["patient_name"] != other["patient_name"]:
            first[key] = patient
            row = {"at": each["archived_at"], "kind": "patient-identity",
                   "source": each["source"], "reason": "patient_name"}  # fmt: skip
            found.append({**each, "row": row})
    return found


@answers("What is in quarantine, by reason and source?")
def quarantine(world: World) -> list[Row]:
    rows = [
        {
            "reason": reason,
            "source": source,
            "files": len(files),
            "first_at": min(each["finished_at"] for each in files),
            "last_at": max(each["finished_at"] for each in files),
        }
        for (reason, source), files in grouped(
            unresolved(world, "quarantined"), lambda a: (a["reason"], a["source"])
        )
    ]
    return sorted(rows, key=lambda row: -row["files"])


@answers("Which objects are in conflict, and what differs?")
def conflicts(world: World) -> list[Row]:
    found = sorted(unresolved(world, "conflict"), key=lambda a: a["arrival_id"], reverse=True)
    rows = []
    for each in found[:50]:
        instance = world.objects[each["instance_id"] - 1]
        rows.append(
            {
                "finished_at": each["finished_at"],
                "source": each["source"],
                "study_instance_uid": instance["study_instance_uid"],
                "path": instance["path"],
                "differs": ", ".join(each["told"]["differs"]),
                "pixels_differ": int(each["told"]["pixels_differ"]),
            }
        )
    return rows


@answers("Which keywords differ most often, and from whom?")
def differing_keywords(world: World) -> list[Row]:
    counts = Counter(
        (each["source"], keyword)
        for each in world.arrivals
        if each["outcome"] == "conflict"
        for keyword in each["told"]["differs"]
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"source": s, "keyword": k, "conflicts": count} for (s, k), count in ordered]


@answers("What did the other versions in this study say?")
def other_versions(world: World) -> list[Row]:
    objects = world.objects_of(STUDY_INSTANCE_UID)
    current = {o["sop_instance_uid"]: o for o in objects if o["version"] == "current"}
    rows = []
    for other in sorted(objects, key=lambda o: o["path"]):
        now = current[other["sop_instance_uid"]]
        for keyword in sorted(now["said"]):
            values = now["said"][keyword], other["said"][keyword]
            if values[0] != values[1]:
                rows.append(
                    {"path": other["path"], "version": other["version"], "keyword": keyword,
                     "current_value": values[0], "other_value": values[1]}
                )  # fmt: skip
    return rows


@answers("Which pictures could not be made?")
def failed_pictures(world: World) -> list[Row]:
    failed = []
    for each in world.derivatives:
        if each["status"] == "failed":
            instance = world.objects[each["instance_id"] - 1]
            modality = world.series[instance["series_instance_uid"]]["modality"]
            key = (each["kind"], each["reason"], modality, instance["transfer_syntax_uid"])
            failed.append((key, instance["path"]))
    rows = [
        {"kind": kind, "reason": reason, "modality": modality, "transfer_syntax_uid": syntax,
         "objects": len(members), "example": min(path for _, path in members)}
        for (kind, reason, modality, syntax), members in grouped(failed, lambda each: each[0])
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["objects"])


# -- sources and space -------------------------------------------------------------------


@answers("Who sends things twice?")
def duplicates(world: World) -> list[Row]:
    found = [each for each in world.arrivals if each["outcome"] == "duplicate"]
    rows = [
        {"source": source, "files": len(files),
         "objects": len({each["instance_id"] for each in files}), "size_bytes": total(files)}
        for source, files in grouped(found, lambda a: a["source"])
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["files"])


@answers("Which source has fallen silent?")
def silent_sources(world: World) -> list[Row]:
    rows = [
        {"source": source, "last_at": max(a["finished_at"] for a in files), "files": len(files)}
        for source, files in grouped(world.arrivals, lambda a: a["source"])
    ]
    return sorted(rows, key=lambda row: row["last_at"])


@answers("How does the archive grow?")
def growth(world: World) -> list[Row]:
    months = grouped(world.objects, lambda o: o["archived_at"][:7])
    so_far = accumulate(total(objects) for _, objects in months)
    return [
        {
            "month": month,
            "objects": len(objects),
            "gigabytes": Rounded(total(objects) / 1e9, 3),
            "gigabytes_so_far": Rounded(size / 1e9, 3),
        }
        for (month, objects), size in zip(months, so_far, strict=True)
    ]


@answers("Which modality takes the space?")
def space_by_modality(world: World) -> list[Row]:
    def modality(instance: Row) -> str:
        return str(world.series[instance["series_instance_uid"]]["modality"])

    found = sorted(grouped(world.objects, modality), key=lambda each: -total(each[1]))
    return [
        {
            "modality": name,
            "series": len({each["series_instance_uid"] for each in objects}),
            "objects": len(objects),
            "gigabytes": Rounded(total(objects) / 1e9, 3),
            "bytes_per_object": total(objects) // len(objects),
        }
        for name, objects in found
    ]


@answers("Which source takes the space, by year?")
def space_by_source(world: World) -> list[Row]:
    return [
        {"source": source, "year": year, "objects": len(objects),
         "gigabytes": Rounded(total(objects) / 1e9, 3)}
        for (source, year), objects in grouped(
            world.objects, lambda o: (o["source"], o["archived_at"][:4])
        )
    ]  # fmt: skip


@answers("Which studies are the largest?")
def largest_studies(world: World) -> list[Row]:
    found = grouped(world.objects, lambda o: o["study_instance_uid"])
    found.sort(key=lambda each: (-total(each[1]), each[0]))
    names = (
        "size_bytes", "instance_count", "modalities", "study_date", "study_description",
        "accession_number", "study_instance_uid",
    )  # fmt: skip
    rows = [listed(world, world.studies[uid]) for uid, _ in found[:20]]
    return [{name: row[name] for name in names} for row in rows]


@answers("What kinds of objects are there, and how are they compressed?")
def kinds_of_objects(world: World) -> list[Row]:
    of_class = Counter(each["sop_class_uid"] for each in world.objects)
    rows = [
        {
            "sop_class_uid": sop_class,
            "transfer_syntax_uid": syntax,
            "objects": len(objects),
            "percent_of_class": Rounded(100 * len(objects) / of_class[sop_class], 1),
            "bytes_per_object": total(objects) // len(objects),
            "is_compressed": int(syntax not in _UNCOMPRESSED),
        }
        for (sop_class, syntax), objects in grouped(
            world.objects, lambda o: (o["sop_class_uid"], o["transfer_syntax_uid"])
        )
    ]
    return sorted(rows, key=lambda row: (row["sop_class_uid"], -row["objects"]))


@partly("Which objects are of a retired or private SOP class?")
def rare_classes(world: World) -> list[Row]:
    rows = []
    for (sop_class, source), objects in grouped(
        world.objects, lambda o: (o["sop_class_uid"], o["source"])
    ):
        is_private = not sop_class.startswith("1.2.840.10008.")
        if is_private or UID_dictionary[sop_class][3] == "Retired":
            rows.append(
                {"sop_class_uid": sop_class, "source": source, "objects": len(objects),
                 "example": min(each["path"] for each in objects)}
            )  # fmt: skip
    return sorted(rows, key=lambda row: -row["objects"])


# -- what cannot be true -----------------------------------------------------------------


@answers("Which studies name two patients, or share a patient ID with somebody else?")
def two_patients(world: World) -> list[Row]:
    rows = []
    for each in contradicted(world):
        if each["row"]["kind"] == "patient-identity":
            patient = world.patient_of(world.studies[each["study_instance_uid"]])
            rows.append(
                {
                    "at": each["archived_at"],
                    "study_instance_uid": each["study_instance_uid"],
                    "patient_id": patient["patient_id"],
                    "name_of_the_study": patient["patient_name"],
                    "name_in_the_object": each["said"].get("PatientName"),
                    "differs": each["row"]["reason"],
                    "path": each["path"],
                }
            )
    return sorted(rows, key=lambda row: row["at"])


@answers("Which people seem to have two patient IDs?")
def two_ids(world: World) -> list[Row]:
    return [
        {"patient_name_folded": "doppelt erna", "patient_birth_date": "1950-05-05", "ids": 2,
         "patient_ids": "X-1, X-2"}
    ]  # fmt: skip


@answers("Which patient IDs stand for two people?")
def two_people(world: World) -> list[Row]:
    rows = []
    named = [each for each in world.patients.values() if each["patient_id"]]
    for (patient_id, issuer), people in grouped(
        named, lambda p: (p["patient_id"], p["issuer_of_patient_id"])
    ):
        if len(people) > 1:
            told = [f"{each['patient_name']} *{each['patient_birth_date']}" for each in people]
            rows.append(
                {"patient_id": patient_id, "issuer_of_patient_id": issuer,
                 "identities": len(people), "people": ", ".join(told)}
            )  # fmt: skip
    return rows


@answers("Which values are missing or cannot be true?")
def impossible_values(world: World) -> list[Row]:
    found: dict[str, list[str]] = {}
    for uid, study in world.studies.items():
        patient = world.patient_of(study)
        born, then = patient["patient_birth_date"], study["study_date"]
        arrived = date.fromisoformat(study["first_archived_at"][:10])
        age = years(born, then) if born and then else None
        name = (patient["patient_name"] or "").lower()
        for finding, is_found in {
            "no accession number": study["accession_number"] is None,
            "no study date": then is None,
            "dated after it arrived": then and date.fromisoformat(then) > arrived + ONE_DAY,
            "no patient ID": patient["patient_id"] is None,
            "no birth date": born is None,
            "before birth, or older than 110": age is not None and not 0 <= age <= 110,
            "a test or a phantom": "test" in name or "phantom" in name,
        }.items():
            if is_found:
                found.setdefault(finding, []).append(uid)
    rows = [
        {"finding": finding, "studies": len(uids), "example": min(uids)}
        for finding, uids in sorted(found.items())
    ]
    return sorted(rows, key=lambda row: -row["studies"])


@answers("Which character sets do my sources write?")
def character_sets(world: World) -> list[Row]:
    def key(instance: Row) -> tuple[str, str | None]:
        named = instance["said"].get("SpecificCharacterSet")
        return instance["source"], named and f'["{named[0]}"]'

    rows = [
        {"source": source, "specific_character_set": named, "objects": len(objects)}
        for (source, named), objects in grouped(world.objects, key)
    ]
    return sorted(
        rows,
        key=lambda row: (row["source"], -row["objects"], sortable(row["specific_character_set"])),
    )


@answers("How long does a study take from the scanner to the archive?")
def delays(world: World) -> list[Row]:
    minutes: dict[str, list[float]] = {}
    for uid, study in world.studies.items():
        if study["study_date"] and study["study_time"]:
            made = datetime.fromisoformat(f"{study['study_date']}T{study['study_time']}")
            late = (local(study["first_archived_at"]) - made).total_seconds() / 60
            if 0 <= late <= 1440:
                source = world.objects_of(uid)[0]["source"]
                minutes.setdefault(source, []).append(late)
    return [
        {
            "source": source,
            "studies": len(late),
            "median": Rounded(sorted(late)[(len(late) + 1) // 2 - 1], 1),
            "percentile_95": Rounded(sorted(late)[(19 * len(late) + 19) // 20 - 1], 1),
            "longest": Rounded(max(late), 1),
        }
        for source, late in sorted(minutes.items())
    ]


@answers("What went wrong with disks and receivers?")
def trouble(world: World) -> list[Row]:
    told = [each for each in world.events if not each.kind.startswith("study.")]
    return [
        {"at": each.at, "kind": each.kind, "detail": json.dumps(each.detail)}
        for each in reversed(told)
    ]
