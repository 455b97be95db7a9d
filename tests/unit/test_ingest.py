"""The story of every file, turn by turn, with a clock of the test's own."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ingester import durable
from ingester.index.writer import Writer
from ingester.ingest import Ingest, IngestSettings, SourceDefaults
from ingester.model import Claim
from tests.clocks import HandClock
from tests.factory import drop, encoded, instance, uid
from tests.inline import InlineExecutor
from tests.site import Site, drain


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def patient_site(tmp_path: Path, clock: HandClock) -> Site:
    """A site as the service has it: what is not whole waits."""
    return Site(tmp_path / "site", settings=IngestSettings(), clock=clock)


def settle(ingest: Ingest) -> None:
    """Take turns until there is nothing to do at this moment."""
    while ingest.turn(look=False).is_busy:
        pass


def test_an_object_goes_all_the_way(site: Site) -> None:
    drop(site.spool.root / "CT1/cd/a", instance(1))
    site.ingest_all()
    assert list(site.objects()) == [f"CT1/2024/01/01/{uid(1, 1)}/{uid(1, 1, 1, 1)}.dcm"]
    assert site.left_in_spool() == []
    site.check()


def test_the_file_time_is_the_moment_of_archiving_and_no_two_are_equal(site: Site) -> None:
    for number in range(1, 30):
        drop(site.spool.root / f"{number:02d}", instance(1, 1, 1, number))
    site.ingest_all()
    rows = site.rows("SELECT path, archived_at FROM instances ORDER BY instance_id")
    moments = [moment for _, moment in rows]
    assert moments == sorted(set(moments))
    for path, moment in rows:
        mtime = (site.archive.root / path).stat().st_mtime_ns // 1000
        told = datetime.fromisoformat(moment)
        assert mtime == int(told.replace(microsecond=0).timestamp()) * 1_000_000 + told.microsecond


def test_the_first_of_two_versions_is_current_whichever_is_read_faster(site: Site) -> None:
    drop(site.spool.root / "1", instance(1, rows=128, columns=128))
    drop(site.spool.root / "2", instance(1, PatientID="X"))
    drop(site.spool.root / "3", instance(1, PatientID="Y"))
    site.ingest_all()
    rows = site.rows("SELECT original_name, outcome FROM arrivals ORDER BY 1")
    assert rows == [("1", "archived"), ("2", "conflict"), ("3", "conflict")]
    assert site.rows("SELECT count(*) FROM problems WHERE kind = 'conflict'") == [2]
    site.check()


def test_a_growing_file_waits_in_its_claim_and_is_taken_when_whole(
    patient_site: Site, clock: HandClock
) -> None:
    data = encoded(instance(1))
    path = drop(patient_site.spool.root / "a", data[:-200])
    with patient_site.ingesting() as ingest:
        ingest.turn(look=True)
        settle(ingest)
        assert (ingest.claimed, ingest.waiting, patient_site.outcomes()) == (1, 1, {})
        assert not path.exists()
        (claim,) = patient_site.spool.claimed()
        with claim.path.open("ab") as file:
            file.write(data[-200:])
        settle(ingest)
        assert patient_site.outcomes() == {}
        clock.seconds += 61
        settle(ingest)
        assert patient_site.outcomes() == {"archived": 1}
    patient_site.check()


def test_what_stays_cut_short_is_quarantined_in_the_end(
    patient_site: Site, clock: HandClock
) -> None:
    drop(patient_site.spool.root / "a", encoded(instance(1))[:-200])
    with patient_site.ingesting() as ingest:
        ingest.turn(look=True)
        for _ in range(40):
            settle(ingest)
            clock.seconds += 30
        assert patient_site.outcomes() == {"quarantined": 1}
    assert patient_site.rows("SELECT reason FROM arrivals") == ["incomplete"]
    patient_site.check()


def test_an_open_file_is_not_even_claimed_and_overruled_after_a_while(
    patient_site: Site, clock: HandClock
) -> None:
    path = drop(patient_site.spool.root / "a", instance(1))
    with patient_site.ingesting() as ingest, path.open("ab"):
        ingest.turn(look=True)
        assert (ingest.claimed, ingest.waiting) == (0, 1)
        clock.seconds += 31
        settle(ingest)
        clock.seconds += 1
        settle(ingest)
        assert patient_site.outcomes() == {"archived": 1}
    (detail,) = patient_site.rows("SELECT json_extract(detail, '$.intake') FROM arrivals")
    assert detail == "copy"
    patient_site.check()


def test_a_hard_link_to_somebody_elses_file_is_copied(site: Site, tmp_path: Path) -> None:
    mine = drop(tmp_path / "mine", instance(1))
    os.link(mine, site.spool.root / "a")
    site.ingest_all()
    assert site.outcomes() == {"archived": 1}
    assert mine.stat().st_mode & 0o777 == 0o644
    assert mine.stat().st_nlink == 1
    site.check()


def test_intake_by_copy_leaves_nothing_in_staging(site: Site) -> None:
    drop(site.spool.root / "a", instance(1))
    drop(site.spool.root / "b", instance(1))
    drop(site.spool.root / "c.txt", b"hello " * 100)
    site.ingest_all(intake="copy")
    assert site.outcomes() == {"archived": 1, "duplicate": 1, "foreign": 1}
    assert os.listdir(site.archive.staging) == []
    site.check()


def failing(effect: str, code: int, times: int) -> Callable[[str, str], None]:
    left = [times]

    def observer(name: str, path: str) -> None:
        if name == effect and left[0] > 0:
            left[0] -= 1
            raise OSError(code, os.strerror(code))

    return observer


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize(
    "effect", ["rename", "mkdir", "seal", "fsync-file", "link", "fsync-folder", "commit", "unlink"]
)
def test_a_disk_that_fails_for_a_while_only_delays(
    tmp_path: Path, clock: HandClock, effect: str, code: int
) -> None:
    site = Site(tmp_path / "site", clock=clock)
    site.spool.make_folders()
    drop(site.spool.root / "a", instance(1))
    drop(site.spool.root / "b", instance(1, PatientID="X"))
    drop(site.spool.root / "c", encoded(instance(2))[:-10])
    with site.ingesting() as ingest, durable.observe(failing(effect, code, 3)):
        turn = ingest.turn(look=True)
        for _ in range(50):
            if ingest.is_idle:
                break
            clock.seconds += 61
            turn = ingest.turn(look=False)
        assert turn.trouble is None
    assert site.outcomes() == {"archived": 1, "conflict": 1, "quarantined": 1}
    site.check()
    assert site.left_in_spool() == []


def test_trouble_is_told_in_words_while_it_lasts(site: Site) -> None:
    drop(site.spool.root / "a", instance(1))
    with site.ingesting() as ingest, durable.observe(failing("link", errno.ENOSPC, 1)):
        turn = ingest.turn(look=True)
        assert turn.trouble == "waiting: No space left on device"
        assert turn.wake_at is not None


class CrashingExecutor(InlineExecutor):
    """A pool in which reading a certain file kills the process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.crashes = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if args and any(getattr(each, "path", "").endswith(self.name) for each in args[0]):
            self.crashes += 1
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("it died"))
            return future
        return super().submit(fn, *args, **kwargs)


def test_a_file_that_kills_its_reader_is_poison_and_the_rest_goes_on(site: Site) -> None:
    for name in ("a", "b", "killer", "z"):
        drop(site.spool.root / name, instance(ord(name[0])))
    pool = CrashingExecutor("killer")
    with site.ingesting(pool) as ingest:
        drain(ingest)
    assert site.outcomes() == {"archived": 3, "quarantined": 1}
    assert site.rows("SELECT reason FROM arrivals WHERE reason IS NOT NULL") == ["poison"]
    assert pool.crashes == 4
    assert site.rows("SELECT count(*) FROM claim_attempts") == [0]
    site.check()


def test_a_zip_in_a_zip_is_unpacked_and_no_deeper(site: Site) -> None:
    data = encoded(instance(1))
    for depth in range(3):
        out = BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(f"level{depth}", data)
            archive.writestr(f"object{depth}", encoded(instance(2 + depth)))
        data = out.getvalue()
    drop(site.spool.root / "box.zip", data)
    site.ingest_all()
    assert site.outcomes() == {"unpacked": 2, "archived": 2, "quarantined": 1}
    assert site.rows("SELECT reason FROM arrivals WHERE reason IS NOT NULL") == ["bomb"]
    assert set(site.rows("SELECT batch FROM arrivals WHERE arrival_id LIKE '%.%'")) == {"box.zip"}
    site.check()


def test_defaults_of_a_source_fill_what_its_files_leave_out(site: Site) -> None:
    name = "Müller^Jürgen".encode("latin-1")
    data = encoded(instance(1, PatientName="Mxller^Jxrgen")).replace(b"Mxller^Jxrgen", name)
    drop(site.spool.root / "CT1/a", data)
    defaults = SourceDefaults(character_set="ISO_IR 100", issuer_of_patient_id="WARD")
    site.ingest_all(sources={"CT1": defaults})
    rows = site.rows("SELECT patient_name, issuer_of_patient_id FROM patients")
    assert rows == [("Müller^Jürgen", "WARD")]


def test_an_archived_file_without_a_row_is_adopted_before_another_version(site: Site) -> None:
    drop(site.spool.root / "a", instance(1))
    site.ingest_all()
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (site.archive.root / name).unlink(missing_ok=True)
    drop(site.spool.root / "b", instance(1, PatientID="X"))
    site.ingest_all()
    rows = site.rows("SELECT outcome FROM arrivals ORDER BY arrival_id")
    assert sorted(rows) == ["archived", "conflict"]
    site.check()


def test_an_adopted_file_is_read_as_its_source_says(site: Site) -> None:
    name = "Müller^Jürgen".encode("latin-1")
    data = encoded(instance(1, PatientName="Mxller^Jxrgen")).replace(b"Mxller^Jxrgen", name)
    drop(site.spool.root / "CT1/a", data)
    sources = {"CT1": SourceDefaults(character_set="ISO_IR 100", issuer_of_patient_id="WARD")}
    site.ingest_all(sources=sources)
    before = site.rows("SELECT patient_name, issuer_of_patient_id FROM patients")
    for path in site.archive.root.glob("index.db*"):
        path.unlink()
    drop(site.spool.root / "CT1/b", data.replace(b"Abdomen ", b"Thorax  "))
    site.ingest_all(sources=sources)
    assert site.outcomes() == {"archived": 1, "conflict": 1}
    assert site.rows("SELECT patient_name, issuer_of_patient_id FROM patients") == before
    site.check()


def test_a_resend_repairs_a_missing_or_damaged_file(site: Site) -> None:
    drop(site.spool.root / "a", instance(1))
    site.ingest_all()
    (path,) = site.objects()
    (site.archive.root / path).unlink()
    drop(site.spool.root / "b", instance(1))
    site.ingest_all()
    site.check()
    os.truncate(site.archive.root / path, 100)
    drop(site.spool.root / "c", instance(1))
    site.ingest_all()
    assert site.outcomes() == {"archived": 1, "duplicate": 2}
    site.check()


def test_sources_can_be_named_by_the_files_themselves(site: Site) -> None:
    ds = instance(1)
    encoded(ds)
    ds.file_meta.SourceApplicationEntityTitle = "MRI_7"
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    drop(site.spool.root / "CT1/a", out.getvalue())
    site.ingest_all(named_by_file=frozenset({"CT1"}))
    assert site.rows("SELECT source FROM instances") == ["MRI_7"]


def test_a_claim_of_the_last_run_is_taken_up_at_the_start(site: Site) -> None:
    site.spool.make_folders()
    drop(site.spool.root / "a", instance(1))
    (arrival,) = site.spool.look()
    ((_, claim),) = site.spool.claim([arrival], datetime.now(UTC))
    assert isinstance(claim, Claim)
    with site.ingesting():
        pass
    assert site.rows("SELECT arrival_id FROM arrivals") == [claim.arrival_id]
    site.check()


def test_draining_leaves_growing_files_to_the_next_start(patient_site: Site) -> None:
    drop(patient_site.spool.root / "a", encoded(instance(1))[:-9])
    drop(patient_site.spool.root / "b", instance(2))
    with patient_site.ingesting() as ingest:
        ingest.turn(look=True)
        assert ingest.drain(5)
        assert patient_site.outcomes() == {"archived": 1}
    assert len(patient_site.spool.claimed()) == 1


def test_an_executor_is_made_only_when_there_is_something_to_read(site: Site) -> None:
    site.spool.make_folders()
    site.archive.make_folders()
    made: list[Executor] = []

    def make() -> Executor:
        made.append(InlineExecutor())
        return made[-1]

    writer = Writer.open(site.index)
    ingest = Ingest(site.spool, site.archive, writer, make, site.settings, site.clock)
    ingest.recover()
    drain(ingest)
    assert made == []
    drop(site.spool.root / "a", instance(1))
    drain(ingest)
    assert len(made) == 1
    ingest.close()
    writer.close()


class StillbornExecutor(InlineExecutor):
    """A pool whose processes end as soon as they are started."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("it never lived"))
        return future


def test_processes_that_never_live_are_no_fault_of_the_files(
    tmp_path: Path, clock: HandClock
) -> None:
    site = Site(tmp_path / "site", clock=clock)
    for name in ("a", "b"):
        drop(site.spool.root / name, instance(ord(name)))
    pools: list[Executor] = [StillbornExecutor() for _ in range(6)]
    site.spool.make_folders()
    site.archive.make_folders()
    writer = Writer.open(site.index)
    ingest = Ingest(
        site.spool,
        site.archive,
        writer,
        lambda: pools.pop() if pools else InlineExecutor(),
        site.settings,
        clock,
    )
    turn = ingest.turn(look=True)
    assert turn.trouble == "waiting: the reading processes end as soon as they are started"
    for _ in range(20):
        clock.seconds += 61
        ingest.turn(look=False)
    ingest.close()
    writer.close()
    assert site.outcomes() == {"archived": 2}
