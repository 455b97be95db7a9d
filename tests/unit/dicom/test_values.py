"""Values as JSON: numbers where they are numbers, text decoded, nothing ever raised."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pydicom
import pytest

from ingester.dicom.character_sets import codec, decode
from ingester.dicom.values import iso_date, iso_date_time, iso_time, json_value


def value(vr: str, raw: bytes, *, single: bool = True, context: str = "<") -> object:
    return json.loads(json_value(vr.encode(), raw, single, context)[0])


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("DS", b"1.50 ", 1.5),
        ("DS", b"+.5e1", 5.0),
        ("DS", b" -12. ", -12.0),
        ("DS", b"NaN", None),
        ("DS", b"-inf ", None),
        ("DS", b"1e999", None),
        ("DS", b"1_000", "1_000"),
        ("DS", b"about 5", "about 5"),
        ("IS", b"007 ", 7),
        ("IS", b"-3", -3),
        ("IS", b"2.0", 2),
        ("IS", b"2.5", 2.5),
        ("IS", b"9" * 5000, "9" * 5000),
        ("IS", b"x", "x"),
        ("US", b"\1\2", 513),
        ("SS", b"\xff\xff", -1),
        ("UL", b"\1\0\0\0", 1),
        ("SV", b"\xff" * 8, -1),
        ("FL", struct.pack("<f", 0.5), 0.5),
        ("FD", struct.pack("<d", float("nan")), None),
        ("FD", struct.pack("<d", float("inf")), None),
        ("US", b"\1\2\3", "010203"),
        ("AT", b"\x28\0\x10\0", "00280010"),
        ("OB", b"\0\xab", "00AB"),
        ("UN", b"\xff", "FF"),
        ("DA", b"20240229", "2024-02-29"),
        ("DA", b"2024.02.29", "2024-02-29"),
        ("DA", b"20230229", "20230229"),
        ("DA", b"20240101-20240201", "20240101-20240201"),
        ("TM", b"101530.5 ", "10:15:30.500000"),
        ("TM", b"1015", "10:15:00"),
        ("TM", b"235960", "23:59:60"),
        ("TM", b"2460", "2460"),
        ("DT", b"20240131101530.25+0100", "2024-01-31T10:15:30.250000+01:00"),
        ("DT", b"20240131", "2024-01-31"),
        ("DT", b"202401", "2024-01"),
        ("DT", b"2024013110", "2024-01-31T10:00:00"),
        ("CS", b" CT ", "CT"),
        ("PN", b"Doe^Jane^^Dr ", "Doe^Jane^^Dr"),
        ("LT", b" a\\b ", " a\\b"),
        ("UR", b"http://x/\\y ", "http://x/\\y"),
        ("LO", b"   ", None),
        ("LO", b"", None),
        ("LO", b'it\'s "x"\n\0y', 'it\'s "x"\n\0y'),
    ],
)
def test_a_single_value(vr: str, raw: bytes, expected: object) -> None:
    assert value(vr, raw) == expected


def test_several_values_are_an_array_and_so_is_one_where_there_may_be_several() -> None:
    assert value("DS", b"1\\2.5\\", single=False) == [1.0, 2.5, None]
    assert value("DS", b"1", single=False) == [1.0]
    assert value("DS", b"1\\2", single=True) == [1.0, 2.0]
    assert value("US", b"\1\0\2\0") == [1, 2]
    assert value("CS", b"", single=False) is None
    assert value("UN", b"\1", single=False) == ["01"]


def test_byte_order_is_that_of_the_file() -> None:
    assert value("US", b"\1\2", context=">") == 258
    assert value("AT", b"\0\x28\0\x10", context=">") == "00280010"


def test_a_decimal_string_stays_a_real_number_in_sql() -> None:
    assert json_value(b"DS", b"5", True, "<")[0] == "5.0"


def test_what_is_no_date_is_none() -> None:
    assert iso_date("20241301") is None
    assert iso_time("99") is None
    assert iso_date_time("nonsense") is None
    assert iso_date_time("20241301101010") is None


# -- character sets ----------------------------------------------------------------------

NAMES = [
    ("ISO_IR 100", "Äneas^Rüdiger".encode("latin_1"), "Äneas^Rüdiger"),
    ("ISO_IR 192", "Wang^小東".encode(), "Wang^小東"),
    ("GB18030", "Wang^小东".encode("gb18030"), "Wang^小东"),
    ("ISO_IR 101", "Wałęsa".encode("iso8859_2"), "Wałęsa"),
    ("ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
    ("ISO_IR 126", "Διονυσιος".encode("iso8859_7"), "Διονυσιος"),
    ("ISO_IR 127", "قباني".encode("iso8859_6"), "قباني"),
    ("ISO_IR 138", "שרון".encode("iso8859_8"), "שרון"),
    ("ISO_IR 166", "สมชาย".encode("tis_620"), "สมชาย"),
    ("ISO_IR 203", "œ€".encode("iso8859_15"), "œ€"),
    (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    ("\\ISO 2022 IR 58", b"Zhang=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1", "Zhang=张^小"),
    ("\\ISO 2022 IR 144", b"Smith \x1b-L\xbb", "Smith Л"),
]


@pytest.mark.parametrize(("character_set", "raw", "text"), NAMES)
def test_names_in_every_kind_of_character_set(character_set: str, raw: bytes, text: str) -> None:
    assert json_value(b"PN", raw, True, "<" + character_set) == (
        json.dumps(text, ensure_ascii=False),
        None,
    )


def test_a_delimiter_is_not_looked_for_inside_a_character() -> None:
    # 0x5C is the second byte of these characters, not a backslash.
    assert value("LO", "鄛".encode("gb18030"), context="<GB18030") == "鄛"
    assert value("LO", b"\x1b$B!@!\\\x1b(B\\b", single=False, context="<\\ISO 2022 IR 87") == [
        "＼＋",
        "b",
    ]


@pytest.mark.parametrize(
    ("character_set", "raw"),
    [
        ("ISO_IR 192", b"M\xfcller"),
        ("", b"M\xfcller"),
        ("", "Müller".encode()),
        ("ISO_IR 999", b"M\xfcller"),
        ("\\ISO 2022 IR 87", b"\x1b$B\xff\xff"),
        ("\\ISO 2022 IR 87", b"\x1b$B;"),
        ("ISO_IR 100", b"a\x1b%Gb"),
    ],
)
def test_what_cannot_be_decoded_is_noted_and_never_raises(character_set: str, raw: bytes) -> None:
    text, note = json_value(b"LO", raw, True, "<" + character_set)
    assert json.loads(text)
    assert note == "undecodable-text"


def test_bytes_that_cannot_be_decoded_are_kept_and_part_nothing() -> None:
    context = "<ISO_IR 192"
    assert value("LO", b"M\xfcller\\\xe4", single=False, context=context) == [
        r"M\xFCller", r"\xE4",
    ]  # fmt: skip
    assert value("LT", b"M\xfcller\\x", context=context) == r"M\xFCller\x"
    assert value("PN", b"\x1b$B;3B", context="<\\ISO 2022 IR 87") == r"山\x42"
    assert value("PN", b"\xd5\x5cWang\xff", context="<GBK") == r"誠Wang\xFF"
    assert value("CS", b"\xb5", context="<ISO_IR 192") == r"\xB5"


@pytest.mark.parametrize(
    ("character_set", "raw", "text"),
    [
        ("\\ISO 2022 IR 149", "Hong=홍^길동".encode("euc_kr"), "Hong=홍^길동"),
        ("\\ISO 2022 IR 149", "햏^길동".encode("cp949"), "햏^길동"),
        ("\\ISO 2022 IR 58", "Wang=王^小东".encode("gb2312"), "Wang=王^小东"),
        ("\\ISO 2022 IR 58", "王^誠".encode("gbk"), "王^誠"),
        ("\\ISO 2022 IR 100", "Müller".encode("latin_1"), "Müller"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 144", "Ив".encode("iso8859_5"), "Ив"),
    ],
)
def test_text_without_its_escape_sequence_is_read_by_the_set_that_is_named(
    character_set: str, raw: bytes, text: str
) -> None:
    assert value("PN", raw, context="<" + character_set) == text


def test_writers_spell_character_sets_in_their_own_ways() -> None:
    assert codec("ISO-IR 100") == codec("ISO_IR_100") == ("latin_1", True)
    assert codec("iso_ir 192") == codec("UTF-8") == ("utf_8", True)
    assert codec("ISO 2022 IR 87") == ("ascii", True)
    assert codec("KLINGON") == ("ascii", False)


def test_pydicoms_character_set_files_read_alike() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "charset_files"
    seen = 0
    for path in sorted(folder.glob("*.dcm")):
        ds = pydicom.dcmread(path)
        if "PatientName" not in ds or "SQ" in path.name or "GB2312" in path.name:
            continue
        terms = ds.get("SpecificCharacterSet", "")
        named = terms if isinstance(terms, str) else "\\".join(terms)
        raw = ds.PatientName.original_string
        text, is_whole = decode(raw, codec(named)[0], is_name=True)
        assert is_whole
        assert text.rstrip("= ") == str(ds.PatientName).rstrip("= ")
        seen += 1
    assert seen > 10


def test_many_delimiters_and_escapes_are_read_in_one_go() -> None:
    # A million of each: what was quadratic would take minutes.
    for raw in (b"\x1b$B" + b"!!\n" * 300_000, b"\x1b-A" + b"\xe4\\" * 500_000):
        for character_set in ("\\ISO 2022 IR 87", "ISO 2022 IR 144\\ISO 2022 IR 100"):
            assert json_value(b"LO", raw, False, "<" + character_set)[0]
