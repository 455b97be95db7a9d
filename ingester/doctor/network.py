"""Can receivers listen, who reaches them, and how long their certificates hold."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingester.doctor.findings import Check

_SOON = timedelta(days=30)
_LOW_PORTS = 1024
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18


@dataclass(frozen=True, slots=True)
class LowPorts:
    """What is known of ports below 1024, which need a permission.

    is_root : this process is root's, but the service will not be
    is_granted : the installed unit gives the service that permission
    """

    is_root: bool = False
    is_granted: bool = False


def port(
    receiver: str,
    host: str,
    number: int,
    listen: Callable[[str, int], socket.socket],
    low: LowPorts,
) -> Check:
    """Try to listen where a receiver would; the service is not running."""
    where = f"{receiver} on {host} port {number}"
    is_low = 0 < number < _LOW_PORTS
    try:
        listen(host, number).close()
    except OSError as error:
        if is_low and low.is_granted and error.errno == errno.EACCES:
            return Check.ok("ports", f"{where}: the installed unit may listen there")
        return Check.problem("ports", f"{where}: {_why(error)}", _fix(error, receiver))
    if is_low and low.is_root and not low.is_granted:
        return Check.note(
            "ports",
            f"{where}: free; below 1024 a service that is not root's needs a permission",
            "ingester service --install gives it (CAP_NET_BIND_SERVICE)",
        )
    return Check.ok("ports", f"{where}: free")


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "this name leads to no address"
    return {
        errno.EADDRINUSE: "taken by another program",
        errno.EACCES: "ports below 1024 need a permission",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, error.strerror or str(error))


def _fix(error: OSError, receiver: str) -> str:
    section = f"[receiver.{receiver}]"
    if error.errno == errno.EADDRINUSE:
        return f"ss -ltnp shows who; or choose another port in {section}"
    if error.errno == errno.EACCES:
        return f"ingester service --install gives it; or a port above 1023 in {section}"
    return f"{section} host: an address of this machine (ip addr), or 0.0.0.0"


def running(receiver: dict[str, object]) -> Check:
    """Say what the running service tells of one of its receivers."""
    where = f"{receiver['name']} on {receiver['host']} port {receiver['port']}"
    if receiver["is_up"]:
        return Check.ok("ports", f"{where}: the service listens")
    return Check.problem(
        "ports",
        f"{where} is down: {receiver['message']}",
        f"mend [receiver.{receiver['name']}], then restart the service",
    )


def reach(host: str, *, is_limited: bool) -> Check:
    """Say whether everybody in the network may send."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    if is_local:
        return Check.ok("reach", "only this machine can send")
    if is_limited:
        return Check.ok("reach", "only those in [receiver.scp] allow can send")
    return Check.note(
        "reach",
        f"everybody who reaches {host} can send",
        '[receiver.scp] allow = ["AE@192.168.10.0/24"]',
    )


def tls(receiver: str, load: Callable[[], object], certificate: Path, now: datetime) -> Check:
    """Load a receiver's certificate and key, and see how long it holds."""
    try:
        load()
        end = expiry(certificate.read_text("ascii", "replace"))
    except (OSError, ValueError) as error:  # ssl.SSLError is one of the former
        why = error.reason if isinstance(error, ssl.SSLError) else error
        return Check.problem(
            "tls",
            f"{receiver}: {certificate}: {why or error}",
            f"[receiver.{receiver}]: a readable certificate, its key and the authority, as PEM",
        )
    until = f"{receiver}: the certificate holds until {end:%Y-%m-%d}"
    fix = f"have {certificate} renewed, then restart the service"
    if end <= now:
        return Check.problem("tls", f"{receiver}: the certificate ended on {end:%Y-%m-%d}", fix)
    if end - now < _SOON:
        return Check.note("tls", until, fix)
    return Check.ok("tls", until)


def load_chain(certificate: Path, key: Path | None) -> None:
    """Load a certificate and its key; raises OSError where they do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)


def expiry(pem: str) -> datetime:
    """Return when the first certificate of a PEM file ends.

    Raises
    ------
    ValueError : there is no certificate in it

    References
    ----------
    RFC 5280 §4.1: Certificate -> TBSCertificate -> validity -> notAfter.
    """
    begin = pem.find("-----BEGIN CERTIFICATE-----")
    end = pem.find("-----END CERTIFICATE-----", begin)
    if begin < 0 or end < 0:
        raise ValueError("there is no certificate in it")
    der = ssl.PEM_cert_to_DER_cert(pem[begin:end] + "-----END CERTIFICATE-----\n")
    signed = _items(der)[0][1]
    fields = _items(_items(signed)[0][1])
    if fields and fields[0][0] == 0xA0:  # the version, which old ones leave out
        fields = fields[1:]
    if len(fields) < 4:
        raise ValueError("that is no certificate")
    dates = _items(fields[3][1])
    if len(dates) != 2:
        raise ValueError("that is no certificate")
    kind, raw = dates[1]
    text = raw.decode("ascii", "replace")
    if kind == _UTC_TIME:
        century = "19" if text[:2] >= "50" else "20"
        text = century + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("the certificate has no end")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _items(der: bytes) -> list[tuple[int, bytes]]:
    """Part a DER value into its items: tag and contents."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + 2 <= len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(der[at : at + count], "big")
            at += count
        found.append((tag, der[at : at + size]))
        at += size
    if not found:
        raise ValueError("that is no certificate")
    return found
