"""The answers to a physicist's questions, by heading of docs/sql.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.hospital import DAY, STUDY_INSTANCE_UID
from tests.docs.cookbook.answers import answers
from tests.docs.cookbook.researcher import as_text, most, slices
from tests.docs.cookbook.world import Rounded, Row, World, grouped, known, mean, sortable

DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"


def means(objects: list[Row], keyword: str) -> float | None:
    values = known(each["said"].get(keyword) for each in objects)
    return mean(values) if values else None


@answers("How are the protocols exposed, on each device?")
def exposure(world: World) -> list[Row]:
    found = []
    for series, objects in world.by_series(world.current):
        key = (series["modality"], series["station_name"], series["protocol_name"])
        kvp, ma, mas, ctdi = (
            means(objects, each) for each in ("KVP", "XRayTubeCurrent", "Exposure", "CTDIvol")
        )
        if kvp is not None:
            found.append((key, kvp, ma, mas, ctdi))
    rows = []
    for (modality, station, protocol), members in grouped(found, lambda each: each[0]):
        doses = known(each[4] for each in members)
        rows.append(
            {
                "modality": modality,
                "station_name": station,
                "protocol_name": protocol,
                "series": len(members),
                "kv": Rounded(mean(each[1] for each in members), 1),
                "ma": Rounded(mean(known(each[2] for each in members)), 1),
                "mas": Rounded(mean(known(each[3] for each in members)), 1),
                "least_mgy": Rounded(min(doses), 2) if doses else None,
                "mean_mgy": Rounded(mean(doses), 2) if doses else None,
                "most_mgy": Rounded(max(doses), 2) if doses else None,
            }
        )
    return rows


@answers("Which series got far more dose than is usual for their protocol?")
def dose_outliers(world: World) -> list[Row]:
    found = [
        ((series["station_name"], series["protocol_name"]), most(objects, "CTDIvol"), series)
        for series, objects in world.by_series(world.current)
        if most(objects, "CTDIvol") is not None
    ]
    names = ("series_date", "station_name", "protocol_name", "series_description",
             "series_instance_uid")  # fmt: skip
    rows = []
    for _, members in grouped(found, lambda each: each[0]):
        doses = sorted(dose for _, dose, _ in members)
        median = doses[(len(doses) + 1) // 2 - 1]
        rows += [
            {**{name: series[name] for name in names}, "ctdi_vol": dose, "median": median,
             "among": len(doses)}
            for _, dose, series in members
            if dose > 1.5 * median
        ]  # fmt: skip
    return sorted(
        rows, key=lambda row: (-row["ctdi_vol"] / row["median"], row["series_instance_uid"])
    )


@answers("How does the tube current run through this series?")
def tube_current(world: World) -> list[Row]:
    keywords = {
        "slice_location": "SliceLocation",
        "kvp": "KVP",
        "ma": "XRayTubeCurrent",
        "mas": "Exposure",
        "ctdi_vol": "CTDIvol",
    }
    return [
        {
            "instance_number": each["instance_number"],
            **{name: each["said"][keyword] for name, keyword in keywords.items()},
        }
        for each in slices(world)
    ]


@answers("What dose does a mammogram give?")
def mammography(world: World) -> list[Row]:
    found = []
    for each in world.current:
        series = world.series[each["series_instance_uid"]]
        said = each["said"]
        if series["modality"] == "MG" and said.get("OrganDose") is not None:
            year = series["series_date"] and series["series_date"][:4]
            key = (series["station_name"], year)
            found.append((key, 100 * said["OrganDose"], said["EntranceDoseInmGy"]))
    return [
        {
            "station_name": station,
            "year": year,
            "images": len(members),
            "mean_organ_mgy": Rounded(mean(each[1] for each in members), 2),
            "most_organ_mgy": Rounded(max(each[1] for each in members), 2),
            "mean_entrance_mgy": Rounded(mean(each[2] for each in members), 2),
            "most_entrance_mgy": Rounded(max(each[2] for each in members), 2),
        }
        for (station, year), members in grouped(found, lambda each: each[0])
    ]


@answers("Which CT and angiography studies came without a dose report?")
def without_dose_report(world: World) -> list[Row]:
    reported = {o["study_instance_uid"] for o in world.objects if o["sop_class_uid"] == DOSE_REPORT}
    names = ("study_date", "study_description", "accession_number", "study_instance_uid")
    rows = []
    for uid, study in world.studies.items():
        exposed = [s for s in world.series_of(uid) if s["modality"] in ("CT", "XA")]
        if exposed and uid not in reported:
            rows.append(
                {**{n: study[n] for n in names}, "station_name": exposed[0]["station_name"]}
            )
    rows.sort(key=lambda row: str(row["study_instance_uid"]))
    return sorted(rows, key=lambda row: sortable(row["study_date"]), reverse=True)


def numbers(items: list[Row], place: str) -> Iterator[tuple[str, Row]]:
    """Yield (place, item) of every measured number of a structured report."""
    for index, item in enumerate(items):
        here = f"{place}[{index}]"
        if item.get("ValueType") == "NUM":
            yield here, item
        yield from numbers(item.get("ContentSequence", []), f"{here}.ContentSequence")


@answers("What does the dose report of this study say?")
def dose_report(world: World) -> list[Row]:
    rows: list[Row] = []
    for each in world.objects_of(STUDY_INSTANCE_UID):
        if each["sop_class_uid"] == DOSE_REPORT:
            for place, item in numbers(each["said"]["ContentSequence"], "$.ContentSequence"):
                (measured,) = item["MeasuredValueSequence"]
                (unit,) = measured["MeasurementUnitsCodeSequence"]
                rows.append(
                    {"measured": item["ConceptNameCodeSequence"][0]["CodeMeaning"],
                     "value": measured["NumericValue"][0], "unit": unit["CodeValue"],
                     "place": place}
                )  # fmt: skip
    return rows


@answers("How well were today's films exposed?")
def films(world: World) -> list[Row]:
    found = []
    for each in world.current:
        series = world.series[each["series_instance_uid"]]
        is_today = world.studies[each["study_instance_uid"]]["study_date"] == DAY
        if is_today and series["modality"] in ("CR", "DX"):
            found.append(((series["station_name"], series["protocol_name"]), each["said"]))
    return [
        {
            "station_name": station,
            "protocol_name": protocol,
            "films": len(members),
            "mean_exposure_index": Rounded(mean(said["ExposureIndex"] for _, said in members), 0),
            "mean_deviation_index": Rounded(mean(said["DeviationIndex"] for _, said in members), 2),
        }
        for (station, protocol), members in grouped(found, lambda each: each[0])
    ]


@answers("Which kernels are used with which slice thickness?")
def kernels(world: World) -> list[Row]:
    names = ("manufacturer_model_name", "protocol_name", "kernel", "slice_thickness")
    found: list[tuple[Any, ...]] = [
        (
            series["manufacturer_model_name"],
            series["protocol_name"],
            most(objects, "ConvolutionKernel")[0],
            most(objects, "SliceThickness"),
        )
        for series, objects in world.by_series(world.objects)
        if most(objects, "ConvolutionKernel") is not None
    ]
    rows = [
        {**dict(zip(names, key, strict=True)), "series": len(members)}
        for key, members in grouped(found, lambda key: key)
    ]
    return sorted(rows, key=lambda row: -row["series"])


@answers("Which devices and software versions are at work?")
def devices(world: World) -> list[Row]:
    names = ("modality", "manufacturer", "manufacturer_model_name", "station_name")
    found = [
        (
            (*(series[name] for name in names), as_text(most(objects, "SoftwareVersions"))),
            series["series_date"],
            len(objects),
        )
        for series, objects in world.by_series(world.objects)
    ]
    rows = []
    for key, members in grouped(found, lambda each: each[0]):
        dates = known(each[1] for each in members)
        rows.append(
            {
                **dict(zip((*names, "software_versions"), key, strict=True)),
                "series": len(members),
                "objects": sum(each[2] for each in members),
                "first_date": min(dates, default=None),
                "last_date": max(dates, default=None),
            }
        )
    return rows


@answers("Who operated the devices, and who asked for the studies?")
def people(world: World) -> list[Row]:
    found = []
    for series, objects in world.by_series(world.objects):
        operators = most(objects, "OperatorsName") or [None]
        physician = world.studies[series["study_instance_uid"]]["referring_physician_name"]
        key = (series["modality"], operators[0], physician)
        found.append((key, series["study_instance_uid"]))
    names = ("modality", "operator", "referring_physician_name")
    rows = [
        {
            **dict(zip(names, key, strict=True)),
            "studies": len({uid for _, uid in members}),
        }
        for key, members in grouped(found, lambda each: each[0])
    ]
    return sorted(rows, key=lambda row: -row["studies"])
