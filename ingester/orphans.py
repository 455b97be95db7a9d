"""A reading process must not outlive the service that it reads for.

The pool's processes are forked from a server, and each holds the pipe by which the
server would notice that the service has died: a service that was killed would leave
all of them behind, for ever.  So each watches the service itself.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading

from ingester.prepare import initialise


def begin_reading() -> None:
    """Prepare a process of the pool: warm, quiet, and mortal."""
    initialise()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_follow, args=(parent.sentinel,), name="follow-parent", daemon=True
        ).start()


def _follow(sentinel: int) -> None:
    """End this process the moment that the service is gone; nothing is half-done by it."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
