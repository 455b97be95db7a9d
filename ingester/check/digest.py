"""Reading a file's bytes back from its disk, not from the kernel's memory of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20


def never() -> bool:
    """Return that nobody asked to stop."""
    return False


def sha256_on_disk(path: Path | str, is_stopped: Callable[[], bool] = never) -> str:
    """Return the SHA-256 (hex) of what the disk holds, as far as the kernel lets one ask.

    Pages that it remembers are dropped before, and again after: reading a whole archive
    must not push the service's own out of memory.

    Raises
    ------
    OSError : the file is not there, is a link, or cannot be read
    KeyboardInterrupt : *is_stopped* said so
    """
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while data := os.read(descriptor, _CHUNK):
            if is_stopped():
                raise KeyboardInterrupt
            digest.update(data)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return digest.hexdigest()
