"""Names that are left alone in the spool: unfinished copies and system litter.

A temporary name is considered again when it is renamed; nothing is ever decided
from a file name extension beyond this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate

#: Names that copy tools and editors use while they write.
TEMPORARY = (
    "*.part",
    "*.partial",
    "*.filepart",
    "*.crdownload",
    "*.download",
    "*.!ut",
    "*.tmp",
    "*.temp",
    "~$*",
    "*~",
    "*.swp",
    "*.lock",
    ".smbdelete*",
    "~syncthing~*",
)

#: Hidden names of that kind: rsync's (`.name.XXXXXX`).
HIDDEN_WHILE_WRITTEN = (".?*.[0-9a-z][0-9a-z][0-9a-z][0-9a-z][0-9a-z][0-9a-z]",)

#: What systems leave behind in folders.
LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx", "#recycle", "lost+found")


_is_temporary = re.compile("|".join(translate(each) for each in TEMPORARY)).fullmatch


def is_temporary(name: str) -> bool:
    """Return whether copy tools and editors use such a name while they write."""
    return _is_temporary(name.lower()) is not None


class Ignore:
    """A compiled set of patterns; case does not matter.

    Parameters
    ----------
    patterns : further `fnmatch` patterns for file and folder names (`[spool] ignore`)
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._match = _compiled((*TEMPORARY, *LITTER, *patterns))
        self._match_temporary = _compiled((*TEMPORARY, *HIDDEN_WHILE_WRITTEN))
        self._match_other = _compiled((*LITTER, *patterns))

    def __call__(self, name: str) -> bool:
        """Return whether a file or folder of this name is left alone."""
        return name.startswith(".") or self._match(name.lower()) is not None

    def is_temporary(self, name: str) -> bool:
        """Return whether a name says that somebody is still writing, or broke off.

        Such a file is left alone, but a batch is not complete while it lies there.
        """
        lower = name.lower()
        is_other = lower.startswith("._") or self._match_other(lower) is not None
        return self._match_temporary(lower) is not None and not is_other


def _compiled(patterns: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(translate(each.lower()) for each in patterns)).fullmatch
