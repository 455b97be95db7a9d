from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingester.receivers.admission import Admission, Census, Peer, Room, subjects


@pytest.mark.parametrize(
    ("rule", "title", "address", "is_admitted"),
    [
        ("CT1", "CT1", "10.1.1.1", True),
        ("CT1", "CT2", "10.1.1.1", False),
        ("10.1.0.0/16", "CT2", "10.1.9.9", True),
        ("10.1.0.0/16", "CT2", "10.2.9.9", False),
        ("10.1.0.0/16", "CT2", "::ffff:10.1.9.9", True),
        ("10.1.0.0/16", "CT2", "fe80::1%eth0", False),
        ("fe80::/10", "CT2", "fe80::1%eth0", True),
        ("CT1@10.1.0.0/16", "CT1", "10.1.0.1", True),
        ("CT1@10.1.0.0/16", "CT1", "10.2.0.1", False),
        ("CT1@10.1.0.0/16", "CT2", "10.1.0.1", False),
        ("A@B", "A@B", "10.1.0.1", True),
        ("A@B@10.0.0.0/8", "A@B", "10.1.0.1", True),
        ("12345", "12345", "10.1.0.1", True),
        ("10.1.1.1", "X", "10.1.1.1", True),
        ("CT1", "CT1", "", True),
        ("10.1.1.1", "X", "", False),
    ],
)
def test_rules(rule: str, title: str, address: str, is_admitted: bool) -> None:
    assert Admission([rule]).admits(Peer(title, address)) == is_admitted


def test_names_of_a_certificate() -> None:
    certificate = {"subject": ((("countryName", "DE"),), (("commonName", "ct1"),))}
    assert subjects(certificate) == {"ct1", "C=DE,CN=ct1"}
    assert subjects(None) == frozenset()
    assert Admission(["tls:ct1"]).admits(Peer("X", "10.0.0.1", subjects(certificate)))
    assert not Admission(["tls:ct2"]).admits(Peer("X", "10.0.0.1", subjects(certificate)))


def test_census_counts_over_processes_and_addresses() -> None:
    descriptor = Census.make(2, 4)
    one, two = Census(descriptor, 0, 4), Census(os.dup(descriptor), 1, 4)
    first = one.enter("10.0.0.1", 4, 2)
    assert first is not None
    assert two.enter("10.0.0.1", 4, 2) is not None
    assert two.enter("10.0.0.1", 4, 2) is None
    assert one.enter("10.0.0.2", 4, 2) is not None
    assert two.enter("10.0.0.3", 4, 2) is not None
    assert one.enter("10.0.0.4", 4, 2) is None
    one.leave(first)
    assert one.enter("10.0.0.1", 4, 2) is not None
    one.wipe(1)
    assert two.enter("10.0.0.1", 4, 2) is not None
    two.close()
    one.close()


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free
        self.files = 100

    def statvfs(self, _: Path) -> os.statvfs_result:
        blocks = (1, 1, 1000, self.free, self.free, 100, self.files, self.files, 0, 255)
        return os.statvfs_result(blocks)


def test_room_has_two_watermarks() -> None:
    now = [0.0]
    disk = Disk(100)
    room = Room(Path("/"), 100, 0.05, lambda: now[0], disk.statvfs)
    assert room.has_room()
    for free, has_room, is_critical in [
        (99, False, False),
        (120, False, False),
        (49, False, True),
        (149, False, False),
        (150, True, False),
        (100, True, False),
    ]:
        disk.free = free
        now[0] += 2
        assert (room.has_room(), room.is_critical()) == (has_room, is_critical)
    disk.files = 0
    now[0] += 2
    assert not room.has_room()
    assert room.trouble is not None
    assert "inodes" in room.trouble


def test_a_disk_that_fails_twice_is_not_trusted_for_a_minute() -> None:
    now = [0.0]
    room = Room(Path("/"), 0, 0.0, lambda: now[0], Disk(500).statvfs)
    room.flush_failed()
    assert room.has_room()
    now[0] = 30
    room.flush_failed()
    assert not room.has_room()
    now[0] = 95
    assert room.has_room()
