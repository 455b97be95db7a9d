"""What `--help` prints is what somebody has read and found good."""

from __future__ import annotations

import pytest

from tests.docs.helptexts import FOLDER, WIDTH, names, shown, stored


@pytest.mark.parametrize("name", names())
def test_the_help_is_the_one_that_was_read(name: str) -> None:
    # Words only: other versions of click fold lines elsewhere.
    assert shown(name).split() == stored(name).read_text(encoding="utf-8").split(), (
        "where this is meant: python -m tests.docs.helptexts"
    )


def test_no_help_is_stored_that_is_not_there() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == sorted(names())


@pytest.mark.parametrize("name", names())
def test_the_help_fits_a_terminal(name: str) -> None:
    examples = shown(name).partition("Examples:")[2]
    for line in shown(name).splitlines():
        assert len(line) <= WIDTH or line in examples


def test_the_programs_help_says_how_tab_is_switched_on() -> None:
    assert 'eval "$(_INGESTER_COMPLETE=bash_source ingester)"' in " ".join(
        shown("ingester").split()
    )
