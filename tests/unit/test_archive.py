"""Where instances live, and that nothing there is ever replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.archive import Archive, Published, derivative_path, escape_source, instance_path
from ingester.model import Kind, StoredFile

SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@pytest.mark.parametrize(
    ("raw", "source"),
    [
        ("CT1", "CT1"),
        ("Ward_3.b-2", "Ward_3.b-2"),
        ("CT 1", "CT_1-bfbb9b3a"),
        ("..", "_.-"),
        ("index.db", "index.db-"),
        ("quarantine", "quarantine-"),
        ("", "_-e3b0c442"),
    ],
)
def test_a_source_is_kept_where_it_is_safe_and_marked_where_it_had_to_change(
    raw: str, source: str
) -> None:
    got = escape_source(raw)
    assert got.startswith(source.split("-bf")[0])
    assert (got == raw) == (source == raw)


@given(st.text(max_size=80))
def test_a_source_is_one_safe_folder_name_whatever_the_sender_calls_itself(raw: str) -> None:
    source = escape_source(raw)
    assert SAFE.fullmatch(source)
    assert len(source) <= 80
    assert escape_source(source) == source


@given(st.text(max_size=20), st.text(max_size=20))
def test_two_senders_never_share_a_folder_by_accident(one: str, other: str) -> None:
    if one != other:
        assert escape_source(one) != escape_source(other)


def test_the_path_is_a_function_of_source_date_study_and_instance() -> None:
    assert (
        instance_path("CT1", "2024-01-31", "1.2.3", "1.2.3.4") == "CT1/2024/01/31/1.2.3/1.2.3.4.dcm"
    )
    assert instance_path("CT1", None, "1.2", "1.3") == "CT1/0000/00/00/1.2/1.3.dcm"
    other = instance_path("CT1", None, "1.2", "1.3", "ab" * 32)
    assert other == "CT1/0000/00/00/1.2/1.3~abababababab.dcm"
    assert derivative_path(other, Kind.VIDEO) == "CT1/0000/00/00/1.2/1.3~abababababab.mp4"


@pytest.mark.parametrize("path", ["/etc/passwd", "a/../b", "a//b", "./a", "a/.."])
def test_no_path_leads_out_of_the_archive(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="inside"):
        Archive(tmp_path).absolute(path)


def test_publishing_never_replaces_what_is_there(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.make_folders()
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"first")
    other.write_bytes(b"second")
    path = instance_path("A", None, "1", "2")
    archive.make_homes([path])
    assert archive.publish(one, path) is Published.NEW
    assert archive.publish(one, path) is Published.SAME_FILE
    assert archive.publish(other, path) is Published.OCCUPIED
    assert (tmp_path / path).read_bytes() == b"first"
    assert archive.has_objects()
    status = archive.status_of(path)
    assert status is not None
    assert status.st_size == 5
    archive.set_aside(path, "x")
    assert archive.status_of(path) is None
    assert archive.lost(path) is StoredFile.MISSING
    assert [each.read_bytes() for each in tmp_path.rglob(".damaged-*")] == [b"first"]


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_no_object_and_is_never_waited_for(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    (tmp_path / "A").mkdir()
    drop = tmp_path / "elsewhere"
    drop.write_bytes(b"another")
    path = tmp_path / "A" / "1.dcm"
    makers: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(drop),
    }
    for name, make in makers.items():
        make()
        assert archive.status_of("A/1.dcm") is None
        assert archive.sha256_of("A/1.dcm") is None
        assert archive.lost("A/1.dcm") is StoredFile.DAMAGED
        archive.set_aside("A/1.dcm", name)
    assert archive.status_of("A/1.dcm/2.dcm") is None
    assert drop.read_bytes() == b"another"
