"""One command for all proofs: `python -m tests.proof power_cuts --states 10000`."""

from __future__ import annotations

import argparse
import runpy
import sys

from tests.proof.report import ROOT

_NO_PROOFS = {"__init__", "__main__", "ends", "report", "table"}


def main() -> None:
    """Run the proof that is named, with its own options."""
    names = sorted(
        path.stem for path in (ROOT / "tests" / "proof").glob("*.py") if path.stem not in _NO_PROOFS
    )
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("name", choices=names)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="NAME --help tells them")
    given = parser.parse_args()
    sys.argv[1:] = given.options
    runpy.run_module(f"tests.proof.{given.name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
