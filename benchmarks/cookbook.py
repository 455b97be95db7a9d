"""The questions of docs/sql.md, read from the page that people paste from.

A question is a heading `### …` and below it a fenced block whose info string is
`sql bounded` (one study, one patient, one day, a page of a list) or `sql whole` (the
whole archive).  A `toml` block says which `[index] columns` the page counts on.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "sql.md"
#: Promoted where the page names none.
USUAL_COLUMNS = (
    "CTDIvol", "KVP", "Exposure", "XRayTubeCurrent", "SliceThickness", "ConvolutionKernel",
    "EchoTime", "RepetitionTime", "MagneticFieldStrength",
)  # fmt: skip

_HEADING = re.compile(r"^### +(.*\S)\s*$")
_FENCE = re.compile(r"^```(sql (?:bounded|whole)|toml)\s*$")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the SQL that answers it."""

    title: str
    sql: str
    is_bounded: bool


def page_text(path: Path = PAGE) -> str:
    """Return the page, "" where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def questions(page: str) -> list[Question]:
    """Return the questions of a page, in its order."""
    found = []
    for title, info, text in _blocks(page):
        if info.startswith("sql"):
            found.append(Question(title, text, info == "sql bounded"))
    return found


def promoted_columns(page: str) -> tuple[str, ...]:
    """Return the keywords that the page counts on as columns."""
    for _, info, text in _blocks(page):
        if info == "toml":
            columns = tomllib.loads(text).get("index", {}).get("columns")
            if columns:
                return tuple(columns)
    return USUAL_COLUMNS


def _blocks(page: str) -> list[tuple[str, str, str]]:
    found = []
    title, info, lines = "", "", list[str]()
    for line in page.splitlines():
        if info:
            if line.startswith("```"):
                found.append((title, info, "\n".join(lines)))
                info, lines = "", []
            else:
                lines.append(line)
        elif heading := _HEADING.match(line):
            title = heading[1]
        elif fence := _FENCE.match(line):
            info = fence[1]
    return found
