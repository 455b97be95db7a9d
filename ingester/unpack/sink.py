"""Members on their way to the disk: each in a folder of its own, in pages.

Nothing is flushed here: the archive file is kept until every member has its outcome, and
what becomes of a member is flushed where that is decided.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ingester import durable
from ingester.model import Refusal
from ingester.unpack.names import safe_name, shown
from ingester.unpack.request import Extracted, ExtractRequest, Member

_FILE_MODE = 0o640
_FOLDER_MODE = 0o770  # the set-group-ID bit is inherited


class Page:
    """Gathers the members of one page and knows when it is full."""

    def __init__(self, request: ExtractRequest) -> None:
        self._request = request
        self._folder = Path(request.folder)
        self._members: list[Member] = []
        self._bytes = 0
        self._skipped = 0

    def has_room_for(self, size_bytes: int) -> bool:
        """Say whether a member of that size still belongs to this page."""
        if not self._members:
            return True
        return (
            len(self._members) < self._request.most_members
            and self._bytes + size_bytes <= self._request.most_bytes
        )

    def skip(self) -> None:
        """Count an entry that is nobody's file."""
        self._skipped += 1

    def add(
        self, number: int, name: str, chunks: Iterable[bytes], refusal: Refusal | None = None
    ) -> None:
        """Write a member's bytes and add it to the page.

        What an earlier, interrupted attempt left under the same number is replaced.
        Where *chunks* raises, the half-written file is removed.
        """
        above = self._folder / f"{number:06d}"
        durable.make_folder(above, _FOLDER_MODE)
        durable.make_folder(above / "in", _FOLDER_MODE)
        path = above / "in" / safe_name(name)
        durable.unlink(path)
        descriptor = durable.create(path, _FILE_MODE)
        size = 0
        try:
            for chunk in chunks:
                durable.write(descriptor, chunk, path)
                size += len(chunk)
        except BaseException:
            durable.unlink(path)
            raise
        finally:
            os.close(descriptor)
        self._bytes += size
        self._members.append(Member(number, shown(name), os.fspath(path), size, refusal))

    def add_empty_handed(self, number: int, name: str, refusal: Refusal) -> None:
        """Add a member that has no bytes of its own."""
        self._members.append(Member(number, shown(name), None, 0, refusal))

    def extracted(self, following: int | None) -> Extracted:
        """Return the page; *following* is the entry that the next one begins with."""
        return Extracted(tuple(self._members), next=following, skipped=self._skipped)
