"""Whatever bytes come: an answer, never a crash; what is cut is never an instance."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.dicom import part10
from ingester.dicom.elements import Bulk, Element, Sequence
from ingester.dicom.sources import File, Memory
from ingester.dicom.uid import UnsafeUid, validated_uid
from ingester.errors import Reject
from ingester.model import Instance
from tests.answers import LIMITS, SEEDS, answer
from tests.unit.dicom import raw
from tests.unit.dicom.raw import el, explicit, item


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_have_an_answer(content: bytes) -> None:
    answer(content)
    answer(bytes(128) + b"DICM" + content)
    answer(raw.part10(content))


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=12),
)
def test_flipped_bits_have_an_answer(seed: bytes, flips: list[tuple[int, int]]) -> None:
    content = bytearray(seed)
    for at, mask in flips:
        content[at % len(content)] ^= mask
    answer(bytes(content))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 10**6), st.integers(0, 200), st.binary(max_size=40))
def test_pieces_removed_or_put_in_have_an_answer(
    seed: bytes, at: int, length: int, more: bytes
) -> None:
    at %= len(seed)
    answer(seed[:at] + more + seed[at + length :])


def test_what_is_cut_is_never_an_instance() -> None:
    # Every cut but those at the border of a top-level element, which nobody can see.
    for seed in SEEDS:
        borders = {len(seed)} | _borders(seed)
        for cut in range(len(seed)):
            found = answer(seed[:cut])
            if cut not in borders:
                assert isinstance(found, Reject), f"cut at {cut} of {len(seed)}"


def test_what_is_cut_inside_an_element_may_still_grow() -> None:
    for seed in SEEDS:
        for cut in range(len(seed) - 50, len(seed)):
            found = answer(seed[:cut])
            assert isinstance(found, Instance) or found.refusal.may_grow


def _borders(seed: bytes) -> set[int]:
    parsed = part10.read(Memory(seed), LIMITS)
    borders = {parsed.data_set_start}
    for tag, _, value in parsed.elements:
        order = parsed.encoding.order
        number = (tag >> 16).to_bytes(2, parsed.encoding.byte_order)
        number += (tag & 0xFFFF).to_bytes(2, parsed.encoding.byte_order)
        assert order in "<>"
        at = seed.find(number, parsed.data_set_start)
        assert at >= 0
        borders.add(at)
        assert value is not None
    return borders


# -- generated nestings ------------------------------------------------------------------

leaf = st.builds(
    lambda text: el(0x0008103E, b"LO", raw.even(text.encode())),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)


def _sequences(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    content = st.lists(children, max_size=3).map(lambda parts: parts[0] if parts else b"")
    items = st.lists(
        content.flatmap(lambda part: st.sampled_from([item(part), raw.open_item(part)])), max_size=3
    )
    return items.flatmap(
        lambda parts: st.sampled_from(
            [
                el(0x00081115, b"SQ", b"".join(parts)),
                raw.open_sequence(0x00081115, *parts),
            ]
        )
    )


nestings = st.recursive(leaf, _sequences, max_leaves=30)


def _counted(elements: list[Element]) -> int:
    total = 0
    for _, _, value in elements:
        total += 1
        if isinstance(value, Sequence):
            total += sum(_counted(each) for each in value.items)
    return total


@settings(max_examples=200, deadline=None)
@given(nestings, st.integers(1, 400))
def test_nestings_are_read_alike_from_memory_and_file(nesting: bytes, pixels: int) -> None:
    content = raw.part10(nesting + explicit() + el(0x7FE00010, b"OB", bytes(2 * pixels)))
    whole = part10.read(Memory(content))
    assert "unreadable-sequence" not in whole.notes
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        with path.open("rb") as file:
            paged = part10.read(File(file.fileno(), len(content)))
    assert paged.elements == whole.elements
    assert _counted(whole.elements) >= 7
    last = whole.elements[-1][2]
    assert len(last) == 2 * pixels if isinstance(last, bytes) else isinstance(last, Bulk)


# -- UIDs --------------------------------------------------------------------------------


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_a_validated_uid_is_safe_in_a_path(value: str | bytes) -> None:
    try:
        uid = validated_uid(value)
    except UnsafeUid:
        return
    if uid is not None:
        assert 1 <= len(uid) <= 64
        assert set(uid) <= set("0123456789.")
        assert uid[0] != "."
        assert uid[-1] != "."
