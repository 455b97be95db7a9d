"""Whatever bytes stand where text should: they are read, or kept, and never refused."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.dicom.columns import plain_text
from ingester.dicom.values import json_value
from ingester.index.names import folded, is_another, normalised, says_more, wanted

_TERMS = (
    "", "ISO_IR 6", "ISO_IR 13", "ISO_IR 100", "ISO_IR 101", "ISO_IR 126", "ISO_IR 127",
    "ISO_IR 138", "ISO_IR 144", "ISO_IR 148", "ISO_IR 166", "ISO_IR 192", "ISO_IR 203", "GB18030",
    "GBK", "ISO 2022 IR 13", "ISO 2022 IR 58", "ISO 2022 IR 87", "ISO 2022 IR 149",
    "ISO 2022 IR 159", "KLINGON",
)  # fmt: skip
_sets = st.lists(st.sampled_from(_TERMS), max_size=3).map("\\".join)
_pieces = st.sampled_from(
    (b"\x1b$B", b"\x1b(B", b"\x1b(J", b"\x1b$)C", b"\x1b$)A", b"\x1b-F", b"\x1b%G", b"\x1b",
     b"\\", b"^", b"=", b"\x5c\x5c", b"\xd5\x5c", b"\xed\xa0\x80", b"\xff\xfe", b"\x81\x30\x81",
     b"\x84\x31\xa4\x37")
)  # fmt: skip
_bytes = st.lists(st.one_of(st.binary(max_size=6), _pieces), max_size=8).map(b"".join)


@given(raw=_bytes, character_set=_sets, vr=st.sampled_from((b"PN", b"LO", b"LT", b"CS", b"UC")))
@settings(max_examples=400, deadline=None)
def test_any_bytes_in_any_character_set_are_json_and_text_for_sqlite(
    raw: bytes, character_set: str, vr: bytes
) -> None:
    context = "<" + character_set
    text, _ = json_value(vr, raw, True, context)
    text.encode()  # no lone surrogate is left
    json.loads(text)
    shown = plain_text(vr, raw, context)
    if shown is not None:
        shown.encode()


@given(raw=st.binary(min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_every_byte_that_is_no_text_can_be_had_back(raw: bytes) -> None:
    text, note = json_value(b"LT", raw, True, "<ISO_IR 192")
    found = json.loads(text)
    if note is None or found is None:
        return
    back = re.sub(rb"\\x([0-9A-F]{2})", lambda each: bytes((int(each[1], 16),)), found.encode())
    if rb"\x" not in raw:
        assert back == raw.rstrip(b" \0")


@given(one=st.text(max_size=20), other=st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_names_are_compared_whatever_they_are(one: str, other: str) -> None:
    a, b = normalised(one), normalised(other)
    assert normalised(a) == a
    assert folded(one).isascii()
    assert is_another(a, b) == is_another(b, a)
    assert not is_another(a, a)
    assert not is_another(a, "")
    assert not (says_more(a, b) and says_more(b, a))
    wanted(one)
