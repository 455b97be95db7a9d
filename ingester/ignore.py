"""Names that are left alone in the spool: unfinished copies and system litter.

A temporary name is considered again when it is renamed; nothing is ever decided
from a file name extension beyond this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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

#: What systems leave behind in folders.
LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx", "#recycle", "lost+found")


class Ignore:
    """A compiled set of patterns; case does not matter.

    Parameters
    ----------
    patterns : further `fnmatch` patterns for file and folder names (`[spool] ignore`)
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        every = (*TEMPORARY, *LITTER, *patterns)
        self._match = re.compile("|".join(translate(each.lower()) for each in every)).fullmatch

    def __call__(self, name: str) -> bool:
        """Return whether a file or folder of this name is left alone."""
        return name.startswith(".") or self._match(name.lower()) is not None
