"""The small parts of the service, each by itself."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingester.completion import BatchKey, StudyKey
from ingester.config import FreeSpace, Settings, parse
from ingester.receivers.supervise import ReceiverState
from ingester.service import receiving, rooms
from ingester.service.disks import Disks
from ingester.service.notify import notify, watchdog_seconds
from ingester.service.status import Rates
from ingester.service.timers import Timers
from ingester.service.waiting import lies_in_spool
from ingester.spool import Spool, handed_over


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "spool").mkdir()
    (tmp_path / "archive").mkdir()
    return parse(b"[sources.CT1]\nissuer_of_patient_id = 'HOSPITAL'\n", tmp_path / "ingest.toml")


def test_timers_run_when_due_and_once_for_what_was_missed() -> None:
    clock = HandClock()
    timers = Timers(clock)
    ran: list[float] = []
    timers.every(10.0, lambda: ran.append(clock.seconds))
    timers.run()
    assert (ran, timers.next_at()) == ([], 1010.0)
    clock.seconds = 1055.0
    timers.run()
    timers.run()
    assert (ran, timers.next_at()) == ([1055.0], 1065.0)


def test_a_disk_below_its_mark_is_told_once_and_holds_the_intake_up(settings: Settings) -> None:
    everything = FreeSpace(share=0.999999)
    archive = settings.archive.model_copy(update={"min_free": everything})
    full = settings.model_copy(update={"archive": archive})
    disks = Disks(full)
    assert disks.sentence is None
    assert [name for name, _ in disks.look()] == ["archive"]
    assert [name for name, _ in disks.look()] == []
    assert disks.sentence is not None
    assert "min_free" in disks.sentence
    assert disks.low == ["archive"]


def test_a_full_spool_does_not_hold_the_intake_up(settings: Settings) -> None:
    spool = settings.spool.model_copy(update={"min_free": FreeSpace(share=0.999999)})
    disks = Disks(settings.model_copy(update={"spool": spool}))
    assert [name for name, _ in disks.look()] == ["spool"]
    assert disks.sentence is None


def test_what_waits_is_seen_where_it_lies(settings: Settings) -> None:
    spool = rooms.make_spool(settings)
    spool.make_folders()

    def put(path: str) -> None:
        (spool.root / path).parent.mkdir(parents=True, exist_ok=True)
        (spool.root / path).write_bytes(b"x")

    origins = [("CT1", "CD_1"), ("CT1", None), ("MANUAL", "CD_2"), ("MANUAL", None)]
    assert not any(lies_in_spool(spool, origin) for origin in origins)
    put("CT1/CD_1/DICOM/Thumbs.db")
    assert not lies_in_spool(spool, ("CT1", "CD_1"))
    put("CT1/CD_1/DICOM/a.part")  # somebody is still copying
    assert lies_in_spool(spool, ("CT1", "CD_1"))
    (spool.root / "CT1/CD_1/DICOM/a.part").rename(spool.root / "CT1/CD_1/DICOM/a.dcm")
    assert lies_in_spool(spool, ("CT1", "CD_1"))
    assert not lies_in_spool(spool, ("CT1", None))
    put("CT1/b.dcm")
    assert lies_in_spool(spool, ("CT1", None))
    put("CD_2/c.dcm")
    assert lies_in_spool(spool, ("MANUAL", "CD_2"))
    assert not lies_in_spool(spool, ("MANUAL", None))
    put("d.dcm")
    assert lies_in_spool(spool, ("MANUAL", None))


def test_what_was_received_or_handed_over_waits_too(settings: Settings) -> None:
    spool = Spool(settings.spool.path)
    spool.make_folders()
    association = "0" * 24
    received = spool.root / ".received/PACS" / f"{association}.000001.dcm"
    received.parent.mkdir()
    received.write_bytes(b"x")
    assert lies_in_spool(spool, ("PACS", association))
    assert not lies_in_spool(spool, ("PACS", "1" * 24))
    for number, batch in enumerate(("CD 1/x", "Müller & Söhne, 50 %")):
        assert not lies_in_spool(spool, ("MANUAL", batch))
        imported = spool.root / handed_over("MANUAL", batch, f"{number:024x}", "a/b.dcm")
        imported.parent.mkdir(parents=True)
        imported.write_bytes(b"x")
        assert lies_in_spool(spool, ("MANUAL", batch))


def test_associations_hold_their_own_study_and_batch_up(settings: Settings) -> None:
    class Receiver:
        state = ReceiverState(open=(("PACS", "0" * 24),))

        def start(self) -> None: ...
        def poll(self) -> bool:
            return False

        def next_poll_in(self) -> float:
            return 60.0

        def stop(self, timeout: float) -> None: ...

    receivers = receiving.Receivers(
        settings, Spool(settings.spool.path), lambda *_, **__: None, lambda: None
    )
    receivers._receivers = [Receiver()]
    study, batch = StudyKey("1.2"), BatchKey("PACS", "1" * 24)
    assert receivers.has_association(study, ("PACS", "1" * 24))
    assert not receivers.has_association(study, ("CT1", None))
    assert not receivers.has_association(batch, ("PACS", "1" * 24))
    assert receivers.has_association(batch, ("PACS", "0" * 24))


def test_rates_are_of_the_last_minute() -> None:
    rates = Rates()
    for second in range(120):
        rates.add(float(second), second * 10, second * 1000)
    found = rates.as_document(119.0, 1190, 119_000)
    assert found == {"files_per_second": 10.0, "bytes_per_second": 1000}


def test_systemd_is_told_where_it_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("WATCHDOG=1")
        assert listener.recv(100) == b"WATCHDOG=1"
    path.unlink()
    notify("STOPPING=1")
    assert watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert watchdog_seconds() == 30.0


def test_the_configuration_reaches_the_rooms(settings: Settings) -> None:
    limits = settings.limits.model_copy(update={"object": 1000, "archive_members": 7})
    told = rooms.ingest_settings(settings.model_copy(update={"limits": limits}), is_impatient=True)
    assert (told.limits.object_bytes, told.unpack_limits.members) == (1000, 7)
    assert told.sources["CT1"].issuer_of_patient_id == "HOSPITAL"
    assert told.is_impatient
    assert not told.is_network(settings.spool.path)
    assert rooms.source_defaults(settings)("CT1") == ("", "HOSPITAL")
    assert rooms.source_defaults(settings)("other") == ("", "")
    scp = receiving.scp_settings(settings)
    assert replace(scp, port=0).host == "127.0.0.1"
    assert scp.min_free_bytes == 2**30
