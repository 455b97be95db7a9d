"""What every command knows: which configuration is meant, and how to ask there.

Reading the configuration is left until a command needs it: `--help` and `--version`
work anywhere.
"""

from __future__ import annotations

import shlex
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingester.config import Settings
    from ingester.model import type_json


class Site:
    """A spool, an archive and an index, as one `ingest.toml` names them."""

    def __init__(self, config: str | None) -> None:
        self._config = config

    @cached_property
    def file(self) -> Path:
        """Return the path of the configuration."""
        from ingester.config import find

        return find(self._config)

    @property
    def command(self) -> str:
        """Return how this site is asked again: `ingester`, with --config where needed."""
        return f"ingester --config {shlex.quote(self._config)}" if self._config else "ingester"

    @cached_property
    def settings(self) -> Settings:
        """Return the settings, read at the first use; raises `Fatal`."""
        from ingester.config import load

        return load(self._config)

    def ask(self, command: str, **arguments: type_json) -> dict[str, type_json] | None:
        """Ask the running service; None where none runs."""
        from ingester import control

        if not self.settings.archive.path.is_dir():
            return None
        return control.ask(self.settings.archive.path, command, timeout=None, **arguments)

    def perform(self, command: str, **arguments: type_json) -> dict[str, type_json]:
        """Ask the running service, else do it here under the locks."""
        told = self.ask(command, **arguments)
        if told is not None:
            return told
        from ingester import service

        return service.perform(self.settings, command, **arguments)
