"""Structure: what is whole and sound is read, whatever its style; the rest has a reason."""

from __future__ import annotations

import struct
import zlib

import pytest

from ingester.dicom import part10
from ingester.dicom.elements import (
    EXPLICIT_BIG,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    Bulk,
    Limits,
    Sequence,
)
from ingester.dicom.part10 import Parsed, Settings, read
from ingester.dicom.sources import Memory
from ingester.errors import Reject
from ingester.model import Reason
from tests.unit.dicom import raw
from tests.unit.dicom.raw import PIXELS, UNDEFINED, el, explicit, im, implicit, item

SEQUENCE = 0x00081115  # Referenced Series Sequence
DEFAULT = Settings()
SMALL = Settings(walk=Limits(nesting=64, elements=1000, header_bytes=4096))


def refused(content: bytes, settings: Settings = DEFAULT) -> Reason:
    with pytest.raises(Reject) as caught:
        read(Memory(content), settings)
    return caught.value.refusal.reason


def parsed(content: bytes) -> Parsed:
    return read(Memory(content))


def tags(each: Parsed) -> list[int]:
    return [tag for tag, _, _ in each.elements]


@pytest.mark.parametrize(
    ("syntax", "data_set"),
    [
        (raw.EXPLICIT, explicit() + PIXELS),
        (raw.IMPLICIT, implicit() + im(0x7FE00010, bytes(200))),
        (raw.BIG, explicit(">") + el(0x7FE00010, b"OW", bytes(200), order=">")),
    ],
)
def test_every_plain_encoding_is_read_without_a_note(syntax: bytes, data_set: bytes) -> None:
    found = parsed(raw.part10(data_set, syntax))
    assert tags(found)[-1] == 0x7FE00010
    assert found.notes == set()
    assert found.transfer_syntax_uid == syntax.decode()


def test_values_below_65_bytes_are_kept_and_bulk_is_left_where_it_is() -> None:
    content = raw.part10(explicit() + PIXELS)
    value = parsed(content).elements[-1][2]
    assert isinstance(value, Bulk)
    assert content[value.offset : value.offset + value.length] == bytes(range(200))


@pytest.mark.parametrize("cut", [1, 2, 5, 100, 199, 200, 208, 211])
def test_cut_native_pixel_data_is_incomplete(cut: int) -> None:
    assert refused(raw.part10(explicit() + PIXELS)[:-cut]) is Reason.INCOMPLETE


@pytest.mark.parametrize("keep", [133, 140, 150, 200, 260])
def test_a_file_cut_inside_file_meta_is_incomplete(keep: int) -> None:
    assert refused(raw.part10(explicit() + PIXELS)[:keep]) is Reason.INCOMPLETE


def test_a_length_that_only_claims_allocates_nothing() -> None:
    lie = el(0x7FE00010, b"OW", bytes(100), length=0xFFFFFFF0)
    assert refused(raw.part10(explicit() + lie)) is Reason.INCOMPLETE


@pytest.mark.parametrize("vr", [b"CS", b"LO"])
def test_short_vrs_have_no_undefined_length(vr: bytes) -> None:
    data_set = implicit() + im(0x00400254, length=UNDEFINED) + raw.SEQUENCE_END
    assert refused(raw.part10(data_set, raw.IMPLICIT)) is Reason.MALFORMED


@pytest.mark.parametrize("vr", [b"OF", b"UT", b"OD"])
def test_undefined_length_is_malformed_where_it_may_not_be(vr: bytes) -> None:
    data_set = explicit() + el(0x00640000 + 9, vr, length=UNDEFINED) + raw.SEQUENCE_END
    assert refused(raw.part10(data_set)) is Reason.MALFORMED


# -- sequences ---------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = raw.open_sequence(SEQUENCE, raw.open_item(inner))
    return inner


def test_sequences_of_both_kinds_of_length_hold_items() -> None:
    code = el(0x00080100, b"SH", b"T1")
    data_set = el(SEQUENCE, b"SQ", item(code) + raw.open_item(code))
    data_set += raw.open_sequence(0x00082218, item(code), raw.open_item(code), item())
    found = parsed(raw.part10(data_set + explicit()))
    first, second = found.elements[0][2], found.elements[1][2]
    assert isinstance(first, Sequence)
    assert isinstance(second, Sequence)
    assert [len(each) for each in first.items] == [1, 1]
    assert [len(each) for each in second.items] == [1, 1, 0]


@pytest.mark.parametrize(
    ("depth", "is_fine"), [(64, True), (65, False), (200, False), (5000, False)]
)
def test_the_limit_on_nesting_holds(depth: int, is_fine: bool) -> None:
    content = raw.part10(nested(depth) + explicit())
    if is_fine:
        assert tags(parsed(content))[0] == SEQUENCE
    else:
        assert refused(content) is Reason.TOO_DEEP


def test_explicit_lengths_nested_too_deep_are_too_deep_as_well() -> None:
    inner = b""
    for _ in range(200):
        inner = el(SEQUENCE, b"SQ", item(inner))
    assert refused(raw.part10(inner + explicit())) is Reason.TOO_DEEP


def test_un_of_undefined_length_is_implicit_inside() -> None:
    inner = im(0x00080100, b"T1") + im(0x00080102, b"DCM ")
    unknown = raw.open_sequence(0x00091002, raw.open_item(inner), vr=b"UN")
    value = parsed(raw.part10(unknown + explicit())).elements[0][2]
    assert isinstance(value, Sequence)
    assert value.encoding == IMPLICIT_LITTLE
    assert [tag for tag, _, _ in value.items[0]] == [0x00080100, 0x00080102]


def test_un_of_known_length_is_a_sequence_where_it_reads_like_one_else_bytes() -> None:
    good = el(0x00091002, b"UN", item(im(0x00080100, b"T1")))
    bad = el(0x00091003, b"UN", item(im(0x00080100, b"T1", length=99)) + b"1234")
    found = parsed(raw.part10(good + bad + explicit()))
    assert isinstance(found.elements[0][2], Sequence)
    assert found.elements[1][1:] == (b"UN", item(im(0x00080100, b"T1", length=99)) + b"1234")
    assert found.notes == {"descending-tags"}


def test_what_is_broken_in_a_sequence_of_known_length_is_stepped_over() -> None:
    broken = el(SEQUENCE, b"SQ", item(el(0x00080100, b"SH", b"T1", length=500)))
    found = parsed(raw.part10(broken + explicit()))
    assert "unreadable-sequence" in found.notes
    assert 0x0020000E in tags(found)


def test_an_item_that_never_ends_is_incomplete() -> None:
    data_set = explicit() + el(0x00400275, b"SQ", length=UNDEFINED) + item(length=UNDEFINED)
    assert refused(raw.part10(data_set + el(0x00400007, b"LO", b"ab"))) is Reason.INCOMPLETE


def test_missing_and_stray_delimiters_are_noted() -> None:
    lax = el(SEQUENCE, b"SQ", length=UNDEFINED) + item(length=UNDEFINED)
    lax += el(0x00080100, b"SH", b"T1") + raw.SEQUENCE_END + raw.SEQUENCE_END
    found = parsed(raw.part10(lax + explicit()))
    assert {"missing-delimiter", "stray-delimiter"} <= found.notes


def test_an_item_outside_of_any_sequence_is_stepped_over() -> None:
    found = parsed(raw.part10(explicit() + PIXELS + item(bytes(8))))
    assert found.notes == {"stray-item"}


# -- encapsulated ------------------------------------------------------------------------


def fragments(*parts: bytes, end: bytes = raw.SEQUENCE_END) -> bytes:
    return el(0x7FE00010, b"OB", length=UNDEFINED) + b"".join(item(part) for part in parts) + end


def test_encapsulated_pixel_data_needs_its_end() -> None:
    whole = raw.part10(explicit() + fragments(b"", b"\xff\xd8" * 50), raw.JPEG)
    value = parsed(whole).elements[-1][2]
    assert isinstance(value, Bulk)
    assert value.length == 100
    assert len(value.spans or ()) == 2
    for cut in (1, 4, 7, 8, 9, 60, 108, 116):
        assert refused(whole[:-cut]) is Reason.INCOMPLETE


def test_a_delimiter_inside_a_fragment_is_only_data() -> None:
    data_set = explicit() + fragments(b"", raw.SEQUENCE_END + bytes(4))
    assert tags(parsed(raw.part10(data_set, raw.JPEG)))[-1] == 0x7FE00010


def test_anything_but_a_fragment_is_malformed_and_zeros_are_a_cut() -> None:
    assert (
        refused(raw.part10(explicit() + fragments(b"", b"ab", end=b"x" * 16))) is Reason.MALFORMED
    )
    assert (
        refused(raw.part10(explicit() + fragments(b"", b"ab", end=bytes(99)))) is Reason.INCOMPLETE
    )


# -- deflated ----------------------------------------------------------------------------


def deflated(content: bytes, bits: int = -15) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, bits)
    return engine.compress(content) + engine.flush()


def test_a_deflated_data_set_is_inflated_and_must_reach_its_end_mark() -> None:
    stream = deflated(explicit() + PIXELS)
    found = parsed(raw.part10(stream, raw.DEFLATED))
    assert found.is_deflated
    assert found.elements[-1][0] == 0x7FE00010
    for cut in (1, 5, len(stream) // 2, len(stream) - 3):
        assert refused(raw.part10(stream[:-cut], raw.DEFLATED)) is Reason.INCOMPLETE


def test_trailers_and_headers_of_the_wrong_tool_are_forgiven() -> None:
    content = explicit() + PIXELS
    trailer = struct.pack("<LL", zlib.crc32(content), len(content))
    for stream in (deflated(content, 15), deflated(content) + trailer, deflated(content) + b"\0"):
        assert parsed(raw.part10(stream, raw.DEFLATED)).is_deflated


def test_other_bytes_behind_the_stream_are_malformed_as_is_damage_in_it() -> None:
    stream = deflated(explicit() + PIXELS)
    assert refused(raw.part10(stream + b"junkjunk", raw.DEFLATED)) is Reason.MALFORMED
    assert refused(raw.part10(b"\xff" * 200, raw.DEFLATED)) is Reason.MALFORMED


def test_what_is_declared_deflated_and_is_not_is_read_as_it_is() -> None:
    found = parsed(raw.part10(explicit() + PIXELS, raw.DEFLATED))
    assert found.notes == {"encoding-differs"}
    assert found.transfer_syntax_uid == raw.DEFLATED.decode()


def test_a_bomb_is_recognised_by_ratio_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingester.dicom.sources.HARMLESS", 2**20)
    monkeypatch.setattr("ingester.dicom.sources.KEPT", 2**19)
    data_set = explicit() + el(0x7FE00010, b"OW", bytes(2**22))
    content = raw.part10(deflated(data_set), raw.DEFLATED)
    assert refused(content) is Reason.BOMB
    # The same, but allowed: walked in constant memory.
    found = read(Memory(content), Settings(deflate_ratio=10**6))
    assert found.elements[-1][0] == 0x7FE00010
    assert refused(content, Settings(deflate_ratio=10**6, object_bytes=2**21)) is Reason.BOMB


# -- evident encodings -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "data_set", "encoding"),
    [
        (raw.EXPLICIT, implicit(), IMPLICIT_LITTLE),
        (raw.JPEG, implicit(), IMPLICIT_LITTLE),
        (raw.EXPLICIT, explicit(">"), EXPLICIT_BIG),
        (raw.IMPLICIT, implicit(">"), IMPLICIT_BIG),
    ],
)
def test_the_evident_encoding_wins(declared: bytes, data_set: bytes, encoding: object) -> None:
    found = parsed(raw.part10(data_set, declared))
    assert found.encoding == encoding
    assert "encoding-differs" in found.notes
    assert found.transfer_syntax_uid == declared.decode()


def test_a_cut_file_in_another_encoding_is_still_incomplete() -> None:
    data_set = implicit() + im(0x7FE00010, bytes(200))
    assert refused(raw.part10(data_set, raw.EXPLICIT)[:-9]) is Reason.INCOMPLETE


def test_without_a_transfer_syntax_the_bytes_tell() -> None:
    found = parsed(raw.part10(implicit(), b""))
    assert found.transfer_syntax_uid == raw.IMPLICIT.decode()
    assert "transfer-syntax-absent" in found.notes


def test_one_value_in_a_form_its_vr_does_not_have_is_read() -> None:
    recent = struct.pack("<HH", 0x0018, 0x9073) + b"OF" + struct.pack("<H", 4) + b"abcd"
    wide = struct.pack("<HH", 0x0018, 0x1030) + b"LO\0\0" + struct.pack("<L", 4) + b"Name"
    bare = im(0x00180015, b"CHEST ")
    uids = el(0x0020000D, b"UI", b"1.2 ") + el(0x0020000E, b"UI", b"1.3 ")
    for odd in (recent, wide, bare):
        found = parsed(raw.part10(explicit(study=None, series=None) + odd + uids))
        assert found.notes & {"form-of-length", "unknown-vr"}
        assert 0x0020000E in tags(found)


# -- File Meta ---------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 10, 99999, 2**32 - 1])
def test_a_wrong_group_length_is_noted(length: int) -> None:
    content = raw.part10(explicit(), group_length=length)
    found = parsed(content)
    assert found.notes == {"file-meta-group-length-wrong"}
    assert content[found.data_set_start :] == explicit()


def test_an_absent_group_length_and_an_absent_file_meta_are_noted() -> None:
    assert parsed(bytes(128) + b"DICM" + raw.meta()[12:] + explicit()).notes == {
        "file-meta-group-length-absent"
    }
    assert parsed(bytes(128) + b"DICM" + explicit()).notes == {"file-meta-absent"}


def test_an_unknown_vr_in_file_meta_does_not_hide_the_rest() -> None:
    for vr in (b"ZZ", b"\xff\xff", b"ob"):
        content = (
            bytes(128) + b"DICM" + raw.meta().replace(b"\x01\0OB", b"\x01\0" + vr) + explicit()
        )
        assert "file-meta-unknown-vr" in parsed(content).notes


def test_group_0002_in_the_data_set_belongs_to_it() -> None:
    content = raw.part10(el(0x00020010, b"UI", b"1.2 ") + explicit())
    found = parsed(content)
    assert found.elements[0][0] == 0x00020010
    assert found.transfer_syntax_uid == raw.EXPLICIT.decode()


@pytest.mark.parametrize(
    ("preamble", "note"),
    [
        (b"MZ" + bytes(126), {"executable-preamble"}),
        (b"\x7fELF" + bytes(124), {"executable-preamble"}),
        (b"\xcf\xfa\xed\xfe" + bytes(124), {"executable-preamble"}),
        (b"#!/bin/sh\n" + bytes(118), {"executable-preamble"}),
        (b"%PDF-1.7" + bytes(120), {"polyglot-preamble"}),
        (b"  <html><script>" + bytes(112), {"polyglot-preamble"}),
        (b"II*\0" + bytes(124), set()),
    ],
)
def test_preambles_that_begin_something_else_are_noted(preamble: bytes, note: set[str]) -> None:
    assert parsed(raw.part10(explicit(), preamble=preamble)).notes == note


# -- no preamble -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data_set", [explicit(), implicit(), explicit(">"), raw.meta() + explicit()]
)
def test_a_bare_data_set_is_read_if_it_is_evidently_one(data_set: bytes) -> None:
    found = parsed(data_set)
    assert "preamble-absent" in found.notes
    assert 0x0020000E in tags(found)


def test_a_bare_data_set_that_is_cut_may_still_grow() -> None:
    with pytest.raises(Reject) as caught:
        parsed((explicit() + PIXELS)[:-10])
    assert caught.value.refusal.may_grow


@pytest.mark.parametrize(
    "content",
    [
        b"Dear colleague, " * 20,
        bytes(range(256)) * 4,
        b"\x08\0\x05\0\x02\0\0\0ab",
        b"\x08\0" * 300,
        b'{"a": 1}',
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"x",
    ],
)
def test_other_files_are_not_dicom(content: bytes) -> None:
    assert refused(content) is Reason.NOT_DICOM


# -- the end -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 100, 70000])
def test_zeros_behind_the_last_element_are_noted(count: int) -> None:
    assert parsed(raw.part10(explicit() + PIXELS + bytes(count))).notes == {"trailing-zeros"}


@pytest.mark.parametrize("syntax", [raw.EXPLICIT, raw.IMPLICIT])
@pytest.mark.parametrize("junk", [b"junk", b"junk and more", b"\xff" * 10, b"<html>" * 9, b"\n\n"])
def test_other_bytes_behind_the_last_element_are_malformed(syntax: bytes, junk: bytes) -> None:
    whole = (
        explicit() + PIXELS if syntax == raw.EXPLICIT else implicit() + im(0x7FE00010, bytes(99))
    )
    assert refused(raw.part10(whole + junk, syntax)) is Reason.MALFORMED


def test_trailing_padding_is_an_element() -> None:
    assert (
        tags(parsed(raw.part10(explicit() + el(0xFFFCFFFC, b"OB", bytes(300)))))[-1] == 0xFFFCFFFC
    )


def test_odd_lengths_and_descending_tags_are_noted() -> None:
    data_set = explicit() + el(0x00100020, b"LO", b"abc")
    assert parsed(raw.part10(data_set)).notes == {"odd-length", "descending-tags"}


def test_a_file_that_ends_where_its_data_set_should_begin_is_incomplete() -> None:
    assert refused(raw.part10(b"")) is Reason.INCOMPLETE
    assert refused(bytes(128) + b"DICM") is Reason.INCOMPLETE


# -- limits ------------------------------------------------------------------------------


def test_limits_on_elements_items_fragments_and_bytes_hold() -> None:
    many = b"".join(el(0x00090000 + at, b"LO") for at in range(0x1000, 0x1000 + 1001))
    items = raw.open_sequence(SEQUENCE, *([item()] * 1001))
    big = el(0x00204000, b"LT", b"x" * 5000)
    parts = fragments(*([b""] * 4001))
    for data_set in (many, items, explicit() + big, explicit() + parts):
        assert refused(raw.part10(data_set), SMALL) is Reason.TOO_LARGE


def test_bulk_does_not_count_as_header() -> None:
    content = raw.part10(explicit() + el(0x00420011, b"OB", bytes(100_000)))
    assert read(Memory(content), SMALL).elements


def test_the_start_of_the_data_set_is_known_beforehand() -> None:
    for content in (raw.part10(explicit()), explicit(), raw.meta() + explicit(), b"x" * 200):
        start = part10.data_set_start(Memory(content))
        if content[:1] != b"x":
            assert start == parsed(content).data_set_start


def test_a_command_group_at_the_end_is_an_oddity_and_zeros_before_bytes_are_damage() -> None:
    behind = el(0x00000000, b"UL", b"\4\0\0\0") + el(0x00000100, b"US", b"\1\0")
    assert "descending-tags" in parsed(raw.part10(explicit() + behind)).notes
    assert refused(raw.part10(explicit() + bytes(100_000) + b"x")) is Reason.MALFORMED
