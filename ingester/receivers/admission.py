"""Who may send, and whether there is room for it.

`Admission` answers from the settings alone (AE titles, addresses, certificates);
`Census` counts associations over all receiving processes of one SCP in a piece of
shared memory; `Room` watches the spool's disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of a peer when it asks for an association."""

    ae_title: str
    address: str
    subjects: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class _Rule:
    ae_title: str | None = None
    network: Network | None = None
    subject: str | None = None

    def admits(self, peer: Peer, address: Address | None) -> bool:
        if self.subject is not None:
            return self.subject in peer.subjects
        if self.ae_title is not None and self.ae_title != peer.ae_title:
            return False
        if self.network is None:
            return True
        return address is not None and address in self.network


class Admission:
    """The `allow` list: a peer needs to match one entry; no entry admits everybody."""

    def __init__(self, allow: Iterable[str]) -> None:
        self._rules = [_rule(each) for each in allow]

    def admits(self, peer: Peer) -> bool:
        """Whether *peer* may send."""
        address = _address(peer.address)
        return not self._rules or any(rule.admits(peer, address) for rule in self._rules)


def _rule(text: str) -> _Rule:
    if text.startswith("tls:"):
        return _Rule(subject=text.removeprefix("tls:").strip())
    if (network := _network(text)) is not None:
        return _Rule(network=network)
    # An AE title may hold an `@` itself: only an address after the last one counts.
    title, _, rest = text.rpartition("@")
    if title and (network := _network(rest)) is not None:
        return _Rule(ae_title=title.strip(), network=network)
    return _Rule(ae_title=text.strip())


def _network(text: str) -> Network | None:
    if "." not in text and ":" not in text:
        return None  # "12345678" is an AE title, though also an address to `ipaddress`
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def subjects(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the names by which `tls:SUBJECT` may call a client's certificate.

    The common name, and the whole subject as `C=DE,O=Clinic,CN=ct1` in the order of
    the certificate.
    """
    if not certificate:
        return frozenset()
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    short = {"commonName": "CN", "countryName": "C", "organizationName": "O"}
    short |= {"organizationalUnitName": "OU", "localityName": "L", "stateOrProvinceName": "ST"}
    whole = ",".join(f"{short.get(name, name)}={value}" for name, value in pairs)
    return frozenset({whole, *(value for name, value in pairs if name == "commonName")})


_SLOT = 16


class Census:
    """Which addresses hold an association now, counted over all processes.

    Each process owns a row of slots in shared memory, a digest of the peer's address
    in each; a process that dies has its row wiped by the supervisor.  Entering counts
    and writes under a lock between the processes, so that the limits are exact.
    """

    def __init__(self, descriptor: int, row: int, slots: int) -> None:
        """Use the memory file *descriptor*, made by `make`; *row* is this process's."""
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        self._row = row
        self._slots = slots
        self._lock = threading.Lock()

    @staticmethod
    def make(rows: int, slots: int) -> int:
        """Return the descriptor of a new memory file for *rows* processes."""
        descriptor = os.memfd_create("associations", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, rows * slots * _SLOT)
        return descriptor

    def enter(self, address: str, most: int, most_per_address: int) -> int | None:
        """Take a slot, or None where a limit is reached; give it back with `leave`."""
        digest = hashlib.blake2b(address.encode(), digest_size=_SLOT).digest()
        with self._lock:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                held = self._held()
                if len(held) >= most or held.count(digest) >= most_per_address:
                    return None
                return self._take(digest)
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _held(self) -> list[bytes]:
        raw = self._memory[:]
        slots = (raw[at : at + _SLOT] for at in range(0, len(raw), _SLOT))
        return [slot for slot in slots if any(slot)]

    def _take(self, digest: bytes) -> int | None:
        first = self._row * self._slots
        for slot in range(first, first + self._slots):
            if not any(self._memory[slot * _SLOT : (slot + 1) * _SLOT]):
                self._memory[slot * _SLOT : (slot + 1) * _SLOT] = digest
                return slot
        return None

    def leave(self, slot: int) -> None:
        """Give a slot back."""
        with self._lock:
            self._memory[slot * _SLOT : (slot + 1) * _SLOT] = bytes(_SLOT)

    def wipe(self, row: int) -> None:
        """Forget the associations of a process that has died."""
        first = row * self._slots * _SLOT
        self._memory[first : first + self._slots * _SLOT] = bytes(self._slots * _SLOT)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self._descriptor)


class Room:
    """Whether the spool's disk has room, asked at most once a second.

    Below `least` (bytes, or a share of the disk) or with fewer than 1 % of the inodes
    free, no association is let in until half as much again is free.  A disk that
    failed to flush twice within a minute is not trusted for another minute.
    """

    def __init__(
        self,
        folder: Path,
        least_bytes: int,
        least_share: float,
        monotonic: Callable[[], float] = time.monotonic,
        statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._folder = folder
        self._least_bytes = least_bytes
        self._least_share = least_share
        self._monotonic = monotonic
        self._statvfs = statvfs
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._level = 0.0  # free space as a multiple of what must be free
        self._is_short = False
        self._failures: Sequence[float] = ()
        self._told: str | None = None
        self.trouble: str | None = None

    def has_room(self) -> bool:
        """Whether a new association may be let in."""
        with self._lock:
            self._ask()
            return self.trouble is None

    def trouble_has_changed(self) -> bool:
        """Whether `trouble` is another than when this was asked last."""
        with self._lock:
            self._ask()
            has_changed = self.trouble != self._told
            self._told = self.trouble
            return has_changed

    def is_critical(self) -> bool:
        """Whether even what is being received now should rather stop."""
        with self._lock:
            self._ask()
            return self._level < 0.5

    def flush_failed(self) -> None:
        """Note that the disk could not promise what it was asked to."""
        with self._lock:
            self._failures = (*self._failures, self._monotonic())[-2:]
            self._asked_at = None

    def _ask(self) -> None:
        now = self._monotonic()
        if self._asked_at is not None and now - self._asked_at < 1.0:
            return
        self._asked_at = now
        try:
            disk = self._statvfs(self._folder)
        except OSError as error:
            self._level, self.trouble = 1.0, f"the spool cannot be read: {error.strerror}"
            return
        self._level, self.trouble = self._judge(disk, now)

    def _judge(self, disk: os.statvfs_result, now: float) -> tuple[float, str | None]:
        least = max(self._least_bytes, int(self._least_share * disk.f_blocks * disk.f_frsize), 1)
        level = disk.f_bavail * disk.f_frsize / least
        has_inodes = not disk.f_files or disk.f_favail * 100 >= disk.f_files
        self._is_short = level < (1.5 if self._is_short else 1.0) or not has_inodes
        if self._is_short:
            what = "space" if has_inodes else "inodes"
            return level, f"the spool's disk is short of {what}"
        is_failing = len(self._failures) == 2 and now - self._failures[1] < 60
        if is_failing and self._failures[1] - self._failures[0] < 60:
            return level, "the spool's disk fails to store"
        return level, None
