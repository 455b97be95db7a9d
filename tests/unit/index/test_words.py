"""The sentence that a person reads says what is wrong, plainly, and no value."""

from __future__ import annotations

from typing import Any

import pytest

from ingester.index.words import explained
from ingester.model import Outcome, Verdict

HEAD = "It says it is an object that is stored already (the same SOP Instance UID)"
KEPT = "Both are kept; the first stays current until a person decides."


def conflict(*differs: str, resolved_at: str | None = None, **more: Any) -> str:
    flags = {key: more.pop(key) for key in list(more) if key.endswith("_differs")}
    pixels_differ = more.pop("pixels_differ", False)
    verdict = Verdict(Outcome.CONFLICT, differs, pixels_differ, **flags)
    detail = {**verdict.evidence, **more}
    return explained({"outcome": "conflict", "detail": detail, "resolved_at": resolved_at})


def test_another_patient_comes_first() -> None:
    assert conflict("PatientName", patient_differs=True) == (
        f"{HEAD}, but names another patient (PatientName differs). {KEPT}"
    )
    words = conflict(
        *("AccessionNumber", "SeriesDescription", "PatientID", "PatientName", "PixelData"),
        patient_differs=True,
        study_differs=True,
        pixels_differ=True,
    )
    assert words == (
        f"{HEAD}, but names another patient (PatientID and PatientName differ); it describes"
        f" another study (AccessionNumber differs); it differs in SeriesDescription and in its"
        f" pixels. {KEPT}"
    )


def test_another_study_is_told() -> None:
    words = conflict("StudyInstanceUID", "StudyID", study_differs=True)
    assert ", but belongs to another study (StudyInstanceUID and StudyID differ). " in words


def test_more_names_than_are_told_hide_no_patient() -> None:
    assert "names another patient (among much else); it differs in" in conflict(
        "CodeValue", patient_differs=True
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["SeriesDescription"], "differs in SeriesDescription. "),
        (["A/CodeValue", "60020010"], "differs in A/CodeValue and 60020010. "),
        (["Doe^Jane:0029xx01"], "differs in a private element. "),
        (["00291001", "A/Doe^Jane:0029xx01/CodeValue"], "differs in 2 private elements. "),
        (["Rows", "Doe^Jane:0029xx01"], "differs in Rows and in a private element. "),
    ],
)
def test_private_elements_are_counted_for_their_creator_is_a_value(
    names: list[str], told: str
) -> None:
    words = conflict(*names)
    assert told in words
    assert "Jane" not in words


def test_pixels_that_were_not_compared_are_not_said_to_differ() -> None:
    assert conflict("Rows", "PixelData", pixels_differ=None) == (
        f"{HEAD}, but differs in Rows; it has its pixels in another transfer syntax, so they"
        f" were not compared. {KEPT}"
    )


def test_a_lost_stored_file_is_told_with_what_to_do() -> None:
    assert conflict(pixels_differ=None, stored_file="missing") == (
        f"{HEAD}. The stored file is missing, so nobody can tell whether its pixels are the same."
        " This one is kept beside it: restore the lost file, or make this current."
    )
    words = conflict("Rows", pixels_differ=None, stored_file="damaged")
    assert ", but differs in Rows. This one is kept beside it:" in words


def test_two_files_that_could_not_be_compared_are_not_said_to_differ() -> None:
    assert conflict(pixels_differ=None) == f"{HEAD}, but the two could not be compared. {KEPT}"


def test_a_decision_is_told() -> None:
    words = conflict("Rows", resolved_at="2026-01-01T00:00:00Z")
    assert words.endswith("Both are kept, and a person has decided which is current.")


def test_a_dicomdir_says_how_much_of_what_it_names_is_there() -> None:
    def words(missing: int) -> str:
        detail = {"referenced": 120, "missing": missing}
        return explained({"outcome": "unpacked", "detail": detail})

    assert "names 120 files, and all are in the archive" in words(0)
    assert "1 of them is not in the archive" in words(1)
    assert "3 of them are not in the archive" in words(3)
    assert "archive file" in explained({"outcome": "unpacked", "detail": {"members": 3}})
