"""Sites in memory: what dies here is the program, or a disk that is simulated.

A flush costs nothing there, and many thousands of starts are made.  Where there is no such
file system, or little room, they lie where all tests' do.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 512 << 20


def _is_roomy(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize >= _ROOM_BYTES


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an empty folder, in memory where there is room."""
    on_disk = tmp_path_factory.mktemp("site")
    place = _MEMORY if _is_roomy(_MEMORY) else on_disk
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)
