"""Rows of values that attack whatever shows or stores them: SQL, CSV, HTML, terminals."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.trial import INPUT, Case, Trial
from tests.unit.cli.home import Home
from tests.unit.dicom import raw
from tests.unit.dicom.raw import el, even, explicit


def _archived(folder: Path, data: bytes) -> Trial:
    trial = Trial(folder)
    trial.drop(data)
    trial.ingest()
    assert trial.rows_of(INPUT) == [("archived", None)]
    trial.check()
    return trial


def _elements(*rows: tuple[int, bytes, bytes]) -> bytes:
    return raw.part10(
        explicit(name=None) + b"".join(el(tag, vr, even(value)) for tag, vr, value in rows)
    )


def _verbatim(number: int, name: str, value: str) -> Case:
    """Return the row of a value that has to come out of the index as it went in."""

    def run(folder: Path) -> None:
        text = value.encode()
        data = _elements(
            (0x00081030, b"LO", text), (0x00100010, b"PN", text), (0x00100020, b"LO", text)
        )
        trial = _archived(folder, data)
        found = trial.site.rows(
            "SELECT patient_id, patient_name, study_description FROM study_list"
            " WHERE patient_id = ?",
            value,
        )
        assert found == [(value, value, value)]
        assert trial.site.rows("SELECT count(*) FROM studies") == [2]

    return Case(number, name, run)


def _defused(value: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        home = Home(folder / "site")
        trial = _archived(folder, _elements((0x00100020, b"LO", value.encode())))
        query = "SELECT patient_id FROM study_list"
        told = home.run("sql", "--csv", query).stdout
        cells = [row[0] for row in csv.reader(io.StringIO(told))][1:]
        stored = set(trial.site.rows(query))
        assert any(each.strip() == value.strip() for each in stored), "stored as it is"
        assert len(cells) == 2
        assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in cells)

    return run


def _obeyed_by_no_terminal(value: bytes) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        home = Home(folder / "site")
        trial = _archived(
            folder,
            _elements(
                (0x00080005, b"CS", b"ISO_IR 100"),
                (0x00081030, b"LO", value),
                (0x00100010, b"PN", value),
            ),
        )
        (study,) = trial.site.rows(
            "SELECT study_instance_uid FROM study_list WHERE patient_id IS NULL"
        )
        answers = (
            home.run("find", "evil").stdout,
            home.run("show", study).stdout,
            home.run("sql", "SELECT patient_name, study_description FROM study_list").stdout,
        )
        for told in answers:
            assert "evil" in told.lower()
            assert not {c for c in told if not c.isprintable()} - {"\n"}

    return run


def _read_as_well_as_can_be(number_of_set: bytes, value: bytes) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        data = _elements(
            (0x00080005, b"CS", number_of_set),
            (0x00100010, b"PN", value),
            (0x00100020, b"LO", b"P1"),
        )
        trial = _archived(folder, data)
        (name,) = trial.site.rows("SELECT patient_name FROM patients WHERE patient_id = 'P1'")
        assert name
        (path,) = trial.site.rows("SELECT path FROM images WHERE patient_id = 'P1'")
        assert value in (trial.site.archive.root / path).read_bytes()

    return run


def _case_of(folder: Path) -> None:
    """Two senders whose names differ in case alone are two sources; neither hides the other."""
    trial = Trial(folder)
    trial.drop(raw.part10(explicit()), "CT1/a")
    trial.drop(raw.part10(explicit()), "ct1/a")
    trial.drop(raw.part10(explicit(sop=b"1.2.3")), "ct1/b")
    trial.ingest()
    sources: list[Any] = trial.site.rows(
        "SELECT source, outcome FROM arrivals WHERE original_name <> 'neighbour' ORDER BY 1, 2"
    )
    assert len(sources) == 3
    assert sorted(outcome for _, outcome in sources) == ["archived", "archived", "duplicate"]
    trial.check()


CASES = [
    Case(18, "sources-differ-in-case", _case_of),
    _verbatim(19, "sql", "'; DROP TABLE studies;--"),
    _verbatim(19, "formats", "%s{}%n{0}"),
    *(
        Case(20, name, _defused(value))
        for name, value in {
            "command": "=cmd|'/C calc'!A0",
            "plus": "+1",
            "at": "@SUM(1+1)",
            "tab": "\t=1+1",
            "return": "\r=1+1",
        }.items()
    ),
    _verbatim(21, "script", "<script>alert(1)</script>"),
    _verbatim(21, "onerror", "<img src=x onerror=alert(1)>"),
    *(
        Case(22, name, _obeyed_by_no_terminal(value))
        for name, value in {
            "newline": b"Evil\nroot: all is well",
            "escape": b"Evil\x1b[2J\x1b]0;x\x07",
            "csi": b"Evil\x9b2J",
        }.items()
    ),
    Case(23, "no-such-set", _read_as_well_as_can_be(b"ISO_IR 999", b"M\xfcller")),
    Case(
        23,
        "iso-2022",
        _read_as_well_as_can_be(b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3ED\x1b(B=\x1b$B$d\x1b(B"),
    ),
    Case(23, "broken-escape", _read_as_well_as_can_be(b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3\x1b")),
    Case(23, "not-utf-8", _read_as_well_as_can_be(b"ISO_IR 192", b"M\xfc\xfe\xffller")),
]
