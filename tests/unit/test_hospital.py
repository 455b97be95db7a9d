"""The hospital that measurements and the cookbook's queries are tried on."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from benchmarks import hospital
from ingester.index import Writer
from ingester.model import ArrivalRecord

_STUDIES = 60


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("hospital") / "index.db"
    writer = Writer.open(path)
    assert hospital.fill(writer, _STUDIES, 10) > _STUDIES * 10
    writer.close()
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def test_the_same_seed_gives_the_same_rows() -> None:
    assert list(hospital.records(8, 10)) == list(hospital.records(8, 10))
    assert list(hospital.records(8, 10)) != list(hospital.records(8, 10, seed=2))


def test_there_are_as_many_instances_as_asked_for() -> None:
    assert _archived(hospital.records(50, 50)) == 2500
    assert _archived(hospital.records(30, 20, first_study=700)) == 600


def test_files_arrive_in_order_and_no_id_comes_twice() -> None:
    made = list(hospital.records(_STUDIES, 10))
    ids = [each.arrival_id for each in made]
    assert ids == sorted(set(ids))
    assert [each.arrived_at for each in made] == sorted(each.arrived_at for each in made)


@pytest.mark.parametrize("studies", [3, _STUDIES])
def test_what_the_constants_name_is_in_every_hospital(studies: int) -> None:
    made = [each for each in hospital.records(studies, 10) if each.instance and each.stored]
    named = [
        each for each in made if _instance(each).study_instance_uid == hospital.STUDY_INSTANCE_UID
    ]
    assert {each.source for each in named} == {hospital.SOURCE}
    assert {_instance(each).study.accession_number for each in named} == {hospital.ACCESSION_NUMBER}
    assert {_instance(each).study.study_date for each in named} == {hospital.DAY}
    assert {each.arrived_at[:10] for each in named} == {hospital.DAY}
    numbers = {
        _instance(each).image.instance_number
        for each in named
        if _instance(each).series_instance_uid == hospital.SERIES_INSTANCE_UID
    }
    assert set(range(1, 13)) - numbers == set(hospital.MISSING)
    hers = [each for each in made if _instance(each).patient.patient_id == hospital.PATIENT_ID]
    assert {_instance(each).patient.patient_name for each in hers} == {hospital.PATIENT_NAME}
    assert {_instance(each).series.modality for each in hers} >= {"CT", "MR", "US"}
    assert any(each.batch == hospital.BATCH for each in hers)


def test_everything_a_hospital_meets_is_met(connection: sqlite3.Connection) -> None:
    def all_of(sql: str) -> set[Any]:
        return {row[0] for row in connection.execute(sql)}

    outcomes = all_of("SELECT DISTINCT outcome FROM arrivals")
    assert outcomes == {
        "archived", "duplicate", "variant", "conflict", "quarantined", "foreign", "unpacked",
    }  # fmt: skip
    assert all_of("SELECT DISTINCT kind FROM problems") == {
        "quarantined", "conflict", "derivative", "patient-identity", "contradiction",
    }  # fmt: skip
    modalities = all_of("SELECT DISTINCT modality FROM series")
    assert modalities == {"CT", "MR", "US", "CR", "DX", "MG", "XA", "PT", "NM", "SR"}
    assert all_of("SELECT fps > 0 FROM derivatives WHERE kind = 'video' AND path <> ''") == {1}
    duplicates = connection.execute(
        "SELECT a.detail ->> '$.duplicate_of', i.path FROM arrivals AS a"
        " JOIN instances AS i USING (instance_id) WHERE a.outcome = 'duplicate'"
    ).fetchall()
    assert duplicates
    assert all(said == path for said, path in duplicates)
    assert all_of("SELECT count(*) FROM arrivals WHERE outcome = 'duplicate'") == {len(duplicates)}


def test_headers_are_written_as_the_ingest_writes_them() -> None:
    lengths: dict[str, list[int]] = {}
    for record in hospital.records(_STUDIES, 10):
        if record.instance is None:
            continue
        text = record.instance.attributes
        lengths.setdefault(str(record.instance.series.modality), []).append(len(text))
        _check(json.loads(text))
    for modality, (least, most) in {
        "CT": (6500, 8000), "MR": (4500, 6000), "US": (2500, 4000), "DX": (2800, 4200),
    }.items():  # fmt: skip
        assert least < median(lengths[modality]) < most, modality


def test_columns_say_what_the_header_says(connection: sqlite3.Connection) -> None:
    rows = connection.execute(
        "SELECT attributes, i.sop_instance_uid, i.instance_number, i.number_of_frames, i.rows,"
        " i.bits_stored, i.photometric_interpretation, s.modality, s.series_number,"
        " s.frame_of_reference_uid, s.station_name FROM headers JOIN instances AS i"
        " USING (instance_id) JOIN series AS s USING (series_instance_uid)"
    )
    names = (
        "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "BitsStored",
        "PhotometricInterpretation", "Modality", "SeriesNumber", "FrameOfReferenceUID",
        "StationName",
    )  # fmt: skip
    for attributes, *columns in rows:
        said = json.loads(attributes)
        assert [said.get(name) for name in names] == columns


def _instance(record: ArrivalRecord) -> Any:
    return record.instance


def _archived(records: Iterator[ArrivalRecord]) -> int:
    return sum(each.outcome == "archived" for each in records)


def _check(values: dict[str, Any]) -> None:
    # The contract, section 4: by the dictionary's multiplicity; dates and times in ISO.
    for name, value in values.items():
        if value is None or isinstance(value, dict):
            continue
        tag = tag_for_keyword(name)
        vr = dictionary_VR(tag) if tag is not None else ""
        is_array = tag is None or vr == "SQ" or dictionary_VM(tag) != "1"
        assert isinstance(value, list) == is_array, name
        for each in value if isinstance(value, list) else [value]:
            if vr == "SQ":
                _check(each)
            elif vr in ("DS", "FL", "FD"):
                assert isinstance(each, float), name
            elif vr in ("IS", "US", "SS", "UL", "SL", "US or SS"):
                assert isinstance(each, int), name
            elif vr == "DA":
                assert re.fullmatch(r"\d{4}-\d\d-\d\d", each), name
            elif vr == "TM":
                assert re.fullmatch(r"\d\d:\d\d:\d\d(\.\d{1,6})?", each), name
            elif tag is not None:
                assert isinstance(each, str), name
