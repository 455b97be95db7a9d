"""A person decides: what each decision changes, what cannot be decided, who it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from ingester.check.carry import carry_over
from ingester.check.former import FormerIndex
from ingester.check.notes import Notes
from ingester.check.replay import Replay
from ingester.dicom.header import read_header
from ingester.errors import Reject
from ingester.index import Reader, Writer, said
from ingester.index.current import no_issuer
from ingester.index.decisions import Wish
from ingester.model import ArrivalRecord, Outcome, Reason
from tests.factory import uid
from tests.unit.index.records import archived, at, header, set_aside
from tests.unit.index.test_writer import ask

RIGHT: dict[str, Any] = {"patient_name": "Right^Anna", "patient_sex": "F"}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer.open(tmp_path / "index.db")
    yield writer
    writer.close()


def conflict(instance: int = 1, second: int = 5, salt: str = "x", **said: Any) -> ArrivalRecord:
    return archived(
        header(instance=instance, **said),
        outcome=Outcome.CONFLICT,
        salt=salt,
        second=second,
        arrival_id=f"{second:016x}{instance:08x}",
    )


def two_versions_of(writer: Writer, count: int) -> None:
    """Archive *count* objects, and each again with another name and sex."""
    writer.record([archived(header(instance=n), second=n) for n in range(1, count + 1)])
    writer.record([conflict(n, 100 + n, **RIGHT) for n in range(1, count + 1)])


def problems(writer: Writer) -> list[str]:
    return ask(writer, "SELECT kind FROM problems ORDER BY kind")


def decided(writer: Writer, *words: str, wish: Wish, **more: Any) -> Any:
    return writer.resolve(words, decision=wish, at=at(60), by="rao", **more)


# -- a corrected study -------------------------------------------------------------------


def test_a_study_whose_corrected_version_is_current_shows_the_corrected_name(
    writer: Writer,
) -> None:
    two_versions_of(writer, 3)
    assert problems(writer) == ["conflict"] * 3 + ["patient-identity"] * 2
    done = decided(writer, wish="make-current", study_instance_uid=uid(1, 1), note="typing error")
    assert (len(done.settled), done.studies, done.failed) == (3, [uid(1, 1)], [])
    assert problems(writer) == []
    assert ask(writer, "SELECT patient_name, patient_sex, instance_count FROM study_list") == [
        ("Right^Anna", "F", 6)
    ]
    with Reader.open(writer.path) as reader:
        assert [study["patient_name"] for study in reader.find(["right"])] == ["Right^Anna"]
        assert reader.find(["family1"]) == []
        shown = reader.show(uid(1, 1))
    assert shown is not None
    assert {(each["decided_by"], each["note"]) for each in shown.decisions} == {
        ("rao", "typing error")
    }
    # A file with the old name that comes later is asked about again, for it is new.
    writer.record([archived(header(instance=9), second=9)])
    assert ask(writer, "SELECT patient_name FROM study_list") == ["Right^Anna"]
    # Done again, nothing is exchanged back.
    again = decided(writer, wish="make-current", study_instance_uid=uid(1, 1))
    assert again.settled == []
    assert "no conflict" in again.failed[0][1]
    assert ask(writer, "SELECT version FROM instances ORDER BY instance_id")[:6] == (
        ["conflict"] * 3 + ["current"] * 3
    )


def test_the_first_object_speaks_for_the_study_and_the_others_contradict_it(
    writer: Writer,
) -> None:
    two_versions_of(writer, 2)
    decided(writer, uid(1, 1, 1, 1), wish="make-current")
    assert ask(writer, "SELECT patient_name FROM study_list") == ["Right^Anna"]
    assert problems(writer) == ["conflict", "patient-identity", "patient-identity"]
    (told,) = ask(
        writer, "SELECT DISTINCT instance_id FROM contradictions WHERE resolved_at IS NULL"
    )
    assert told == 2  # the object whose first version is current still has the old name


def test_a_decision_can_be_taken_back(writer: Writer) -> None:
    two_versions_of(writer, 1)
    first = ask(writer, "SELECT arrival_id FROM arrivals WHERE outcome = 'archived'")
    decided(writer, uid(1, 1, 1, 1), wish="make-current")
    decided(writer, *first, wish="make-current")
    assert ask(writer, "SELECT patient_name, patient_sex FROM study_list") == [
        ("Family1^Given1", "O")
    ]
    assert problems(writer) == []
    assert len(ask(writer, "SELECT * FROM resolutions")) == 2


def test_fields_of_study_and_series_follow_too_and_empty_ones_stay_filled(writer: Writer) -> None:
    old: dict[str, Any] = {
        "study_description": "Abdomen",
        "series_description": "A",
        "study_id": "7",
    }
    new: dict[str, Any] = {**old, "study_description": "Thorax", "series_description": "B"}
    writer.record([archived(header(**old), second=1)])
    writer.record([conflict(1, 2, **{**new, "study_id": None})])
    decided(writer, uid(1, 1, 1, 1), wish="make-current")
    assert ask(writer, "SELECT study_description, study_id FROM studies") == [("Thorax", "7")]
    assert ask(writer, "SELECT series_description FROM series") == ["B"]
    assert ask(writer, "SELECT first_archived_at, last_archived_at FROM studies") == [
        (at(1), at(2))
    ]
    assert problems(writer) == []


def test_another_study_of_the_patient_is_compared_with_the_corrected_sex(writer: Writer) -> None:
    writer.record([archived(header(patient_sex="M"), second=1)])
    writer.record([archived(header(study=2, patient_sex="M"), second=2)])
    writer.record([conflict(1, 3, patient_sex="F")])
    decided(writer, uid(1, 1, 1, 1), wish="make-current")
    assert ask(writer, "SELECT DISTINCT patient_sex FROM study_list") == ["F"]
    assert ask(writer, "SELECT uid, attribute FROM contradictions WHERE resolved_at IS NULL") == [
        (uid(1, 2), "patient_sex")
    ]


def test_studies_that_share_a_series_are_filled_together(writer: Writer) -> None:
    shared: dict[str, Any] = {"series_instance_uid": uid(1, 1, 1)}
    writer.record([archived(header(protocol_name="old"), second=1)])
    writer.record([archived(header(study=2, **shared), second=2)])
    writer.record([conflict(1, 3, protocol_name="new")])
    decided(writer, uid(1, 1, 1, 1), wish="make-current")
    assert ask(writer, "SELECT study_instance_uid, protocol_name FROM series") == [
        (uid(1, 1), "new")
    ]
    assert ask(writer, "SELECT count(*) FROM studies") == [2]
    assert ask(writer, "SELECT reason FROM problems") == ["study_instance_uid"]
    assert ask(writer, "PRAGMA foreign_key_check") == []


# -- what can be decided about what -------------------------------------------------------


def everything(writer: Writer) -> None:
    """Record an arrival of each outcome; its id is the outcome's name."""
    one = header()
    (instance_id, *_) = writer.record([archived(one, arrival_id="archived")])
    writer.record(
        [
            archived(one, outcome=Outcome.CONFLICT, salt="c", arrival_id="conflict"),
            archived(one, outcome=Outcome.VARIANT, salt="v", arrival_id="variant"),
            set_aside("quarantined"),
            set_aside("foreign", Reason.NOT_DICOM),
            set_aside("retried"),
            set_aside("again"),
            _bare("duplicate", Outcome.DUPLICATE, instance_id),
            _bare("unpacked", Outcome.UNPACKED, None),
        ]
    )
    writer.mark_retried("retried", "again", at(7))


def _bare(arrival_id: str, outcome: Outcome, instance_id: int | None) -> ArrivalRecord:
    return ArrivalRecord(
        arrival_id=arrival_id,
        source="MANUAL",
        batch=None,
        original_name="x",
        arrived_at=at(1),
        finished_at=at(1),
        size_bytes=1,
        sha256="0" * 64,
        outcome=outcome,
        instance_id=instance_id,
    )


@pytest.mark.parametrize(
    ("wish", "settled", "before"),
    [
        ("accept", {"conflict", "quarantined", "foreign"}, set()),
        ("discard", {"quarantined", "foreign"}, set()),
        ("make-current", {"conflict", "variant"}, {"archived", "duplicate"}),
    ],
)
def test_what_each_decision_can_be_about(
    writer: Writer, wish: Wish, settled: set[str], before: set[str]
) -> None:
    everything(writer)
    done: set[str] = set()
    done_before: set[str] = set()
    refused: dict[str, str] = {}
    for name in ("duplicate", "archived", "variant", "conflict", "quarantined", "foreign",
                 "unpacked", "retried"):  # fmt: skip
        told = decided(writer, name, wish=wish)
        done |= set(told.settled)
        done_before |= set(told.settled_before)
        refused |= dict(told.failed)
    assert (done, done_before) == (settled, before)
    assert all(len(sentence.split()) > 3 for sentence in refused.values())
    assert "again" in refused["retried"]
    if wish == "discard":
        assert "--make-current" in refused["conflict"]
    if wish == "make-current":
        assert "ingester retry quarantined" in refused["quarantined"]
    assert len(ask(writer, "SELECT 1 FROM arrivals WHERE resolved_at IS NOT NULL")) == (
        len(settled) + 1  # the one that was sent back
    )
    assert ask(writer, "SELECT arrival_id FROM resolutions WHERE decided_by = 'rao'") != []


def test_deciding_again_is_no_mistake_and_only_a_note_is_written_down_again(
    writer: Writer,
) -> None:
    writer.record([set_aside("a-1")])
    decided(writer, "a-1", wish="accept")
    again = decided(writer, "a-1", wish="accept")
    assert (again.settled, again.settled_before, again.failed) == ([], ["a-1"], [])
    decided(writer, "a-1", wish="accept", note="seen by two")
    assert ask(writer, "SELECT note FROM resolutions") == [None, "seen by two"]
    assert decided(writer, "a-1", wish="discard").settled == ["a-1"]
    assert decided(writer, "a-1", wish="discard").settled_before == ["a-1"]
    assert "discarded" in decided(writer, "a-1", wish="accept").failed[0][1]


def test_accepting_one_arrival_settles_what_it_contradicts(writer: Writer) -> None:
    writer.record([archived(header())])
    writer.record([archived(header(instance=2, modality="MR"), arrival_id="a-2")])
    assert problems(writer) == ["contradiction"]
    assert decided(writer, "a-2", wish="accept").settled == ["a-2"]
    assert problems(writer) == []
    assert "nothing" in decided(writer, "a-2", wish="accept").failed[0][1]


def test_several_conflicts_of_one_object(writer: Writer) -> None:
    writer.record([archived(header())])
    writer.record([conflict(1, 5, "x", study_id="second"), conflict(1, 6, "y", study_id="third")])
    told = decided(writer, uid(1, 1, 1, 1), wish="make-current")
    assert "several other versions" in told.failed[0][1]
    done = decided(writer, wish="make-current", study_instance_uid=uid(1, 1))
    assert len(done.settled) == 2  # the newest is current, the other accepted
    assert ask(writer, "SELECT study_id FROM studies") == ["third"]
    assert ask(writer, "SELECT decision FROM resolutions ORDER BY 1") == [
        "accept",
        "make-current",
    ]
    assert problems(writer) == []


def test_a_study_that_was_accepted_may_be_thought_over(writer: Writer) -> None:
    two_versions_of(writer, 2)
    decided(writer, wish="accept", study_instance_uid=uid(1, 1))
    assert ask(writer, "SELECT patient_name FROM study_list") == ["Family1^Given1"]
    decided(writer, wish="make-current", study_instance_uid=uid(1, 1))
    assert ask(writer, "SELECT patient_name FROM study_list") == ["Right^Anna"]
    assert problems(writer) == []


# -- what things may be called ------------------------------------------------------------


def test_the_beginning_of_an_id_is_enough_where_one_thing_waits(writer: Writer) -> None:
    ids = ["00aa11bb22cc33dd44ee55ff-000", "00aa11bb22cc33dd44ee55ff-001", "00aa99bb"]
    writer.record([set_aside(each) for each in ids])
    told = decided(writer, "00aa11bb", wish="accept")
    assert told.failed[0][1] == f"several arrivals begin so: {ids[0]}, {ids[1]}"
    assert decided(writer, ids[0][:-1] + "0", wish="accept").settled == [ids[0]]
    assert decided(writer, "00aa11bb", wish="accept").settled == [ids[1]]  # the only one left
    assert decided(writer, "00aa99", wish="accept").settled == [ids[2]]
    assert "begin" in decided(writer, "00aa11bb", wish="accept").failed[0][1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "no arrival has this id"),
        ("", "no arrival has this id"),
        ("00ff", "no arrival has this id"),
        ("00ffffff", "none begins so"),
        ("9.9.9.9.9", "none begins so"),
        (uid(1, 1), f"say --study {uid(1, 1)}"),
        (uid(1, 1, 1), "this is a series"),
        ("%' OR 1=1", "no arrival has this id"),
    ],
)
def test_what_names_nothing_is_said_in_a_sentence(writer: Writer, text: str, words: str) -> None:
    writer.record([archived(header())])
    ((named, sentence),) = decided(writer, text, wish="accept").failed
    assert named == text
    assert words in sentence


def test_a_study_that_is_not_there_or_cannot_be_discarded(writer: Writer) -> None:
    two_versions_of(writer, 1)
    told = decided(writer, wish="accept", study_instance_uid="9.9")
    assert told.failed == [("9.9", "no study has this UID")]
    told = decided(writer, wish="discard", study_instance_uid=uid(1, 1))
    assert "no archived version is ever removed" in told.failed[0][1]
    assert "conflict" in problems(writer)


# -- the same after a rebuild -------------------------------------------------------------


_steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("arrive"),
            st.integers(1, 3),  # instance
            st.integers(1, 2),  # study
            st.sampled_from([None, "Wrong^One", "WRONG^one", "Right^Anna"]),
            st.sampled_from([None, "F", "M"]),
            st.sampled_from([None, "Abdomen", "Thorax"]),
        ),
        st.tuples(st.just("make-current"), st.integers(0, 30)),
        st.tuples(st.just("accept"), st.integers(0, 30)),
        st.tuples(st.just("study"), st.integers(1, 2), st.sampled_from(["accept", "make-current"])),
    ),
    min_size=3,
    max_size=14,
)

_TABLES = (
    "SELECT * FROM patients ORDER BY patient_key",
    "SELECT * FROM studies ORDER BY study_instance_uid",
    "SELECT * FROM series ORDER BY series_instance_uid",
    "SELECT * FROM instances ORDER BY instance_id",
    "SELECT * FROM contradictions ORDER BY level, uid, attribute, value",
    "SELECT * FROM arrivals ORDER BY arrival_id",
    "SELECT * FROM resolutions ORDER BY resolution_id",
    "SELECT * FROM problems ORDER BY kind, arrival_id, reason",
    "PRAGMA foreign_key_check",
)


def _arrival(number: int, seen: set[str], step: tuple[Any, ...]) -> ArrivalRecord:
    _, instance, study, name, sex, description = step
    said = {"patient_name": name, "patient_sex": sex, "study_description": description}
    one = header(1, study, 1, instance, series_description=description, **said)
    is_new = one.sop_instance_uid not in seen
    seen.add(one.sop_instance_uid)
    return archived(
        one,
        outcome=Outcome.ARCHIVED if is_new else Outcome.CONFLICT,
        salt=str(number),
        second=number,
        arrival_id=f"{number:024x}",
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_steps)
def test_whatever_was_decided_when_a_rebuild_comes_to_the_same_rows(
    steps: list[tuple[Any, ...]],
) -> None:
    with TemporaryDirectory() as folder:
        live = Writer.open(Path(folder) / "index.db")
        records: list[ArrivalRecord] = []
        seen: set[str] = set()
        for number, step in enumerate(steps):
            if step[0] == "arrive":
                records.append(_arrival(number, seen, step))
                live.record([records[-1]], announce=False)
            elif step[0] == "study":
                decided(live, wish=step[2], study_instance_uid=uid(1, step[1]))
            elif records:
                about = records[step[1] % len(records)].arrival_id
                decided(live, about, wish=step[0])
        again = Writer.open(Path(folder) / "again.db")
        with (
            closing(FormerIndex.open(live.path, Path(folder) / "scratch")) as former,
            closing(Notes(Path(folder) / "notes")) as notes,
        ):
            former.tell(notes)
            replay = Replay.of(former, again, no_issuer)
            for instance_id, record in enumerate(records, start=1):
                replay.until(instance_id)
                again.record([replace(record, instance_id=instance_id)], announce=False)
            replay.rest()
            carry_over(former, again, notes)
        for query in _TABLES:
            assert ask(again, query) == ask(live, query), query
        live.close()
        again.close()


def test_the_json_header_says_what_the_columns_say() -> None:
    compared = 0
    for name in ("CT_small.dcm", "MR_small.dcm", "rtdose_rle.dcm", "color-pl.dcm", "693_UNCI.dcm",
                 "badVR.dcm", "chrH31.dcm", "chrRuss.dcm", "SC_rgb.dcm", "JPEG2000.dcm",
                 "image_dfl.dcm", "nested_priv_SQ.dcm", "ExplVR_BigEnd.dcm"):  # fmt: skip
        path = get_testdata_file(name, download=False)
        if not isinstance(path, str):
            continue
        try:
            one = read_header(path, issuer_of_patient_id="CLINIC")
        except Reject:
            continue
        attributes = said.attributes_of(one.attributes)
        assert said.patient_of(attributes, "CLINIC") == one.patient, name
        assert said.study_of(attributes) == one.study, name
        assert said.series_of(attributes) == one.series, name
        compared += 1
    assert compared >= 6
