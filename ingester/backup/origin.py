"""What is backed up, and the nouns of a backup: the files it shall hold.

Everything is a value; nothing here touches a disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ingester.archive import DERIVATIVE_MODE, OBJECT_MODE

#: Where a backup keeps what lay in the spool: the quarantine.
SPOOL = ".spool"
#: The index in a backup, wherever the site's own lies.
INDEX = "index.db"


class WishKind(StrEnum):
    """What a file of the backup is."""

    OBJECT = "object"
    DERIVATIVE = "derivative"
    MEDIUM = "medium"  # a kept DICOMDIR
    QUARANTINED = "quarantined"

    @property
    def mode(self) -> int:
        """Return the mode it has in the backup."""
        return OBJECT_MODE if self is WishKind.OBJECT else DERIVATIVE_MODE


@dataclass(frozen=True, slots=True)
class Wish:
    """A file that the backup lacks, or has and shall look at again (`is_doubtful`).

    `path` is relative to the backup.  Of an object size, SHA-256 (hex) and file time
    (ns since 1970) are known from the index; of other files they are None.
    """

    kind: WishKind
    path: str
    size_bytes: int
    sha256: str | None = None
    mtime_ns: int | None = None
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """The site that is backed up.

    `texts` are small files to lie at the top of the backup, by name.
    `others` are more folders that the backup must not lie in: shares.
    """

    archive: Path
    index: Path
    spool: Path
    texts: Mapping[str, bytes]
    others: tuple[Path, ...] = ()
    folder_mode: int = 0o2750

    def source_of(self, wish: Wish) -> Path:
        """Return where the bytes of a file of the backup come from."""
        if wish.kind is WishKind.QUARANTINED:
            return self.spool / wish.path.removeprefix(f"{SPOOL}/")
        return self.archive / wish.path
