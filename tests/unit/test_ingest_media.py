"""CDs on their way in: a DICOMDIR is kept, and what it tells of its files is true."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from ingester.ingest import Ingest, IngestSettings
from ingester.service.waiting import lies_in_spool
from tests.clocks import HandClock
from tests.factory import drop, encoded, instance, uid
from tests.media import burn, images, respell
from tests.site import Site


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def patient_site(tmp_path: Path, clock: HandClock) -> Site:
    """A site as the service has it: what is not whole waits."""
    return Site(tmp_path / "site", settings=IngestSettings(), clock=clock)


def settle(ingest: Ingest) -> None:
    """Look, and take turns until there is nothing to do at this moment."""
    ingest.turn(look=True)
    while ingest.turn(look=False).is_busy:
        pass
    ingest.turn(look=False)


def told(site: Site, name: str = "%DICOMDIR%") -> Any:
    """Return what the arrival of the one DICOMDIR of such a name tells."""
    (detail,) = site.rows(
        "SELECT json_object('referenced', json_extract(detail, '$.referenced'),"
        " 'missing', json_extract(detail, '$.missing')) FROM arrivals"
        " WHERE outcome = 'unpacked' AND original_name LIKE ?",
        name,
    )
    return detail


def missing(site: Site, name: str = "%DICOMDIR%") -> list[str]:
    """Return the File IDs that the DICOMDIRs of such a name tell of as missing."""
    return site.rows(
        "SELECT json_extract(m.value, '$.file_id') FROM arrivals,"
        " json_each(detail, '$.missing_files') AS m"
        " WHERE outcome = 'unpacked' AND original_name LIKE ? ORDER BY 1",
        name,
    )


def lose(cd: Path, count: int) -> list[str]:
    """Remove the last images of a CD; returns their File IDs."""
    lost = images(cd)[-count:]
    for path in lost:
        path.unlink()
    return [str(path.relative_to(cd)) for path in lost]


def zipped(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return out.getvalue()


@pytest.fixture
def cd(tmp_path: Path) -> Path:
    return burn(tmp_path / "CD_7")


def test_a_whole_cd_leaves_nothing_missing_and_its_viewer_is_foreign(site: Site, cd: Path) -> None:
    shutil.copytree(cd, site.spool.root / "CD_7")
    site.ingest_all()
    assert site.outcomes() == {"archived": 10, "foreign": 3, "unpacked": 1}
    assert told(site) == '{"referenced":10,"missing":0}'
    ((arrival_id, kept_at),) = site.rows(
        "SELECT arrival_id, json_extract(detail, '$.kept_at') FROM arrivals"
        " WHERE outcome = 'unpacked'"
    )
    assert kept_at == f".media/{arrival_id}/DICOMDIR"
    assert (site.archive.root / kept_at).read_bytes() == (cd / "DICOMDIR").read_bytes()
    site.check()


def test_what_is_missing_is_named_and_told_anew_when_it_comes(site: Site, cd: Path) -> None:
    whole = {path.relative_to(cd): path.read_bytes() for path in images(cd)}
    lost = lose(cd, 3)
    shutil.copytree(cd, site.spool.root / "CD_7")
    site.ingest_all()
    assert missing(site) == lost
    for left, name in zip((2, 1, 0), lost, strict=True):
        drop(site.spool.root / "CD_7" / name, whole[Path(name)])
        site.ingest_all()
        assert len(missing(site)) == left
    assert told(site) == '{"referenced":10,"missing":0}'
    site.check()


def test_what_is_in_the_archive_already_is_not_missing(site: Site, cd: Path) -> None:
    drop(site.spool.root / "CT1/sent", images(cd)[-1].read_bytes())
    site.ingest_all()
    lose(cd, 1)
    shutil.copytree(cd, site.spool.root / "CD_7")
    site.ingest_all()
    assert missing(site) == []


def test_a_cd_that_is_copied_slowly_is_judged_at_its_end(
    patient_site: Site, clock: HandClock, cd: Path
) -> None:
    spool = patient_site.spool
    with patient_site.ingesting(
        lies_in_spool=lambda origin: lies_in_spool(spool, origin)
    ) as ingest:
        drop(spool.root / "CD_7/DICOMDIR", (cd / "DICOMDIR").read_bytes())
        for path in images(cd):
            settle(ingest)
            assert patient_site.rows("SELECT 1 FROM arrivals WHERE outcome = 'unpacked'") == []
            assert ("MANUAL", "CD_7") in ingest.batches_under_way()
            clock.seconds += 1.5
            drop(spool.root / "CD_7" / path.relative_to(cd), path.read_bytes())
        settle(ingest)
        turn = ingest.turn(look=False)
        assert turn.wake_at == pytest.approx(clock.seconds + 2)
        clock.seconds += 2
        settle(ingest)
        assert told(patient_site) == '{"referenced":10,"missing":0}'
        assert ingest.is_idle
    patient_site.check()


def test_a_file_that_nobody_has_looked_at_yet_is_waited_for(
    patient_site: Site, clock: HandClock, cd: Path
) -> None:
    spool = patient_site.spool
    last = images(cd)[-1].relative_to(cd)
    content = (cd / last).read_bytes()
    (cd / last).unlink()
    shutil.copytree(cd, spool.root / "CD_7")
    with patient_site.ingesting(
        lies_in_spool=lambda origin: lies_in_spool(spool, origin)
    ) as ingest:
        settle(ingest)
        drop(spool.root / "CD_7" / last, content)
        for _ in range(5):
            clock.seconds += 10
            while ingest.turn(look=False).is_busy:
                pass
        assert patient_site.rows("SELECT 1 FROM arrivals WHERE outcome = 'unpacked'") == []
        settle(ingest)
        clock.seconds += 10
        settle(ingest)
        assert told(patient_site) == '{"referenced":10,"missing":0}'
    patient_site.check()


def test_a_file_that_still_grows_is_waited_for_but_not_for_ever(
    patient_site: Site, clock: HandClock, cd: Path
) -> None:
    spool = patient_site.spool
    last = images(cd)[-1]
    last.write_bytes(last.read_bytes()[:-50])
    shutil.copytree(cd, spool.root / "CD_7")
    with patient_site.ingesting() as ingest:
        settle(ingest)
        for _ in range(29):
            clock.seconds += 30
            settle(ingest)
            assert patient_site.rows("SELECT 1 FROM arrivals WHERE outcome = 'unpacked'") == []
        clock.seconds += 60
        settle(ingest)
        clock.seconds += 60
        settle(ingest)
    assert missing(patient_site) == [str(last.relative_to(cd))]
    assert patient_site.outcomes()["quarantined"] == 1


def test_what_goes_on_elsewhere_holds_no_cd_up(
    patient_site: Site, clock: HandClock, cd: Path
) -> None:
    spool = patient_site.spool
    drop(spool.root / "CT1/other/grows", encoded(instance(9))[:-50])
    drop(spool.root / "CD_8/grows", encoded(instance(8))[:-50])
    shutil.copytree(cd, spool.root / "CD_7")
    with patient_site.ingesting(
        lies_in_spool=lambda origin: lies_in_spool(spool, origin)
    ) as ingest:
        settle(ingest)
        clock.seconds += 3
        settle(ingest)
        assert told(patient_site) == '{"referenced":10,"missing":0}'
        assert ingest.claimed == 2


def test_two_cds_together_are_each_measured_by_their_own_directory(
    site: Site, tmp_path: Path
) -> None:
    one = burn(tmp_path / "one", [instance(1, 1, 1, n) for n in range(1, 4)])
    two = burn(tmp_path / "two", [instance(2, 1, 1, n) for n in range(1, 5)])
    lost = lose(two, 2)
    shutil.copytree(one, site.spool.root / "box/CD1")
    shutil.copytree(two, site.spool.root / "box/deep/CD2")
    site.ingest_all()
    assert told(site, "%CD1%") == '{"referenced":3,"missing":0}'
    assert missing(site, "%CD2%") == lost
    assert site.rows("SELECT DISTINCT batch FROM arrivals") == ["box"]


def test_several_patients_and_directories_within_each_other(site: Site, tmp_path: Path) -> None:
    cd = burn(tmp_path / "CD", [instance(p, 1, 1, n) for p in (1, 2, 3) for n in (1, 2)])
    burn(cd / "OLD", [instance(4, 1, 1, n) for n in (1, 2)])
    shutil.copytree(cd, site.spool.root / "CD")
    site.ingest_all()
    assert site.rows("SELECT count(*) FROM patients") == [4]
    assert told(site, "CD/DICOMDIR") == '{"referenced":6,"missing":0}'
    assert told(site, "CD/OLD/DICOMDIR") == '{"referenced":2,"missing":0}'
    assert len(list(site.archive.media.glob("*/DICOMDIR"))) == 2


@pytest.mark.parametrize("name", ["CD.zip", "CT1/mail/CD.zip"])
def test_a_cd_in_a_zip_is_judged_after_its_last_member(site: Site, cd: Path, name: str) -> None:
    lost = lose(cd, 1)
    drop(site.spool.root / name, zipped(cd))
    site.ingest_all()
    assert site.outcomes() == {"archived": 9, "foreign": 3, "unpacked": 2}
    assert missing(site) == lost
    site.check()


def test_a_cd_dropped_straight_into_a_drop_folder_finds_its_files(site: Site, cd: Path) -> None:
    lost = lose(cd, 1)
    shutil.copytree(cd, site.spool.root / "CT1", dirs_exist_ok=True)
    site.ingest_all()
    assert missing(site) == lost
    batches = site.rows("SELECT DISTINCT batch FROM arrivals WHERE outcome != 'foreign'")
    assert sorted(batches) == ["DICOMDIR", lost[0].split("/")[0]]
    site.check()


def test_names_as_other_systems_spell_them_change_nothing(site: Site, cd: Path) -> None:
    respell(cd, is_lower=True, suffix=";1")
    shutil.copytree(cd, site.spool.root / "cd_7")
    site.ingest_all()
    assert told(site, "%dicomdir%") == '{"referenced":10,"missing":0}'


def directory(files: Iterable[tuple[list[str], str | None]]) -> Dataset:
    """Return a DICOMDIR with only these File IDs and UIDs."""
    ds = Dataset()
    ds.FileSetID = "OLD"
    ds.DirectoryRecordSequence = []
    for parts, sop_instance_uid in files:
        record = Dataset()
        record.OffsetOfTheNextDirectoryRecord = 0
        record.RecordInUseFlag = 0xFFFF
        record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
        record.DirectoryRecordType = "IMAGE"
        record.add(DataElement(0x00041500, "CS", parts, validation_mode=IGNORE))
        if sop_instance_uid is not None:
            record.ReferencedSOPInstanceUIDInFile = sop_instance_uid
        ds.DirectoryRecordSequence.append(record)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid(1)  # type: ignore[assignment]  # a str is a UID's value
    return ds


def written(ds: Dataset) -> bytes:
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.parametrize("top", ["CD_OLD/", "CT1/"])
def test_files_that_an_old_directory_names_without_a_uid_are_found_by_name(
    site: Site, top: str
) -> None:
    names = [["IMAGES", "IM1"], ["IMAGES", "IM2"], ["IMAGES", "IM3"], ["IMAGES", "TEXT"]]
    drop(site.spool.root / f"{top}DICOMDIR", written(directory((name, None) for name in names)))
    drop(site.spool.root / f"{top}images/im1;1", instance(1, 1, 1, 1))
    drop(site.spool.root / f"{top}images/im2.", instance(1, 1, 1, 2))
    drop(site.spool.root / f"{top}images/text", b"no object " * 30)
    drop(site.spool.root / "ELSEWHERE/images/im3", instance(1, 1, 1, 3))
    site.ingest_all()
    assert missing(site) == ["IMAGES/IM3", "IMAGES/TEXT"]


def test_file_ids_that_lead_elsewhere_are_text(site: Site, tmp_path: Path) -> None:
    outside = drop(tmp_path / "secret", instance(1))
    drop(
        site.spool.root / "CD/DICOMDIR",
        written(directory([(["..", "..", "..", "secret"], None), (["/etc/passwd"], uid(7))])),
    )
    site.ingest_all()
    assert missing(site) == ["../../../secret", "/etc/passwd"]
    assert outside.exists()
    site.check()


def test_a_broken_directory_says_what_is_wrong_and_the_images_arrive(site: Site, cd: Path) -> None:
    path = cd / "DICOMDIR"
    path.write_bytes(path.read_bytes()[:-40])
    shutil.copytree(cd, site.spool.root / "CD_7")
    site.ingest_all()
    assert site.outcomes() == {"archived": 10, "foreign": 3, "quarantined": 1}
    assert site.rows("SELECT reason FROM arrivals WHERE outcome = 'quarantined'") == ["incomplete"]
    site.check()


def test_a_directory_without_the_preamble_is_one_all_the_same(site: Site, cd: Path) -> None:
    path = cd / "DICOMDIR"
    path.write_bytes(path.read_bytes()[132:])
    shutil.copytree(cd, site.spool.root / "CD_7")
    site.ingest_all()
    assert told(site) == '{"referenced":10,"missing":0}'


def test_a_directory_that_is_only_a_data_set_is_one_all_the_same(site: Site, cd: Path) -> None:
    ds = dcmread(cd / "DICOMDIR")
    out = io.BytesIO()
    ds.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=False)
    whole = out.getvalue()
    start = whole.index(b"\x04\0\x30\x11") if b"\x04\0\x30\x11" in whole else 0
    (cd / "DICOMDIR").write_bytes(whole[start:])
    shutil.copytree(cd, site.spool.root / "CD_7")
    site.ingest_all()
    assert told(site) == '{"referenced":10,"missing":0}'
