"""What a proof leaves behind: figures that say by which code and seed they came about."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def revision() -> str:
    """Return the commit of the working tree; `+` where something is changed since."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return commit + "+" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(
    path: Path | None,
    what: str,
    seed: int,
    tried: int,
    violations: Sequence[str],
    command: str,
    details: Mapping[str, Any],
) -> None:
    """Write the figures of one proof as JSON: to *path*, and to standard output."""
    document = {
        "what": what,
        "revision": revision(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.partition(" ")[0],
        "seed": seed,
        "tried": tried,
        "violations": len(violations),
        "violations_told": list(violations[:20]),
        "command": command,
        "details": dict(details),
    }
    text = json.dumps(document, indent=2, ensure_ascii=True) + "\n"
    if path is not None:
        path.write_text(text)
    sys.stdout.write(text)
