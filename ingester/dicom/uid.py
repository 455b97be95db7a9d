"""Unique identifiers as they may be believed: safe in a path, or refused.

A UID from a file becomes part of a path only through `validated_uid`.  It admits
what the contract admits (1 to 64 ASCII digits and dots, a digit first and last) and
nothing else; whether the UID is also well formed is a matter of style (`uid_notes`).
"""

from __future__ import annotations

import re
from functools import lru_cache

_SAFE = re.compile(r"[0-9]([0-9.]{0,62}[0-9])?", re.ASCII)
_STANDARD = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)


class UnsafeUid(ValueError):
    """The value cannot be used as a UID; it is never part of this error."""


@lru_cache(maxsize=8192)
def validated_uid(raw: str | bytes | None) -> str | None:
    """Return the UID without its padding, or None where it is absent or empty.

    Raises
    ------
    UnsafeUid
        Where the value holds anything else than a UID of at most 64 characters.

    References
    ----------
    PS3.5 §9.1 and 6.2 (padding by one NUL; trailing spaces are common).
    """
    if raw is None:
        return None
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("ascii")
        except UnicodeDecodeError:
            raise UnsafeUid("not ASCII") from None
    uid = raw.rstrip("\0 ")
    if not uid:
        return None
    if not _SAFE.fullmatch(uid):
        raise UnsafeUid("not 1 to 64 digits and dots")
    return uid


@lru_cache(maxsize=8192)
def is_well_formed(uid: str) -> bool:
    """Tell whether a safe UID also keeps the Standard's rules of style."""
    return _STANDARD.fullmatch(uid) is not None
