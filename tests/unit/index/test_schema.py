from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ingester import durable
from ingester.errors import Fatal
from ingester.index import Writer, migrations
from tests.indexes import whole
from tests.unit.index.records import archived, header
from tests.unit.index.test_writer import ask

#: The contract, section 4: at least these columns.
PROMISED = {
    "patients": "patient_key patient_id issuer_of_patient_id patient_name patient_name_folded"
    " patient_birth_date patient_sex",
    "studies": "study_instance_uid patient_key study_date study_time study_id accession_number"
    " study_description referring_physician_name institution_name first_archived_at"
    " last_archived_at",
    "series": "series_instance_uid study_instance_uid modality series_number series_date"
    " series_time series_description body_part_examined protocol_name manufacturer"
    " manufacturer_model_name station_name frame_of_reference_uid",
    "instances": "instance_id sop_instance_uid series_instance_uid study_instance_uid"
    " sop_class_uid transfer_syntax_uid instance_number number_of_frames rows columns"
    " samples_per_pixel bits_allocated bits_stored photometric_interpretation source path"
    " size_bytes sha256 data_set_sha256 archived_at version",
    "headers": "instance_id attributes",
    "arrivals": "arrival_id source batch original_name arrived_at finished_at size_bytes sha256"
    " outcome reason detail instance_id retried_as resolved_at",
    "derivatives": "instance_id kind status reason path pipeline_version made_at detail",
    "events": "event_id at kind study_instance_uid detail",
    "study_list": "study_instance_uid patient_key patient_id patient_name study_date"
    " series_count instance_count size_bytes modalities sources folders",
    "batches": "source batch first_arrived_at last_finished_at arrived archived duplicate variant"
    " conflict quarantined foreign unpacked discarded size_bytes",
    "problems": "kind at source batch reason message arrival_id instance_id",
    "arrivals_by_day": "day source arrived archived duplicate variant conflict quarantined"
    " foreign unpacked discarded size_bytes",
}


def columns(connection: sqlite3.Connection, name: str) -> list[str]:
    return [row[0] for row in connection.execute(f"SELECT * FROM {name}").description]


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    Writer.open(tmp_path / "index.db").close()
    return sqlite3.connect(tmp_path / "index.db")


def test_every_promised_column_is_there(connection: sqlite3.Connection) -> None:
    for name, promised in PROMISED.items():
        missing = set(promised.split()) - set(columns(connection, name))
        assert not missing, (name, missing)
    tables = ("patients", "studies", "series", "instances")
    images = columns(connection, "images")
    wanted = {column for table in tables for column in columns(connection, table)}
    assert wanted - {"patient_name_normalised"} <= set(images)
    assert {"thumbnail_path", "video_path", "fps"} <= set(images)
    assert len(images) == len(set(images))
    connection.close()


def test_migrations_keep_a_copy_and_run_in_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    writer = Writer.open(path)
    writer.record([archived(header())])
    writer.close()

    def add_remark(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE studies ADD COLUMN remark TEXT")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE studies ADD COLUMN other TEXT")
        raise KeyError

    connection = sqlite3.connect(path, isolation_level=None)
    steps = (*migrations.MIGRATIONS, add_remark, fail)
    with pytest.raises(KeyError):
        migrations.migrate(connection, path, steps)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(steps) - 1,)
    assert "remark" in columns(connection, "studies")
    assert "other" not in columns(connection, "studies")
    migrations.migrate(connection, path, steps[:-1])
    with pytest.raises(Fatal):
        migrations.migrate(connection, path, steps[:-2])
    connection.close()
    before = len(migrations.MIGRATIONS)
    copy = sqlite3.connect(tmp_path / f"index.db.v{before}")
    assert copy.execute("PRAGMA user_version").fetchone() == (before,)
    assert copy.execute("SELECT count(*) FROM images").fetchone() == (1,)
    copy.close()


def test_a_crash_while_the_index_is_made_is_made_good_at_the_next_start(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    seen = 0
    while True:
        path = tmp_path / f"{seen}.db"
        remaining = seen

        def kill(_effect: str, _path: str) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining < 0:
                raise Killed

        try:
            with durable.observe(kill):
                Writer.open(path).close()
            break
        except Killed:
            seen += 1
            writer = Writer.open(path)
            writer.record([archived(header())])
            writer.close()
    assert seen >= 4


def test_views_are_made_anew_when_their_text_changed(tmp_path: Path) -> None:
    writer = Writer.open(tmp_path / "index.db")
    ask(writer, "DROP VIEW images")
    ask(writer, "CREATE VIEW images AS SELECT 1 AS one")
    writer.close()
    writer = Writer.open(tmp_path / "index.db")
    assert ask(writer, "SELECT count(*) FROM images WHERE path IS NOT NULL") == [0]
    writer.close()


def test_promoted_columns_are_typed_indexed_and_filled_back(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    writer = Writer.open(path)
    writer.record(
        [
            archived(header(instance=1, attributes={
                "SliceThickness": 1.5, "ImageType": ["ORIGINAL", "PRIMARY"],
                "AcquisitionDate": "2024-01-31", "AcquisitionNumber": 3})),
            archived(header(instance=2, attributes={
                "SliceThickness": "thin", "AcquisitionDate": "20240131~",
                "AcquisitionNumber": [1, 2], "ImageType": None})),
        ]
    )  # fmt: skip
    writer.close()
    keywords = ("SliceThickness", "ImageType", "AcquisitionDate", "AcquisitionNumber", "Rows")
    writer = Writer.open(path, columns=keywords)
    third = {"SliceThickness": 2, "ImageType": ["DERIVED"], "AcquisitionDate": None}
    writer.record([archived(header(instance=3, attributes=third))])
    sql = "SELECT slice_thickness, image_type, acquisition_date, acquisition_number FROM images"
    assert ask(writer, f"{sql} ORDER BY instance_id") == [
        (1.5, '["ORIGINAL","PRIMARY"]', "2024-01-31", 3),
        (None, None, None, None),
        (2.0, '["DERIVED"]', None, None),
    ]
    plan = ask(writer, "EXPLAIN QUERY PLAN SELECT * FROM images WHERE slice_thickness < 2")
    assert any("instances_by_slice_thickness" in row[-1] for row in plan)
    writer.close()
    # Taken out of the configuration, it stays filled.
    writer = Writer.open(path)
    writer.record([archived(header(instance=4, attributes={"SliceThickness": 4.0}))])
    assert ask(writer, "SELECT max(slice_thickness) FROM images") == [4.0]
    writer.close()


@pytest.mark.parametrize("keyword", ["SliceThicknes", "PixelData", "ReferencedImageSequence"])
def test_a_column_that_cannot_be_is_refused(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(Fatal, match="columns"):
        Writer.open(tmp_path / "index.db", columns=[keyword])


def test_new_columns_are_filled_in_one_pass_and_somebody_who_waits_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "index.db"
    writer = Writer.open(path)
    writer.record(
        [archived(header(instance=n, attributes={"KVP": 80.0 + n, "CTDIvol": n / 10})) for n in
         range(1, 41)]
    )  # fmt: skip
    ask(writer, "DELETE FROM headers WHERE instance_id = 7")
    writer.close()
    told: list[tuple[int, int | None, str]] = []
    writer = Writer.open(path, columns=["KVP", "CTDIvol"], progress=lambda *each: told.append(each))
    assert told == [
        (0, 40, "filling kvp, ctdi_vol"),
        (0, 2, "indexing kvp"),
        (1, 2, "indexing ctdi_vol"),
    ]
    rows = ask(writer, "SELECT instance_id, kvp, ctdi_vol FROM images WHERE instance_id <> 7")
    assert rows == [(n, 80.0 + n, n / 10) for n in range(1, 41) if n != 7]
    assert ask(writer, "SELECT kvp, ctdi_vol FROM images WHERE instance_id = 7") == [(None, None)]
    writer.close()
    told.clear()
    Writer.open(path, columns=["CTDIvol"], progress=lambda *each: told.append(each)).close()
    assert told == []


def test_who_stops_while_columns_are_filled_loses_nothing(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(_done: int, _total: int | None, note: str) -> None:
        if note.startswith("indexing"):
            raise Stopped

    path = tmp_path / "index.db"
    with closing(Writer.open(path)) as writer:
        writer.record([archived(header(attributes={"KVP": 120.0}))])
    before = whole(path)
    with pytest.raises(Stopped):
        Writer.open(path, columns=["KVP"], progress=stop)
    assert whole(path) == before
    with closing(Writer.open(path, columns=["KVP"])) as writer:
        assert ask(writer, "SELECT kvp FROM images") == [120.0]


def test_the_day_is_looked_up_first_and_not_the_voltage_that_all_share(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Writer.open(path, columns=["KVP"]).close()
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT path FROM images"
            " WHERE kvp = 120 AND study_date = '2026-03-02'"
        ).fetchall()
    assert "studies_by_study_date" in plan[0][3]


def test_what_is_asked_of_the_whole_archive_is_read_from_an_index(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Writer.open(path, columns=["KVP"]).close()
    Writer.open(path, columns=["KVP", "CTDIvol"]).close()
    for columns in (
        "count(*), sum(size_bytes)",
        "source, version, max(instance_number), min(archived_at)",
        "avg(ctdi_vol), max(kvp)",
    ):
        with closing(sqlite3.connect(path)) as connection:
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT {columns} FROM instances GROUP BY series_instance_uid"
            ).fetchall()
        assert [row[3] for row in plan] == [
            "SCAN instances USING COVERING INDEX instances_by_series"
        ]
