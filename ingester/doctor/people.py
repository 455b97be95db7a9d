"""Whom the service runs as: the process that holds the site, else the archive's owner."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from ingester.doctor.apart import Person


def me() -> Person:
    """Return whom this process runs as."""
    return Person(_name(os.geteuid()), os.geteuid(), os.getegid(), tuple(os.getgroups()))


def of_service(archive: Path, holder: int | None) -> Person:
    """Return whom the service runs as, or would: me, where nobody can tell.

    Parameters
    ----------
    holder : the process that holds the site, None or 0 where it is not known
    """
    if holder:
        try:
            return _of_process(Path(f"/proc/{holder}/status").read_text("ascii", "replace"))
        except (OSError, ValueError, KeyError):
            pass  # it has just ended
    try:
        status = os.stat(archive)
    except OSError:
        return me()
    if status.st_uid == os.geteuid():
        return me()
    name = _name(status.st_uid)
    try:
        groups = tuple(os.getgrouplist(name, status.st_gid))
    except (KeyError, OSError):
        groups = (status.st_gid,)
    return Person(name, status.st_uid, status.st_gid, groups)


def _of_process(status: str) -> Person:
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    uid, gid = int(fields["Uid"].split()[1]), int(fields["Gid"].split()[1])
    return Person(_name(uid), uid, gid, tuple(map(int, fields["Groups"].split())))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
