"""The table of proofs in docs/reliability.md, from the figures that each left behind.

    python -m tests.proof.table proofs/*.json

prints it; with `--write` it takes the old one's place between its two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.proof.report import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- proofs -->", "<!-- end of proofs -->"
_HEAD = (
    "| what | tried | violations | seed | code | repeat it |",
    "|---|---|---|---|---|---|",
)


def table(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return the documents of `report.write` as a Markdown table, by what they prove."""
    rows = [
        f"| {each['what']} | {each['tried']:,} | {each['violations']:,} | {each['seed']} "
        f"| {each['revision']} | `{each['command']}` |"
        for each in sorted(documents, key=lambda each: str(each["what"]))
    ]
    return "\n".join([*_HEAD, *rows])


def replaced(page: str, text: str) -> str:
    """Return the page with another table between its marks.

    Raises
    ------
    ValueError
        it has not both marks.
    """
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"the page lacks its marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("documents", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    given = parser.parse_args()
    text = table(json.loads(path.read_text()) for path in given.documents)
    if given.write:
        PAGE.write_text(replaced(PAGE.read_text(), text))
    else:
        sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
