"""A site in a folder, and the commands asked of it, within this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ingester.cli import main


class Home:
    """A site and the commands asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        answer = CliRunner().invoke(main, ["init", str(root)])
        assert answer.exit_code == 0, answer.output
        self.config = root / "ingest.toml"

    def run(self, *arguments: str | Path, **options: Any) -> Result:
        words = ["--config", str(self.config), *map(str, arguments)]
        return CliRunner().invoke(
            main, words, prog_name="ingester", catch_exceptions=False, **options
        )

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)
