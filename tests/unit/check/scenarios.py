"""Sites with every kind of history an index can have, for rebuilds to bring back."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from ingester.check import repair, verify
from ingester.index import Event
from ingester.index.writer import Writer
from ingester.ingest import SourceDefaults
from ingester.ingest.recovery import retry
from ingester.model import Derivative, DerivativeReason, Kind, Status, SystemClock, moment
from ingester.quarantine import discard
from tests.factory import drop, encoded, instance, uid
from tests.site import Site
from tests.unit.test_unpack_dicomdir import dicomdir, record

TEXT = b"see you at noon, bring the films\n" * 20
AT = "2026-02-03T04:05:06.789Z"

#: Asked for one pair after the other, in this order.
PROMOTED = ("SliceThickness", "KVP", "BodyPartExamined", "EchoTime")

Scenario = Callable[[Site], None]


def put(site: Site, name: str, data: bytes | Dataset) -> None:
    """Drop one file and ingest it."""
    drop(site.spool.root / name, data)
    site.ingest_all()


def with_writer(site: Site, change: Callable[[Writer], object], *columns: str) -> None:
    """Do something to the index as the service does."""
    writer = Writer.open(site.index, columns=columns)
    try:
        change(writer)
    finally:
        writer.close()


def derive(site: Site, most: int = 100) -> None:
    """Put a picture beside each object that lacks one, and rows for both kinds."""
    writer = Writer.open(site.index)
    at = moment(SystemClock().now())
    for each in writer.pending_derivatives({Kind.THUMBNAIL: 1, Kind.VIDEO: 1}, most):
        path = each.path.removesuffix(".dcm") + ".jpg"
        (site.archive.root / path).write_bytes(b"picture")
        i, single = each.instance_id, DerivativeReason.SINGLE_FRAME
        detail = {"rendering": "pixels", "frame": 1}
        writer.record_derivatives(
            [
                Derivative(i, Kind.THUMBNAIL, Status.MADE, None, path, 1, at, detail),
                Derivative(i, Kind.VIDEO, Status.SKIPPED, single, None, 1, at),
            ]
        )
    writer.close()


def compressed(ds: Dataset) -> bytes:
    """Return the object with its pixels in another transfer syntax."""
    made = dcmread(BytesIO(encoded(ds)))
    made.compress(RLELossless, generate_instance_uid=False)
    return encoded(made, RLELossless)


def conflicting(number: int) -> Dataset:
    """Return another object that says it is the first one."""
    return instance(StudyDescription=f"Other {number}")


def arrival_of(site: Site, description: str) -> str:
    """Return the arrival that brought the object with this Study Description."""
    (found,) = site.rows(
        "SELECT a.arrival_id FROM arrivals AS a JOIN headers AS h USING (instance_id)"
        " WHERE json_extract(h.attributes, '$.StudyDescription') = ?"
        " AND a.outcome <> 'duplicate'",
        description,
    )
    return str(found)


def make_current(site: Site, arrival_id: str) -> None:
    """Let a person decide that this version counts."""
    with_writer(
        site,
        lambda w: w.resolve([arrival_id], decision="make-current", at=AT, issuer_of=issuer_of),
    )


# -- what a site can live through --------------------------------------------------------


def plain_studies(site: Site) -> None:
    for patient in (1, 2):
        for number in range(1, 4):
            drop(site.spool.root / f"{patient}-{number}", instance(patient, instance=number))
    site.ingest_all()
    put(site, "late", instance(1, instance=4))


def one_study_from_two_sources(site: Site) -> None:
    drop(site.spool.root / "CT1/a", instance(1, instance=1))
    drop(site.spool.root / "b", instance(1, instance=2))
    site.ingest_all()


def duplicates(site: Site) -> None:
    put(site, "CT1/CD_1/a", instance(1))
    put(site, "CD_2/b", encoded(instance(1), ImplicitVRLittleEndian))
    put(site, "c", instance(1))


def variants(site: Site) -> None:
    put(site, "a", instance(1))
    put(site, "b", compressed(instance(1)))


def conflicts(site: Site) -> None:
    put(site, "a", instance())
    put(site, "b", conflicting(1))
    put(site, "CT1/c", conflicting(2))


def a_variant_of_a_conflict(site: Site) -> None:
    conflicts(site)
    put(site, "d", compressed(conflicting(1)))
    put(site, "e", encoded(conflicting(2), ImplicitVRLittleEndian))


def a_lost_object_put_back_by_another_writer(site: Site) -> None:
    bare = instance(2, PixelData=None)
    put(site, "a", encoded(instance(1), sender="CT_1"))
    put(site, "b", bare)
    for path in site.objects():
        (site.archive.root / path).unlink()
    put(site, "c", encoded(instance(1), sender="CT_2"))
    put(site, "d", encoded(bare, ImplicitVRLittleEndian))


def another_made_current_and_back(site: Site) -> None:
    conflicts(site)
    put(site, "d", compressed(instance()))
    for name in ("Other 1", "Other 2", "Other 1"):
        make_current(site, arrival_of(site, name))


def a_study_corrected_and_made_current(site: Site) -> None:
    wrong: dict[str, Any] = {"PatientName": "Mayer^Anna", "PatientSex": "M", "StudyID": None}
    right: dict[str, Any] = {
        "PatientName": "Meyer^Anna",
        "PatientSex": "F",
        "StudyDate": "20240102",
    }
    for name, said in (("wrong", wrong), ("right", right)):
        for number in (1, 2):
            drop(site.spool.root / name / str(number), instance(1, instance=number, **said))
        site.ingest_all()
    study = uid(1, 1)
    with_writer(
        site,
        lambda w: w.resolve(
            [], decision="make-current", at=AT, study_instance_uid=study, issuer_of=issuer_of
        ),
    )
    put(site, "late", instance(1, instance=3, **right))
    put(site, "old", instance(1, instance=4, **wrong))


def settled_by_a_person(site: Site) -> None:
    conflicts(site)
    contradictions(site)
    study = uid(1, 1)
    with_writer(
        site,
        lambda w: w.resolve([], decision="accept", at=AT, study_instance_uid=study, note="as is"),
    )


def files_set_aside(site: Site) -> None:
    put(site, "CD_1/cut", encoded(instance(3))[:-40])
    put(site, "CD_1/readme.txt", TEXT)
    put(site, "empty", b"")
    put(site, "nostudy", instance(4, StudyInstanceUID=None))
    cut, readme = (
        site.rows("SELECT arrival_id FROM arrivals WHERE reason = ?", reason)[0]
        for reason in ("incomplete", "not-dicom")
    )
    with_writer(site, lambda w: w.resolve([readme], decision="discard", at=AT, note="gone"))
    discard(site.spool, readme)
    with_writer(site, lambda w: retry(site.spool, w, cut, site.clock))
    site.ingest_all()


def archive_files(site: Site) -> None:
    with zipfile.ZipFile(site.root / "cd.zip", "w") as archive:
        for number in (1, 2):
            archive.writestr(f"IMAGES/{number}", encoded(instance(5, instance=number)))
        archive.writestr("viewer.exe", b"MZ" + bytes(300))
    os.rename(site.root / "cd.zip", site.spool.root / "cd.zip")
    folder = site.spool.root / "CD_4711"
    folder.mkdir()
    dicomdir(folder / "DICOMDIR", record("IM1", uid(6)), record("IM2", uid(6, 1, 1, 2)))
    drop(folder / "IM1", instance(6))
    site.ingest_all()


def fields_filled_late(site: Site) -> None:
    bare: dict[str, Any] = dict.fromkeys(
        ("StudyDescription", "AccessionNumber", "StudyTime", "SeriesDescription", "PatientSex")
    )
    put(site, "a", instance(1, instance=9, **bare))
    put(site, "b", instance(1, instance=1))


def contradictions(site: Site) -> None:
    put(site, "e", instance(1, instance=5))
    put(site, "f", instance(1, instance=6, StudyDescription="Thorax", AccessionNumber="X"))
    put(site, "g", instance(1, instance=7, Modality="MR"))
    put(site, "h", instance(1, 2, 1, 8, SeriesInstanceUID=uid(1, 1, 1)))


def patients_told_apart(site: Site) -> None:
    put(site, "a", instance(1, instance=1))
    put(site, "b", instance(1, instance=2, PatientName="Somebody^Else", PatientSex="F"))
    put(site, "c", instance(1, instance=3, PatientBirthDate="19700201"))
    put(site, "d", instance(2, PatientID="P0001", PatientName="family1^given1^^"))


def one_id_two_patients(site: Site) -> None:
    ids: dict[str, Any] = {"PatientID": "P0001"}
    put(site, "a", instance(1, PatientName=None, PatientBirthDate=None))
    put(site, "b", instance(1, instance=2))
    put(site, "c", instance(2, **ids))
    put(site, "d", instance(3, PatientBirthDate="19800101", **ids))
    put(site, "e", instance(4, IssuerOfPatientID="CLINIC", **ids))
    study = uid(2, 1)
    with_writer(site, lambda w: w.resolve([], decision="accept", at=AT, study_instance_uid=study))


def one_id_two_patients_until_corrected(site: Site) -> None:
    one_id_two_patients(site)
    put(site, "f", instance(3, PatientID="P0001", PatientName="Family1^Given1"))
    with_writer(
        site,
        lambda w: w.resolve(
            [], decision="make-current", at=AT, study_instance_uid=uid(3, 1), issuer_of=issuer_of
        ),
    )


def a_patient_known_better_later(site: Site) -> None:
    put(site, "a", instance(1, instance=1, PatientBirthDate=None, PatientSex=None))
    put(site, "b", instance(1, instance=2, PatientSex=None))
    put(site, "c", instance(1, 2, PatientSex="M"))
    put(site, "d", instance(1, instance=3, PatientSex="F"))


def promoted_columns(site: Site) -> None:
    put(site, "a", instance(1, KVP="120", SliceThickness="1.5"))
    with_writer(site, lambda w: w.checkpoint(idle=True), *PROMOTED[:2])
    put(site, "b", instance(1, instance=2, KVP="80"))
    with_writer(site, lambda w: w.checkpoint(idle=True), *PROMOTED[2:])


def sources_with_defaults(site: Site) -> None:
    name = "Müller^Jörg".encode("latin-1")
    ds = instance(1, PatientName=None)
    ds.add_new(0x00100010, "PN", name)
    put(site, "CT1/a", ds)
    put(site, "b", instance(2, IssuerOfPatientID=None))


def events(site: Site) -> None:
    conflicts(site)
    told = [
        Event(AT, "study.complete", uid(1, 1), {"instance_count": 3}),
        Event(AT, "disk.low", None, {"free_bytes": 1}),
    ]
    with_writer(site, lambda w: w.add_events(told))
    put(site, "cut", encoded(instance(3))[:-40])


def derivatives(site: Site) -> None:
    plain_studies(site)
    derive(site)
    first, second = site.rows("SELECT instance_id FROM instances ORDER BY 1 LIMIT 2")
    with_writer(
        site,
        lambda w: w.record_derivatives(
            [
                Derivative(
                    first, Kind.VIDEO, Status.FAILED, DerivativeReason.CORRUPT_PIXELS, None, 1, AT
                ),
                Derivative(
                    second, Kind.VIDEO, Status.SKIPPED, DerivativeReason.NOT_A_CINE, None, 0, AT
                ),
            ]
        ),
    )


def a_damaged_object_sent_again(site: Site) -> None:
    plain_studies(site)
    path = site.archive.root / sorted(site.objects())[0]
    path.chmod(0o640)
    path.write_bytes(b"")
    put(site, "again", instance(1, instance=1))


def adopted_by_repair(site: Site) -> None:
    plain_studies(site)
    other = Site(site.root.with_name("other"))
    put(other, "a", instance(7))
    (path,) = other.objects()
    target = site.archive.root / path
    target.parent.mkdir(parents=True)
    os.rename(other.archive.root / path, target)
    found = verify(site.archive.root, site.index).found
    with_writer(site, lambda w: repair(found, site.archive.root, w, defaults=defaults))


def claims_that_killed_their_reader(site: Site) -> None:
    plain_studies(site)
    with_writer(site, lambda w: [w.count_attempt("0" * 24) for _ in range(2)])


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        plain_studies, one_study_from_two_sources, duplicates, variants, conflicts,
        a_variant_of_a_conflict, a_lost_object_put_back_by_another_writer,
        another_made_current_and_back, a_study_corrected_and_made_current, settled_by_a_person,
        files_set_aside, archive_files,
        fields_filled_late, contradictions, patients_told_apart, one_id_two_patients,
        one_id_two_patients_until_corrected, a_patient_known_better_later,
        promoted_columns, sources_with_defaults, events, derivatives,
        a_damaged_object_sent_again, adopted_by_repair, claims_that_killed_their_reader,
    )
}  # fmt: skip

#: What sources leave out, in all scenarios.
SOURCES = {"CT1": SourceDefaults("ISO_IR 100", ""), "MANUAL": SourceDefaults("", "CLINIC")}


def defaults(source: str) -> tuple[str, str]:
    """Return the same as a rebuild asks for it."""
    found = SOURCES.get(source, SourceDefaults())
    return found.character_set, found.issuer_of_patient_id


def issuer_of(source: str) -> str:
    """Return the issuer that a source's files leave out."""
    return defaults(source)[1]


def lose_index(site: Site) -> Path:
    """Take the index away, with all that lies beside it."""
    for path in site.archive.root.glob("index.db*"):
        path.unlink()
    return site.index
