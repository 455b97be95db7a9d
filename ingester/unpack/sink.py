"""Members on their way to the disk: written beside each other, in pages.

Nothing is flushed here.  The archive file stays where it is until every member's fate
is durable, so what a crash leaves half-written is unpacked once more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ingester import durable
from ingester.model import Refusal
from ingester.unpack.names import safe_name, shown
from ingester.unpack.request import Extracted, ExtractRequest, Member, Place, Survey

_FILE_MODE = 0o640


class Page:
    """Gathers the members of one page and knows when it is full."""

    def __init__(self, request: ExtractRequest, survey: Survey | None) -> None:
        self._request = request
        self._survey = survey
        self._folder = Path(request.folder)
        self._members: list[Member] = []
        self._bytes = 0
        self._skipped = 0

    @property
    def is_full(self) -> bool:
        """Return whether the next member belongs to another page."""
        request = self._request
        return len(self._members) >= request.most_members or self._bytes >= request.most_bytes

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
        path = self._folder / f"{number:06d}={safe_name(name)}"
        descriptor = _create(path)
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

    def extracted(self, following: Place | None) -> Extracted:
        """Return the page; *following* is where the next one begins."""
        return Extracted(
            tuple(self._members), next=following, survey=self._survey, skipped=self._skipped
        )


def _create(path: Path) -> int:
    try:
        return durable.create(path, _FILE_MODE)
    except FileExistsError:
        durable.unlink(path)
        return durable.create(path, _FILE_MODE)
