"""What is printed obeys the reader, not the file."""

from __future__ import annotations

import json

import pytest

from ingester.cli import screen, summary
from ingester.cli.sheets import defused


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert screen.printable("a\x1b[31mb\nc") == "a\\x1b[31mb\\x0ac"
    assert screen.printable("Müller^Jörg 山田") == "Müller^Jörg 山田"
    assert screen.printable(b"\x00\xff") == "00FF"
    assert screen.printable(None) == ""
    assert screen.printable("\udcff") == "\\xff"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert screen.size(count) == text


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+49 30 1234", "'+49 30 1234"),
        ("-cmd", "'-cmd"),
        ("\t=1", "'\t=1"),
        ("-12.5", "-12.5"),
        ("Meyer", "Meyer"),
        (-3, -3),
        (b"\x01", "01"),
        (None, None),
    ],
)
def test_a_cell_that_a_spreadsheet_would_execute_is_defused(cell: object, safe: object) -> None:
    assert defused(cell) == safe


def test_the_summary_is_json_with_exactly_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    told = {**dict.fromkeys(summary.KEYS, 0), "seconds": 1.5, "more": 3}
    summary.show(told, as_json=True)
    assert list(json.loads(capsys.readouterr().out)) == list(summary.KEYS)
    summary.show({**told, "bytes": 2048}, as_json=False)
    shown = capsys.readouterr().out
    assert "2,048 (2.0 KiB)" in shown
    assert "derivative failures" in shown


@pytest.mark.parametrize("key", ["quarantined", "conflict", "derivative_failures"])
def test_what_needs_a_look_is_exit_code_1(key: str) -> None:
    told = dict.fromkeys(summary.KEYS, 0)
    assert summary.exit_code({**told, "foreign": 3, "duplicate": 2}) == 0
    assert summary.exit_code({**told, key: 1}) == 1
