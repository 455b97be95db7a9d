"""Telling systemd that we are ready and alive: a line to a socket, no library."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send *state* ("READY=1", "WATCHDOG=1", "STOPPING=1") where systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.sendto(state.encode(), address)
        except OSError:
            return  # a supervisor that does not listen is not our trouble


def watchdog_seconds() -> float | None:
    """Return how often to send WATCHDOG=1 (half of systemd's patience), None for never."""
    try:
        patience = int(os.environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return patience / 2_000_000
