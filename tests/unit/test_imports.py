"""The rooms of the house know only whom they may know (docs/development.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ingester"

#: All may import these.
NOUNS = {"model", "errors"}

#: Who may import whom, beside the nouns and what lies in its own room.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "model": set(),
    "errors": set(),
    "durable": set(),
    "moments": set(),
    "priority": set(),
    "ignore": set(),
    "settle": set(),
    "wake": set(),
    "config": {"keywords"},
    "keywords": set(),
    "demo": set(),
    "dicom": set(),
    "observe": set(),
    "completion": set(),
    "hooks": set(),
    "orphans": {"prepare"},
    "polling": set(),
    "watch": {"polling"},
    "archive": {"durable"},
    "sniff": {"dicom"},
    "prepare": {"dicom", "durable", "settle", "sniff"},
    "compare": {"dicom", "prepare"},
    "kept": {"durable", "archive", "claims"},
    "claims": {"durable", "archive"},
    "spool": {"durable", "ignore", "archive", "claims"},
    "quarantine": {"durable", "spool", "archive", "claims"},
    "unpack": {"durable"},
    "pool": {"prepare"},
    "index": {"durable", "keywords"},
    "derivatives": {"durable", "priority"},
    "receivers": {"durable", "archive"},
    "site": {"durable", "archive", "observe"},
    "control": {"durable"},
    "handover": {"durable", "spool", "sniff"},
    "receipt": {"archive", "dicom", "ignore", "index", "sniff", "spool", "unpack"},
    "ingest": {
        "archive", "claims", "compare", "durable", "index", "kept", "moments", "pool",
        "prepare", "quarantine", "settle", "spool", "unpack",
    },
    "check": {
        "archive", "claims", "compare", "durable", "index", "kept", "moments", "pool", "prepare",
        "quarantine", "site", "spool",
    },
    "backup": {
        "archive", "check", "claims", "durable", "index", "moments", "site", "spool",
    },
    "doctor": {
        "archive", "backup", "claims", "derivatives", "durable", "ignore", "index", "settle",
        "site", "spool", "watch",
    },
}  # fmt: skip

#: These two furnish the house and may enter every room.
EVERYWHERE = {"service", "cli"}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> Iterator[str]:
    """Yield the rooms that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "ingester":
            names = [f"ingester.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            if name.startswith("ingester.") and name != "ingester.__version__":
                yield name.split(".")[1]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_knows_only_whom_it_may_know(file: Path) -> None:
    room = room_of(file)
    if room in EVERYWHERE:
        return
    allowed = MAY_IMPORT[room] | NOUNS | {room}
    assert set(imported_rooms(file)) <= allowed


def test_only_service_and_cli_read_the_configuration() -> None:
    readers = {room_of(file) for file in FILES if "config" in set(imported_rooms(file))}
    assert readers <= EVERYWHERE | {"config"}


def test_service_does_not_know_the_command_line() -> None:
    assert not any(
        "cli" in set(imported_rooms(file)) for file in FILES if room_of(file) == "service"
    )


def test_the_table_has_no_room_that_is_not_there() -> None:
    assert set(MAY_IMPORT) | EVERYWHERE == {room_of(file) for file in FILES}


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)*) \|$", text, re.MULTILINE)
    documented = {room: set(re.findall(r"\w+", may)) for room, may in rows}
    assert documented == {room: may for room, may in MAY_IMPORT.items() if may and room[0] != "_"}
