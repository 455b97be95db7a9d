"""Where log lines of a command go: standard error, and the file of `[log]`."""

from __future__ import annotations

from ingester.config import Settings
from ingester.observe import set_up_logging


def begin(settings: Settings, *, is_brief: bool = False) -> None:
    """Set up logging; *is_brief* leaves out what is not at least a warning.

    A command with a progress bar and a summary says what happened by these.
    """
    log = settings.log
    level = "warning" if is_brief and log.level in ("debug", "info") else log.level
    set_up_logging(level=level, style=log.format, file=None if is_brief else log.file)
