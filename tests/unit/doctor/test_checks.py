"""Each check: the thing is broken, and the finding says so with a fix."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trustme

from ingester.doctor import (
    Check,
    State,
    database,
    disks,
    leftovers,
    machine,
    network,
    pictures,
    programs,
)
from ingester.doctor.apart import DiedError, apart
from ingester.doctor.people import me, of_service
from ingester.receivers.supervise import listen
from ingester.site import Space, held, holder_of
from ingester.watch import Mount
from tests.factory import drop

NOW = datetime(2026, 5, 5, 12, tzinfo=UTC)


def is_ok(check: Check) -> None:
    assert (check.state, check.fix) == (State.OK, "")


def is_note(check: Check, words: str) -> None:
    assert check.state is State.NOTE
    assert words in check.message


def is_problem(check: Check, words: str, fix: str = "") -> None:
    assert check.state is State.PROBLEM
    assert words in check.message
    assert check.fix
    assert fix in check.fix


# -- the machine


def test_an_old_python() -> None:
    is_ok(machine.python((3, 11, 0), "/usr/bin/python3"))
    is_problem(machine.python((3, 10, 9), "/usr/bin/python3"), "3.10.9", "3.11")


def test_names_that_are_not_utf_8() -> None:
    is_ok(machine.text("utf-8", "UTF-8"))
    is_ok(machine.text("utf-8", None))
    is_problem(machine.text("iso8859-1", "utf-8"), "iso8859-1", "LANG")
    is_note(machine.text("utf-8", "ANSI_X3.4-1968"), "escaped")


@pytest.mark.parametrize(
    ("now", "last", "words"),
    [
        (datetime(2019, 1, 1, tzinfo=UTC), None, "2019"),
        (NOW - timedelta(days=400), None, "past"),
        (NOW, NOW + timedelta(days=1), "in the future"),
    ],
)
def test_a_clock_that_cannot_be_right(now: datetime, last: datetime | None, words: str) -> None:
    check = machine.clock(
        now, installed=NOW - timedelta(days=30), last_archived=last, is_synchronised=True
    )
    is_problem(check, words, "timedatectl")


def test_a_clock_that_nothing_keeps_right() -> None:
    def check(is_synchronised: bool | None) -> Check:
        return machine.clock(NOW, installed=NOW, last_archived=NOW, is_synchronised=is_synchronised)

    is_ok(check(True))
    is_ok(check(None))
    is_note(check(False), "nothing keeps it right")
    assert machine.is_synchronised() in (True, False, None)


def test_too_few_open_files() -> None:
    is_ok(machine.open_files(float("inf"), 512))
    is_ok(machine.open_files(512, 512))
    is_problem(machine.open_files(256, 512), "256", "ulimit -n")


def test_limits_of_inotify(tmp_path: Path) -> None:
    for name, value in (
        ("max_user_watches", 524_288),
        ("max_queued_events", 16_384),
        ("max_user_instances", 128),
    ):
        (tmp_path / name).write_text(f"{value}\n")
    limits = machine.InotifyLimits.read(tmp_path)
    assert limits == machine.InotifyLimits(524_288, 16_384, 128)

    def check(limits: machine.InotifyLimits, folders: int = 10, **there: bool) -> Check:
        return machine.inotify(
            limits, folders=folders, **{"has_watch": True, "has_instance": True, **there}
        )

    is_note(check(limits), "16,384 events")
    enough = machine.InotifyLimits(524_288, 131_072, 128)
    is_ok(check(enough))
    is_problem(check(enough, 400_000), "polled", "max_user_watches=1600000")
    is_problem(check(enough, has_watch=False), "polled", "max_user_watches")
    is_problem(check(enough, has_instance=False), "polled", "max_user_instances")
    is_problem(check(machine.InotifyLimits(100, 131_072, 128)), "100 watches", "max_user_watches")
    assert machine.InotifyLimits.read().watches > 0
    assert machine.has_inotify_instance() in (True, False)


# -- the disks


@pytest.mark.parametrize(
    ("place", "kind", "options", "words"),
    [
        ("archive", "ext4", "ro,relatime", "read-only"),
        ("spool", "tmpfs", "rw", "when the machine goes down"),
        ("index", "nfs4", "rw", "SQLite's index is not safe"),
        ("archive", "ext4", "rw,barrier=0", "power cut"),
        ("archive", "xfs", "rw,nobarrier", "power cut"),
        ("archive", "ext4", "rw,data=writeback", "power cut"),
    ],
)
def test_file_systems_that_will_not_do(place: str, kind: str, options: str, words: str) -> None:
    mount = Mount(Path("/srv"), kind, frozenset(options.split(",")))
    is_problem(disks.file_system(place, Path("/srv/x"), mount), words)


def test_file_systems_that_will_do() -> None:
    def check(place: str, kind: str) -> Check:
        return disks.file_system(place, Path("/srv/x"), Mount(Path("/srv"), kind))

    is_ok(check("archive", "ext4"))
    is_note(check("spool", "cifs"), "polled")
    is_note(check("archive", "nfs4"), "server")


def test_what_dcmtk_can_promise() -> None:
    def check(*options: str) -> Check:
        mount = Mount(Path("/"), "ext4", frozenset(options))
        return disks.receiver_durability(Path("/x"), mount)

    is_note(check("rw"), "power cut")
    is_ok(check("rw", "sync", "dirsync"))


def test_a_disk_that_fills_up() -> None:
    def check(place: str, free: int, inodes: float = 1.0) -> Check:
        return disks.free_space(place, Path("/x"), Space(free << 30, 100 << 30), 2 << 30, inodes)

    is_ok(check("archive", 50))
    is_note(check("archive", 5), "soon full")
    is_problem(check("archive", 1), "wait in the spool")
    is_problem(check("spool", 1), "asked to wait")
    is_problem(check("spool", 50, 0.001), "inodes")


# -- SQLite and the index


def test_sqlite_libraries() -> None:
    is_ok(database.library((3, 51, 3), []))
    is_note(database.library((3, 40, 1), []), "two writers")
    is_problem(database.library((3, 37, 2), []), "3.38", "newer SQLite")
    is_problem(database.library((3, 52, 0), ["THREADSAFE=0"]), "threads")
    is_problem(database.library((3, 52, 0), ["OMIT_JSON"]), "JSON")
    assert "OMIT_JSON" not in database.compile_options()


# -- pictures


def test_every_codec_reads_its_own_frame() -> None:
    found = list(pictures.codecs())
    assert found[0].state is State.OK, found[0].message
    for name in ("JPEG", "JPEG Lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", "JPEG XL", "RLE"):
        assert f"{name} (" in found[0].message


def test_a_codec_that_crashes_or_cannot_read() -> None:
    def crash() -> None:
        os.kill(os.getpid(), signal.SIGILL)

    crashed, *_ = pictures.codecs(crash, has_module=lambda _: True)
    is_problem(crashed, "SIGILL", "pip install")
    bad, *_ = pictures.codecs(
        lambda: {"JPEG": ["pillow", None], "RLE": [None, "ImportError: x"]},
        has_module=lambda _: True,
    )
    is_problem(bad, "RLE (ImportError: x)")
    assert "JPEG" not in bad.message.replace("imagecodecs", "")


def test_optional_decoders_that_are_not_there() -> None:
    _, lacking = pictures.codecs(lambda: {}, has_module=lambda name: name == "gdcm")
    is_note(lacking, "pylibjpeg, pyjpegls")
    assert "ingester[codecs]" in lacking.fix


def test_ffmpeg() -> None:
    found = pictures.ffmpeg()
    assert found.state is State.OK, found.message
    assert "H.264 works" in found.message

    def fail(folder: Path) -> None:
        raise RuntimeError("no libx264")

    is_problem(pictures.ffmpeg(fail), "no libx264", "IMAGEIO_FFMPEG_EXE")


# -- the network


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        check = network.port("scp", "127.0.0.1", number, listen, network.LowPorts())
        is_problem(check, "taken", "another port")
    is_ok(network.port("scp", "127.0.0.1", 0, listen, network.LowPorts()))


def test_an_address_that_is_not_ours() -> None:
    check = network.port("scp", "192.0.2.1", 0, listen, network.LowPorts())
    is_problem(check, "no such address", "host")


def test_a_low_port() -> None:
    def shut(host: str, port: int) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    def free(host: str, port: int) -> socket.socket:
        return socket.socket()

    def check(listen: Callable[[str, int], socket.socket], **low: bool) -> Check:
        return network.port("scp", "0.0.0.0", 104, listen, network.LowPorts(**low))

    is_problem(check(shut), "permission", "--install")
    is_ok(check(shut, is_granted=True))
    is_note(check(free, is_root=True), "free; below 1024")
    is_ok(check(free, is_root=True, is_granted=True))
    is_ok(check(free))


def test_who_reaches_the_receiver() -> None:
    is_ok(network.reach("127.0.0.1", is_limited=False))
    is_ok(network.reach("localhost", is_limited=False))
    is_ok(network.reach("0.0.0.0", is_limited=True))
    is_note(network.reach("0.0.0.0", is_limited=False), "everybody")
    is_note(network.reach("pacs.example", is_limited=False), "everybody")


def test_what_the_running_service_says_of_its_receivers() -> None:
    receiver: dict[str, object] = {"name": "scp", "host": "127.0.0.1", "port": 104}
    is_ok(network.running({**receiver, "is_up": True, "message": ""}))
    is_problem(network.running({**receiver, "is_up": False, "message": "taken"}), "taken")


def certificate(folder: Path, days: int) -> tuple[Path, Path]:
    """Make a certificate that ends in *days* days (of NOW) and its key."""
    begin, end = NOW - timedelta(days=400), NOW + timedelta(days=days)
    made = trustme.CA().issue_cert("localhost", not_before=begin, not_after=end)
    pem = made.cert_chain_pems[0].bytes()
    return drop(folder / "c.pem", pem), drop(folder / "k.pem", made.private_key_pem.bytes())


@pytest.mark.parametrize(("days", "state"), [(90, State.OK), (10, State.NOTE), (-1, State.PROBLEM)])
def test_how_long_a_certificate_holds(tmp_path: Path, days: int, state: State) -> None:
    chain, key = certificate(tmp_path, days)
    check = network.tls("scp.tls", lambda: network.load_chain(chain, key), chain, NOW)
    assert check.state is state, check.message
    assert f"{NOW + timedelta(days=days):%Y-%m-%d}" in check.message


def test_a_certificate_that_does_not_fit(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path / "a", 90)
    _, other = certificate(tmp_path / "b", 90)
    cases: list[tuple[Path, Path]] = [
        (chain, other), (key, key), (tmp_path / "gone", key), (drop(tmp_path / "x", b"x"), key),
    ]  # fmt: skip
    for one, two in cases:
        check = network.tls("scp.tls", partial(network.load_chain, one, two), one, NOW)
        is_problem(check, str(one), "PEM")


@pytest.mark.parametrize(
    "der", [b"", b"\x30", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff", b"\x05\x00"]
)
def test_what_is_no_certificate_has_no_end(der: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        network.expiry(ssl.DER_cert_to_PEM_cert(der))
    with pytest.raises(ValueError, match="no certificate"):
        network.expiry("nothing")


# -- programs


def test_a_hook_whose_program_cannot_be_run(tmp_path: Path) -> None:
    program = drop(tmp_path / "notify", b"#!/bin/sh\n")
    is_problem(programs.hook("quarantined", [str(program)], me()), "cannot be run", "chmod +x")
    program.chmod(0o755)
    is_ok(programs.hook("quarantined", [str(program)], me()))
    program.unlink()
    is_problem(programs.hook("quarantined", [str(program)], me()), "is not there")
    is_ok(programs.hook("quarantined", ["sh", "-c", "true"], me()))


def test_storescp() -> None:
    is_ok(programs.storescp("storescp", "/usr/bin/storescp", None))
    is_problem(programs.storescp("storescp", None, None), "not there", "dcmtk")
    is_problem(programs.storescp("storescp", "/usr/bin/storescp", "-uf"), "-uf", "arguments")


def test_a_program_that_the_service_cannot_read(tmp_path: Path) -> None:
    is_ok(programs.readable([tmp_path], me()))
    is_problem(programs.readable([tmp_path / "gone"], me()), "gone", "/opt")


def test_a_unit_of_another_configuration(tmp_path: Path) -> None:
    is_ok(programs.installed_unit(tmp_path, "a\n", "a"))
    is_note(programs.installed_unit(tmp_path, "a\n", "b"), "asks for")


# -- what lies about


def test_forgotten_copies(tmp_path: Path) -> None:
    drop(tmp_path / "CT1" / "a.part", b"x")
    drop(tmp_path / "b.dcm", b"x")
    drop(tmp_path / ".claimed" / "c.part", b"x")
    now = datetime.now(UTC)
    is_ok(leftovers.unfinished(tmp_path, now))
    is_note(leftovers.unfinished(tmp_path, now + timedelta(days=2)), "1 with a temporary name")
    assert "CT1/a.part" in leftovers.unfinished(tmp_path, now + timedelta(days=2)).message


def test_what_an_earlier_run_left(tmp_path: Path) -> None:
    spool, archive = tmp_path / "spool", tmp_path / "archive"
    is_ok(leftovers.of_a_stopped_service(spool, archive, claimed=0))
    drop(spool / ".receiving" / "x", b"x")
    drop(archive / ".staging" / "x", b"x")
    told = leftovers.of_a_stopped_service(spool, archive, claimed=2)
    is_note(told, "2 claimed files and 1 half-received files and 1 half-copied files")


def test_backups_that_are_old_or_were_never_made(tmp_path: Path) -> None:
    is_ok(leftovers.backups(tmp_path, NOW, has_objects=False))
    is_note(leftovers.backups(tmp_path, NOW, has_objects=True), "never backed up")
    drop(tmp_path / ".backups" / "a.json", b'{"path": "/mnt/b", "objects_at": null}')
    drop(tmp_path / ".backups" / "b.json", b"not JSON")
    is_note(leftovers.backups(tmp_path, NOW, has_objects=True), "never backed up")
    at = b'{"path": "/mnt/b", "objects_at": "2026-05-01T00:00:00.000Z"}'
    drop(tmp_path / ".backups" / "a.json", at)
    is_ok(leftovers.backups(tmp_path, NOW, has_objects=True))
    is_note(leftovers.backups(tmp_path, NOW + timedelta(days=9), has_objects=True), "13 days ago")


# -- the tools


def hang() -> None:
    signal.pause()


def leave() -> None:
    os._exit(3)


def fail() -> None:
    raise ValueError("nothing of the kind")


@pytest.mark.parametrize(
    ("work", "words"),
    [(hang, "did not answer"), (leave, "exit code 3"), (fail, "nothing of the kind")],
)
def test_what_happens_apart_stays_there(work: Callable[[], None], words: str) -> None:
    with pytest.raises(DiedError, match=words):
        apart(work, seconds=0.5)
    assert apart(lambda: ["x" * 300_000, 1]) == ["x" * 300_000, 1]


def test_who_holds_a_site(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with held(tmp_path, command="run"):
        assert holder_of(tmp_path) == os.getpid()
    assert holder_of(tmp_path) is None


def test_whom_the_service_runs_as(tmp_path: Path) -> None:
    assert of_service(tmp_path, os.getpid()).uid == os.geteuid()
    assert of_service(tmp_path, None).is_me
    assert of_service(tmp_path / "gone", 2**22 + 1).is_me
    other = of_service(Path("/proc/1"), None)
    assert other.uid == os.stat("/proc/1").st_uid
