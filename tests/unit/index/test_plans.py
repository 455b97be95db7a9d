"""What is bounded stays bounded: more objects in the archive cost such a question nothing.

The work of a question is counted in instructions of SQLite's virtual machine, on two
hospitals of which one is four times as large.  Going through the list of studies or of
patients is allowed (there are fifty objects to a study); through that of objects is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import hospital
from benchmarks.cookbook import page_text, questions
from ingester.index import Reader, Writer
from ingester.index.readers import Row
from ingester.receipt import BatchInSpool, receipt_of
from ingester.spool import Spool

_SMALL, _LARGE = 40, 160
_INSTANCES = 50
#: A full scan costs at least four instructions for each row.
_MOST_PER_OBJECT = 2.0
#: Partial indexes, of what needs a person, may be gone through.
_NOT_FEW = "(?! USING INDEX (arrivals_in_conflict|arrivals_quarantined|derivatives_failed))"

_UID, _SERIES = hospital.STUDY_INSTANCE_UID, hospital.SERIES_INSTANCE_UID
_DAY, _PATIENT, _ACCESSION = hospital.DAY, hospital.PATIENT_ID, hospital.ACCESSION_NUMBER
_BOUNDED = {
    "the objects of a patient": f"SELECT * FROM images WHERE patient_id = '{_PATIENT}'",
    "the objects of a person, by name": (
        "SELECT path FROM images WHERE patient_name_folded LIKE 'muller anna%'"
    ),
    "the studies of a patient": f"SELECT * FROM study_list WHERE patient_id = '{_PATIENT}'",
    "an accession number": f"SELECT * FROM study_list WHERE accession_number = '{_ACCESSION}'",
    "the videos of a day": (
        f"SELECT video_path FROM images WHERE study_date = '{_DAY}' AND video_path IS NOT NULL"
    ),
    "the dose of a day": (
        "SELECT protocol_name, avg(ctdi_vol) FROM images WHERE modality = 'CT' AND kvp = 120"
        f" AND study_date = '{_DAY}' GROUP BY 1"
    ),
    "the headers of a study": (
        "SELECT path, json_extract(attributes, '$.KVP') FROM images JOIN headers"
        f" USING (instance_id) WHERE study_instance_uid = '{_UID}'"
    ),
    "the studies of a day": f"SELECT * FROM study_list WHERE study_date = '{_DAY}'",
    "a page of studies": "SELECT * FROM study_list ORDER BY study_date DESC LIMIT 20",
    "a batch": f"SELECT * FROM batches WHERE batch = '{hospital.BATCH}'",
    "a page of batches": "SELECT * FROM batches ORDER BY last_finished_at DESC LIMIT 20",
    "a day of arrivals": f"SELECT * FROM arrivals_by_day WHERE day = '{_DAY}'",
    "what came in an hour": (
        f"SELECT * FROM arrivals WHERE arrived_at >= '{_DAY}T07' AND arrived_at < '{_DAY}T08'"
    ),
    "the slices of a series": (
        f"SELECT instance_number FROM instances WHERE series_instance_uid = '{_SERIES}'"
    ),
    "problems of a day": f"SELECT * FROM problems WHERE at >= '{_DAY}' AND at < '{_DAY}T99'",
    **{each.title: each.sql for each in questions(page_text()) if each.is_bounded},
}
_FOUND = ("müller", _DAY, "MR", "thorax", _ACCESSION, "müller 2026", "nobody")
_COMMANDS: dict[str, Callable[[Reader], object]] = {
    "count müller": lambda reader: reader.count_found(["müller"]),
    "show study": lambda reader: reader.show(_UID),
    "show series": lambda reader: reader.show(_SERIES),
    "receipt": lambda reader: _receipt(reader),
}


def _receipt(reader: Reader) -> list[Row]:
    (source,) = reader.sources_of_batch(hospital.BATCH)
    place = BatchInSpool(Spool(Path("/nowhere")), source, hospital.BATCH)
    with receipt_of(reader, Path("/nowhere"), place) as told:
        return list(told.files())


def _question(title: str) -> Callable[[Reader], object]:
    if title in _FOUND:
        return lambda reader: reader.find(title.split(), 5)
    if title in _COMMANDS:
        return _COMMANDS[title]
    return lambda reader: list(reader.query(_BOUNDED[title])[1])


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, Reader, int]]:
    readers, counts = [], []
    for studies in (_SMALL, _LARGE):
        path = tmp_path_factory.mktemp("hospital") / "index.db"
        with closing(Writer.open(path, columns=("CTDIvol", "KVP"))) as writer:
            counts.append(hospital.fill(writer, studies, _INSTANCES))
        readers.append(Reader.open(path))
    small, large = readers
    yield small, large, counts[1] - counts[0]
    for reader in readers:
        reader.close()


@pytest.mark.parametrize("title", [*_BOUNDED, *_FOUND, *_COMMANDS])
def test_a_bounded_question_reads_no_list_of_objects(
    title: str, hospitals: tuple[Reader, Reader, int]
) -> None:
    small, large, more = hospitals
    ask = _question(title)
    grown = _work(large, ask) - _work(small, ask)
    assert grown / more < _MOST_PER_OBJECT


def _work(reader: Reader, ask: Callable[[Reader], object]) -> int:
    """Return how many instructions an answer costs, to within ten for each statement."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 10
        return 0

    ask(reader)  # statements are prepared, names folded
    reader.connection.set_progress_handler(count, 10)
    try:
        ask(reader)
    finally:
        reader.connection.set_progress_handler(None, 10)
    return steps


@pytest.mark.parametrize("title", list(_BOUNDED))
def test_the_plan_of_a_bounded_question_scans_neither_objects_nor_headers(
    title: str, hospitals: tuple[Reader, Reader, int]
) -> None:
    plan = hospitals[0].query(f"EXPLAIN QUERY PLAN {_BOUNDED[title]}")[1]
    told = "\n".join(str(row[3]) for row in plan)
    assert told
    assert not re.search(rf"SCAN (instances|headers|arrivals|derivatives)\b{_NOT_FEW}", told), told


def test_a_whole_question_is_told_from_a_bounded_one(hospitals: tuple[Reader, Reader, int]) -> None:
    small, large, more = hospitals

    def ask(reader: Reader) -> object:
        return list(reader.query("SELECT sum(bits_stored) FROM instances")[1])

    assert (_work(large, ask) - _work(small, ask)) / more > _MOST_PER_OBJECT
