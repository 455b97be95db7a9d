"""Is the machine fit: Python, text, clock, open files, inotify."""

from __future__ import annotations

import ctypes
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingester.doctor.findings import Check

_OLDEST = datetime(2020, 1, 1, tzinfo=UTC)
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 256  # struct timex is 208 bytes here; the call writes no more than that

_MOST_EVENTS = 131_072
_FEWEST_WATCHES = 8_192


def python(version: tuple[int, int, int], program: str) -> Check:
    """Say which Python runs this."""
    text = ".".join(map(str, version))
    if version < (3, 11, 0):
        return Check.problem("python", f"{text} at {program}", "install Python 3.11 or newer")
    return Check.ok("python", f"{text} at {program}")


def text(file_names: str, output: str | None) -> Check:
    """Say how names of files are read and written: by which encodings."""
    fix = "set LANG=C.UTF-8 in the environment"
    if file_names.lower() not in ("utf-8", "utf8"):
        message = f"names of files are read as {file_names}: other names are kept as bytes"
        return Check.problem("text", message, fix)
    if (output or "utf-8").lower() not in ("utf-8", "utf8"):
        return Check.note("text", f"this terminal shows {output}: other names are escaped", fix)
    return Check.ok("text", "UTF-8")


def clock(
    now: datetime,
    *,
    installed: datetime,
    last_archived: datetime | None,
    is_synchronised: bool | None,
) -> Check:
    """Say whether the clock can be right: it dates arrivals, and orders versions.

    Parameters
    ----------
    installed : when this program came here: no right clock is earlier
    last_archived : the last moment in the index, None where there is none
    is_synchronised : what the kernel says, None where it does not
    """
    fix = "timedatectl set-ntp true"
    if now < max(_OLDEST, installed):
        return Check.problem("clock", f"it says {now:%Y-%m-%d %H:%M}, which is past", fix)
    if last_archived is not None and last_archived > now + timedelta(minutes=1):
        message = f"the last object was archived at {last_archived:%Y-%m-%d %H:%M}, in the future"
        return Check.problem("clock", f"{message}: the clock is, or was, wrong", fix)
    if is_synchronised is False:
        return Check.note("clock", "nothing keeps it right, as far as the kernel knows", fix)
    return Check.ok("clock", "synchronised" if is_synchronised else f"{now:%Y-%m-%d %H:%M} UTC")


def is_synchronised() -> bool | None:
    """Ask the kernel whether something (NTP) keeps its clock right; None if it won't say."""
    libc = ctypes.CDLL(None, use_errno=True)
    answer: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if answer < 0 else answer != _TIME_ERROR


def open_files(soft: float, needed: int) -> Check:
    """Compare the limit of open files with what this configuration may need."""
    shown = "unlimited" if math.isinf(soft) else f"{soft:,.0f}"
    if soft < needed:
        message = f"the limit is {shown}, this configuration may need {needed:,}"
        return Check.problem("open-files", message, "ulimit -n 4096 (systemd: LimitNOFILE=4096)")
    return Check.ok("open-files", f"the limit is {shown}")


@dataclass(frozen=True, slots=True)
class InotifyLimits:
    """What the kernel gives each user."""

    watches: int
    events: int
    instances: int

    @classmethod
    def read(cls, folder: Path = Path("/proc/sys/fs/inotify")) -> InotifyLimits:
        """Read them from /proc."""
        names = ("max_user_watches", "max_queued_events", "max_user_instances")
        return cls(*(int((folder / name).read_text()) for name in names))


def has_inotify_instance() -> bool:
    """Try whether the kernel gives out another inotify instance to this user."""
    descriptor = ctypes.CDLL(None, use_errno=True).inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def inotify(limits: InotifyLimits, *, folders: int, has_watch: bool, has_instance: bool) -> Check:
    """Compare the kernel's limits with how many folders there are to watch.

    Parameters
    ----------
    folders : in all drop folders
    has_watch, has_instance : whether another one was to be had just now
    """
    lines = []
    if not has_watch or limits.watches < max(2 * folders, _FEWEST_WATCHES):
        lines.append(f"fs.inotify.max_user_watches={max(524_288, 4 * folders)}")
    if not has_instance or limits.instances < 64:
        lines.append("fs.inotify.max_user_instances=512")
    is_short = bool(lines)
    if limits.events < _MOST_EVENTS:
        lines.append(f"fs.inotify.max_queued_events={_MOST_EVENTS}")
    found = (
        f"{limits.watches:,} watches (there are {folders:,} folders), {limits.events:,} events, "
        f"{limits.instances:,} instances"
    )
    if not lines:
        return Check.ok("inotify", found)
    fix = f"sysctl -w {' '.join(lines)} (to keep: in /etc/sysctl.d/ingester.conf)"
    if is_short:
        return Check.problem("inotify", f"{found}: some folders would be polled", fix)
    return Check.note("inotify", f"{found}: a burst of files may be seen only at the rescan", fix)
