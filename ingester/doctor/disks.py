"""Are the disks fit: which file systems, how they are mounted, how much room."""

from __future__ import annotations

from pathlib import Path

from ingester.doctor.findings import Check
from ingester.site import Space
from ingester.watch import Mount

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_WITHOUT_BARRIERS = frozenset({"nobarrier", "barrier=0", "data=writeback"})
#: Below this share no inode is left for long.
_FEWEST_INODES = 0.01


def file_system(place: str, path: Path, mount: Mount) -> Check:
    """Judge the file system of the spool, the archive, the index, a source or a share."""
    where = f"the {place} {path} lies on {mount.file_system} ({mount.path})"
    if "ro" in mount.options:
        return Check.problem(
            "file-system", f"{where}, mounted read-only", f"mount -o remount,rw {mount.path}"
        )
    if mount.file_system in _MEMORY:
        return Check.problem(
            "file-system",
            f"{where}: it is gone when the machine goes down",
            f"put the {place} on a disk",
        )
    if mount.is_remote and place == "index":
        return Check.problem(
            "file-system",
            f"{where}, a network file system: SQLite's index is not safe there",
            '[index] path = "/var/lib/ingester/index.db", on a local disk',
        )
    if weak := sorted(_WITHOUT_BARRIERS & mount.options):
        return Check.problem(
            "file-system",
            f"{where} with {', '.join(weak)}: a power cut may lose what was flushed",
            f"take {weak[0]} out of the mount options in /etc/fstab",
        )
    if mount.is_remote and place in ("spool", "source", "share"):
        return Check.note(
            "file-system", f"{where}: its server tells of no new files, so it is polled"
        )
    if mount.is_remote:
        return Check.note(
            "file-system", f"{where}: how durable a flush is there is its server's to say"
        )
    return Check.ok("file-system", where)


def receiver_durability(spool: Path, mount: Mount) -> Check:
    """Say what DCMTK's receiver, which never flushes, can promise on this file system."""
    if {"sync", "dirsync"} <= mount.options or "sync" in mount.options:
        return Check.ok("dcmtk", f"{spool} is mounted sync: what storescp acknowledges is durable")
    return Check.note(
        "dcmtk",
        "what storescp acknowledges survives a killed process, but not a power cut: it never "
        "flushes",
        "use [receiver.scp], or mount the spool with sync,dirsync",
    )


def free_space(place: str, path: Path, space: Space, least: int, inodes: float) -> Check:
    """Compare free space with the mark below which files wait.

    Parameters
    ----------
    least : `min_free` on this disk, in bytes
    inodes : the share of inodes that are free; 1.0 where the file system has none
    """
    free = f"{_shown(space.free_bytes)} of {_shown(space.total_bytes)} are free for the {place}"
    key = "[spool] min_free" if place == "spool" else "[archive] min_free"
    if space.free_bytes < least:
        return Check.problem(
            "free-space",
            f"{free} ({path}), less than {key} ({_shown(least)}): "
            + ("senders are asked to wait" if place == "spool" else "files wait in the spool"),
            "make room, or lower the mark",
        )
    if inodes < _FEWEST_INODES:
        return Check.problem(
            "free-space",
            f"{inodes:.1%} of the inodes are free for the {place} ({path})",
            "remove small files there, or use a file system with more inodes",
        )
    if space.free_bytes < 5 * least:
        return Check.note("free-space", f"{free} ({path}): that is soon full")
    return Check.ok("free-space", f"{free} ({path})")


def _shown(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
