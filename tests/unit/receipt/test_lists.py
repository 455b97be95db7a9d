"""Lists of what was expected: every form that sha256sum writes, and UIDs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.receipt import BadList
from ingester.receipt import given as expectation
from ingester.receipt.lists import Expected, parsed, read_list
from ingester.spool import shown
from tests.factory import drop, instance
from tests.media import burn

ONE = "a" * 63 + "1"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"{ONE}  IM1", "IM1"),
        (f"{ONE} *IMAGES/IM1", "IMAGES/IM1"),
        (f"{ONE}  name with  spaces ", "name with  spaces "),
        (f"{ONE.upper()}  ./IM1", "./IM1"),
        (f"\\{ONE}  line\\nbreak\\\\and\\rmore", "line\\x0abreak\\and\\x0dmore"),
        (f"{ONE}  back\\nslash", "back\\nslash"),  # not escaped, so it is as it stands
        (f"SHA256 (IM1) = {ONE}", "IM1"),
        (f"SHA256 (a (b) = c) = {ONE}", "a (b) = c"),
        (f"\\SHA256 (a\\nb) = {ONE}", "a\\x0ab"),
        (ONE, ""),
    ],  # and a hash without letters is one too: no UID has 64 digits and no dot
)
def test_a_hash_in_every_form(line: str, name: str) -> None:
    assert parsed(7, line) == Expected(7, name, sha256=ONE)


@pytest.mark.parametrize("line", ["1.2.840.10008.1", " 1.2.3\t", "1.2.3\0", "1." * 31 + "11", "2"])
def test_a_uid(line: str) -> None:
    assert parsed(1, line) == Expected(1, sop_instance_uid=line.strip(" \t\0"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e  IM1", "another checksum"),
        ("e" * 128 + "  IM1", "another checksum"),
        ("MD5 (IM1) = d41d8cd98f00b204e9800998ecf8427e", "another checksum"),
        (f"{ONE}", ""),
        (f"{ONE} IM1", "neither"),
        (f"{ONE[:-1]}  IM1", "neither"),
        ("IM1", "neither"),
        ("1.2.x", "neither"),
        ("1" * 65, "neither"),
        (".1.2", "neither"),
        ("x" * 20_000, "too long"),
    ],
)
def test_what_is_neither_is_said(line: str, words: str) -> None:
    found = parsed(1, line)
    assert isinstance(found, Expected) if not words else words in str(found)


@pytest.mark.parametrize(
    "data",
    [
        f"# made on Monday\n\n{ONE}  a\n1.2.3\n".encode(),
        f"\ufeff# made on Monday\r\n\r\n{ONE}  a\r\n1.2.3\r\n".encode(),
        f"#\n \n{ONE}  a\n1.2.3".encode(),
        f"\ufeff#\r\n\r\n{ONE}  a\r\n1.2.3\r\n".encode("utf-16-le"),
        f"\ufeff#\n\n{ONE}  a\n1.2.3\n".encode("utf-16-be"),
    ],
)
def test_lists_of_other_systems(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list").write_bytes(data)
    assert list(read_list(tmp_path / "list")) == [
        Expected(3, "a", sha256=ONE),
        Expected(4, sop_instance_uid="1.2.3"),
    ]


def test_names_that_are_no_text_are_shown(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(f"{ONE}  Gr".encode() + b"\xfcn\x1b[2J\n")
    (found,) = read_list(tmp_path / "list")
    assert found.name == "Gr\\xfcn\\x1b[2J"


def test_bad_lines_are_told_with_their_numbers_and_the_list_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("1.2.3\n" + "what?\n" * 30 + "1.2.4\n")
    with pytest.raises(BadList) as caught:
        list(read_list(tmp_path / "list"))
    said = str(caught.value).splitlines()
    assert said[1] == "line 2: it is neither a line of sha256sum nor a SOP Instance UID"
    assert said[-1] == "and 10 more bad lines"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "names nothing"),
        (b"# nothing\n", "names nothing"),
        (b"MZ\0\1" + bytes(400), "no list of lines"),
        (b"PK\x03\x04" + bytes(400), "an archive file"),
        (b"\xff\xfe1", "UTF-16"),
    ],
)
def test_a_file_that_is_no_list(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "list").write_bytes(data)
    with pytest.raises(BadList, match=words):
        list(expectation(tmp_path / "list").expected())


def test_the_first_bytes_tell_what_a_file_is(tmp_path: Path) -> None:
    cd = burn(tmp_path / "cd", [instance(1), instance(1, 1, 1, 2)])
    (cd / "DICOMDIR").rename(cd / "list.txt")
    found = expectation(cd / "list.txt")
    assert (found.kind, len(list(found.expected()))) == ("dicomdir", 2)
    with pytest.raises(BadList, match="a DICOM object"):
        expectation(drop(tmp_path / "DICOMDIR", instance(1)))
    whole = (cd / "list.txt").read_bytes()
    (cd / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadList, match="ends before"):
        expectation(cd / "cut")


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_a_name_comes_back_as_sha256sum_wrote_it(name: str) -> None:
    """What GNU sha256sum does: `\\`, newline and carriage return are escaped, with a mark."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    found = parsed(1, f"{mark}{ONE}  {escaped}")
    assert isinstance(found, Expected)
    assert found.name == shown(name)
