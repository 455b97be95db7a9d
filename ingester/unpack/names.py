"""The names of members: shown, judged, and made into names that are safe on disk.

A member's name comes from whoever made the archive file.  It never decides where
anything is written: the folder is made from the member's number, and only a cleaned
last part of the name follows, for the people who may look at it in quarantine.
"""

from __future__ import annotations

import re

_LONGEST_SHOWN = 4096
_LONGEST_SAFE = 200  # bytes; file systems allow 255, quarantine may add to it
_SEPARATORS = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")
_LITTER_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_LITTER_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


def shown(name: str) -> str:
    """Return *name* on one line: control, bidi and undecodable characters escaped."""
    cut = name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "…"
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in cut
    )


def is_unsafe(name: str) -> bool:
    """Say whether *name*, taken at its word, could point out of its folder."""
    return (
        name.startswith(("/", "\\"))
        or _DRIVE.match(name) is not None
        or "\0" in name
        or ".." in _SEPARATORS.split(name)
    )


def is_litter(name: str) -> bool:
    """Say whether *name* is what operating systems leave in folders.

    Only what cannot be an object: temporary and hidden names, which are left alone in
    a drop folder, are unpacked, for here nobody will ever rename them.
    """
    *folders, last = _SEPARATORS.split(name)
    return not _LITTER_FOLDERS.isdisjoint(folders) or last.lower() in _LITTER_FILES


def is_folder(name: str) -> bool:
    """Say whether *name* is spelt as a folder's."""
    return name.endswith(("/", "\\"))


def safe_name(name: str) -> str:
    """Return one path part that resembles the last part of *name*.

    Printable, at most 200 bytes of UTF-8, no separator, and no leading dot or dash
    (hidden files, options).
    """
    parts = [part for part in _SEPARATORS.split(name) if part not in ("", ".", "..")]
    last = "".join(each if each.isprintable() else "_" for each in parts[-1]) if parts else ""
    if last.startswith((".", "-")):
        last = "_" + last[1:]
    return last.encode()[:_LONGEST_SAFE].decode(errors="ignore").strip() or "member"
