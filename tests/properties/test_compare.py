"""However the same values are written they are a duplicate; another value is named.

pydicom writes the files, so that what is compared was not made by what compares.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from ingester.compare import CompareRequest, compare
from ingester.model import Outcome, Verdict
from tests.factory import encoded, instance
from tests.reencoded import SYNTAXES, instance_of, turn_words

DUPLICATE = Verdict(Outcome.DUPLICATE)

#: Values of each VR, no two of which say the same.
VALUES: dict[str, list[Any]] = {
    "AE": ["CT1", "MR 2", ""],
    "AS": ["012Y", "012M"],
    "AT": [0x00100010, 0x00100020, [0x00100010, 0x00100020]],
    "CS": ["HEAD", "HEADS", ["A", "B"], ""],
    "DA": ["20240131", "20240201"],
    "DS": ["1.5", "1.25", "-1e5", ["1", "2", "3.125"], ""],
    "DT": ["20240131101530.5", "20240131"],
    "FD": [1.5, -2.25, [0.0, 1e300]],
    "FL": [1.5, -2.25, [0.5, 0.25]],
    "IS": ["7", "-12", ["1", "2"], ""],
    "LO": ["text", "another text", ["a", "b"], "Grüße"],
    "LT": ["a line", " a line", "two\r\nlines", "long " * 40],
    "OB": [b"\1\2", b"\1\2\3\4", bytes(range(200)), b"\xfe\xff\x00\xe0\0\0\0\0"],
    "OD": [bytes(range(16)), bytes(range(8)), bytes(800)],
    "OF": [bytes(range(16)), bytes(range(8)), bytes(800)],
    "OL": [bytes(range(16)), bytes(range(8)), bytes(800)],
    "OV": [bytes(range(16)), bytes(range(8)), bytes(800)],
    "OW": [bytes(range(16)), bytes(range(8)), bytes(800), b"\1\0"],
    "PN": ["Doe^Jane", "Doe^John", "Müller^Jörg", "Doe^Jane^^Dr"],
    "SH": ["short", "shorter", "Ä"],
    "SL": [1, -1, [1, 2, 3]],
    "SS": [1, -1, [1, 2, 3]],
    "ST": ["text", " text", "long " * 40],
    "SV": [1, -1, [2**40, 3]],
    "TM": ["101530", "101530.5", "1015"],
    "UC": ["text", " text", ["a", "b"]],
    "UI": ["1.2.3", "1.2.34", ["1.2", "1.3"]],
    "UL": [1, 2**31, [1, 2, 3]],
    "UN": [b"\1\2", b"\1\2\3\4", bytes(range(200))],
    "UR": ["http://a/b", "http://a/c"],
    "US": [1, 0x8000, [1, 2, 3], list(range(60))],
    "UT": ["text", " text", "long " * 400],
    "UV": [1, 2**63, [2**40, 3]],
}
#: One public element of each VR: the selectors of a hanging protocol have them all.
PUBLIC = {vr: f"Selector{vr}Value" for vr in VALUES}
SEQUENCE, CREATOR = "ProcedureCodeSequence", "ACME 1.0"


def test_there_is_a_public_element_of_each_vr() -> None:
    for vr, keyword in PUBLIC.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        assert dictionary_VR(tag) == vr
        assert keyword_for_tag(tag) == keyword


@dataclass
class Model:
    """What a data set says: for each VR which of its values, and its items."""

    public: dict[str, int] = field(default_factory=dict)
    private: dict[str, int] = field(default_factory=dict)
    items: list[Model] = field(default_factory=list)
    private_items: list[Model] = field(default_factory=list)

    def data_set(self) -> Dataset:
        ds = Dataset()
        self.fill(ds)
        return ds

    def fill(self, ds: Dataset) -> None:
        for vr, number in self.public.items():
            setattr(ds, PUBLIC[vr], deepcopy(VALUES[vr][number]))
        if self.items:
            setattr(ds, SEQUENCE, Sequence([each.data_set() for each in self.items]))
        if not (self.private or self.private_items):
            return
        block = ds.private_block(0x0029, CREATOR, create=True)
        for vr, number in self.private.items():
            block.add_new(list(VALUES).index(vr), vr, deepcopy(VALUES[vr][number]))
        if self.private_items:
            block.add_new(0xF0, "SQ", Sequence([each.data_set() for each in self.private_items]))

    def places(self, above: str = "") -> Iterator[tuple[dict[str, int], str, str]]:
        """Yield (values, VR, the name that a difference there has)."""
        for vr in self.public:
            yield self.public, vr, above + PUBLIC[vr]
        for vr in self.private:
            yield self.private, vr, above + private_name(list(VALUES).index(vr))
        for item in self.items:
            yield from item.places(f"{above}{SEQUENCE}/")
        for item in self.private_items:
            yield from item.places(f"{above}{private_name(0xF0)}/")

    def lists(self, above: str = "") -> Iterator[tuple[list[Model], str]]:
        """Yield (items, the name of their sequence)."""
        for items, name in ((self.items, SEQUENCE), (self.private_items, private_name(0xF0))):
            yield items, above + name
            for item in items:
                yield from item.lists(f"{above}{name}/")


def private_name(element: int) -> str:
    return f"{CREATOR}:0029xx{element:02X}"


choices = st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(0, 1), max_size=8)


def models(depth: int) -> st.SearchStrategy[Model]:
    items = st.lists(models(depth - 1), max_size=2) if depth else st.just([])
    return st.builds(Model, choices, choices, items, items)


def written(model: Model, syntax: str, chance: random.Random) -> bytes:
    """Write a model as this or that program would."""
    ds = instance(PatientName="Grüße^Jane")
    ds.SpecificCharacterSet = chance.choice(["ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 100"])
    model.fill(ds)
    if syntax == ExplicitVRBigEndian:
        turn_words(ds)
    data = encoded(ds, syntax, sender=chance.choice([None, "CT1", "A_PACS"]))
    is_deflated = syntax == DeflatedExplicitVRLittleEndian
    return data if is_deflated else data + bytes(chance.choice([0, 0, 2, 512]))


def verdict(one: bytes, other: bytes) -> Verdict:
    """Compare both ways."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("one", "other")]
        for path, data in zip(paths, (one, other), strict=True):
            path.write_bytes(data)
        found = compare(CompareRequest(str(paths[0]), str(paths[1])))
        assert compare(CompareRequest(str(paths[1]), str(paths[0]))) == found
        return found


pairs = st.tuples(st.sampled_from(SYNTAXES), st.sampled_from(SYNTAXES))
examples = settings(max_examples=150, deadline=None)


@examples
@given(models(2), pairs, st.randoms(use_true_random=False))
def test_the_same_values_are_a_duplicate_however_they_are_written(
    model: Model, syntaxes: tuple[str, str], chance: random.Random
) -> None:
    one, other = (written(model, syntax, chance) for syntax in syntaxes)
    assert verdict(one, other) == DUPLICATE


@examples
@given(models(2), pairs, st.randoms(use_true_random=False), st.data())
def test_one_other_value_is_a_conflict_that_names_its_place(
    model: Model, syntaxes: tuple[str, str], chance: random.Random, data: st.DataObject
) -> None:
    changed = deepcopy(model)
    places = list(changed.places())
    if not places:
        changed.public["LO"], model.public["LO"] = 0, 0
        places = list(changed.places())
    values, vr, name = data.draw(st.sampled_from(places))
    others = [each for each in range(len(VALUES[vr])) if each != values[vr]]
    values[vr] = data.draw(st.sampled_from(others))
    found = verdict(written(changed, syntaxes[0], chance), written(model, syntaxes[1], chance))
    assert found == Verdict(Outcome.CONFLICT, (name,))


@examples
@given(models(2), pairs, st.randoms(use_true_random=False), st.data())
def test_an_element_or_an_item_less_is_a_conflict_that_names_it(
    model: Model, syntaxes: tuple[str, str], chance: random.Random, data: st.DataObject
) -> None:
    changed = deepcopy(model)
    removals: list[tuple[str, Any]] = [
        (name, lambda values=values, vr=vr: values.pop(vr)) for values, vr, name in changed.places()
    ]
    removals += [(name, items.pop) for items, name in changed.lists() if items]
    if not removals:
        return
    name, remove = data.draw(st.sampled_from(removals))
    remove()
    found = verdict(written(changed, syntaxes[0], chance), written(model, syntaxes[1], chance))
    assert found.outcome is Outcome.CONFLICT
    # Where nothing private is left, the creator has gone too.
    assert {each for each in found.differs if not each.endswith("00290010")} == {name}


@pytest.mark.parametrize("vr", sorted(VALUES))
def test_no_two_values_of_a_vr_are_taken_for_the_same(vr: str) -> None:
    chance = random.Random(0)
    for one in range(len(VALUES[vr])):
        for other in range(one):
            for model in (Model(public={vr: one}), Model(private={vr: one})):
                changed = deepcopy(model)
                (values, _, name) = next(changed.places())
                values[vr] = other
                found = verdict(
                    written(model, chance.choice(SYNTAXES), chance),
                    written(changed, chance.choice(SYNTAXES), chance),
                )
                assert found == Verdict(Outcome.CONFLICT, (name,))


# -- hostile files -----------------------------------------------------------------------


def seeds() -> list[bytes]:
    """Return one file of each encoding that holds a value of every VR, and nested ones."""
    every = dict.fromkeys(VALUES, 0)
    model = Model(every, dict.fromkeys(VALUES, 1), [Model(every), Model()], [Model({}, every)])
    return [written(model, syntax, random.Random(3)) for syntax in SYNTAXES]


SEEDS = seeds()


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(range(len(SEEDS))),
    st.sampled_from(range(len(SEEDS))),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_whatever_can_be_archived_can_be_compared_and_is_the_same_as_itself(
    one: int, other: int, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(SEEDS[one])
    for at, mask in flips:
        content[132 + at % (len(content) - 132)] ^= mask
    with TemporaryDirectory() as folder:
        path = Path(folder) / "flipped"
        path.write_bytes(content)
        if instance_of(path) is None:
            return
    assert verdict(bytes(content), bytes(content)) == DUPLICATE
    found = verdict(bytes(content), SEEDS[other])
    assert found == verdict(bytes(content), SEEDS[one]) or found.outcome is Outcome.CONFLICT
