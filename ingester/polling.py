"""Noticing changes where nobody tells: the folders' own modification times.

watchdog's polling observer keeps every file of the tree in memory and asks about
each of them at every turn; here one `stat` a folder is enough, because the answer
is only a reason to look.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

_OURS = frozenset({".claimed", ".receiving", "quarantine"})
_RECEIVED = ".received"

_MOST_FOLDERS = 5000


def is_watched(name: str) -> bool:
    """Return whether new files may come below this name at a drop folder's top."""
    return name == _RECEIVED or (name not in _OURS and not name.startswith("."))


@dataclass(slots=True)
class PolledTree:
    """A tree of folders whose modification times are asked now and then.

    One `stat` a folder; only folders that changed are listed again.  At most
    `_MOST_FOLDERS` are known; what lies beyond waits for the periodic look.
    """

    path: Path
    seconds: float
    due_at: float = 0.0
    _stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    _has_echo: bool = False

    def look(self, now: float) -> bool:
        """Return whether a folder changed since the last look, if one is due."""
        if now < self.due_at:
            return False
        self.due_at = now + self.seconds
        # A second file may come within the same tick of a coarse clock (2 s on FAT):
        # a change counts twice.
        has_changed = self._has_changed()
        answer = has_changed or self._has_echo
        self._has_echo = has_changed
        return answer

    def _has_changed(self) -> bool:
        top = os.fspath(self.path)
        has_changed = False
        waiting = list(self._stamps) or [top]
        while waiting:
            folder = waiting.pop()
            try:
                status = os.stat(folder, follow_symlinks=False)
                stamp = (status.st_ino, status.st_mtime_ns)
                if self._stamps.get(folder) == stamp:
                    continue
                below = self._folders_below(folder, is_top=folder == top)
            except OSError:
                # Gone, or the server hiccups: what is there is asked again next time.
                if folder != top:
                    self._stamps.pop(folder, None)
                continue
            has_changed = True
            if len(self._stamps) < _MOST_FOLDERS or folder in self._stamps:
                self._stamps[folder] = stamp
                waiting.extend(each for each in below if each not in self._stamps)
        return has_changed

    def _folders_below(self, folder: str, *, is_top: bool) -> list[str]:
        with os.scandir(folder) as entries:
            return [
                entry.path
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and (is_watched(entry.name) if is_top else not entry.name.startswith("."))
            ]
