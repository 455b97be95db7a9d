from __future__ import annotations

from ingester.completion import BatchKey, Completion, Key, StudyKey
from ingester.model import (
    ArrivalRecord,
    ImageAttributes,
    Instance,
    Origin,
    Outcome,
    PatientAttributes,
    SeriesAttributes,
    StudyAttributes,
)


def arrival(
    study: str | None = "1.2",
    batch: str | None = "CD_1",
    outcome: Outcome = Outcome.ARCHIVED,
    source: str = "CT1",
) -> ArrivalRecord:
    instance = None
    if study is not None:
        instance = Instance(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=f"{study}.1",
            study_instance_uid=study,
            series_instance_uid=f"{study}.0",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            patient=PatientAttributes(),
            study=StudyAttributes(),
            series=SeriesAttributes(),
            image=ImageAttributes(),
            attributes="{}",
            has_pixels=True,
        )
    return ArrivalRecord(
        arrival_id="0" * 24,
        source=source,
        batch=batch,
        original_name="a.dcm",
        arrived_at="2026-11-22T09:00:00.000Z",
        finished_at="2026-11-22T09:00:00.000Z",
        size_bytes=1,
        sha256=None,
        outcome=outcome,
        instance=instance,
    )


def nobody(_: Key, __: Origin) -> bool:
    return False


def test_quiet_study_and_batch_are_told_once() -> None:
    completion = Completion(quiet=60, at_most=900)
    completion.saw([arrival(), arrival()], 0.0)
    assert completion.next_due() == 60.0
    assert completion.due(59.9, is_waiting=nobody) == []
    finished = completion.due(60.0, is_waiting=nobody)
    assert {each.key for each in finished} == {StudyKey("1.2"), BatchKey("CT1", "CD_1")}
    assert not any(each.is_forced for each in finished)
    assert completion.due(1000.0, is_waiting=nobody) == []
    assert completion.next_due() is None


def test_whatever_comes_late_begins_the_quiet_anew() -> None:
    completion = Completion(quiet=60, at_most=900)
    completion.saw([arrival(batch=None)], 0.0)
    completion.saw([arrival(batch=None)], 50.0)
    assert completion.due(60.0, is_waiting=nobody) == []
    assert [each.key for each in completion.due(110.0, is_waiting=nobody)] == [StudyKey("1.2")]


def test_another_study_that_interleaves_changes_nothing() -> None:
    completion = Completion(quiet=60, at_most=900)
    completion.saw([arrival("1.2", None)], 0.0)
    completion.saw([arrival("1.3", None)], 55.0)
    assert [each.key for each in completion.due(60.0, is_waiting=nobody)] == [StudyKey("1.2")]


def test_a_file_that_waits_holds_its_study_up_but_not_for_ever() -> None:
    completion = Completion(quiet=60, at_most=900)
    completion.saw([arrival(batch="CD_1"), arrival("1.3", "CD_2")], 0.0)

    def waits(_: Key, origin: Origin) -> bool:
        return origin == ("CT1", "CD_1")

    first = completion.due(60.0, is_waiting=waits)
    assert {each.key for each in first} == {StudyKey("1.3"), BatchKey("CT1", "CD_2")}
    assert completion.due(959.0, is_waiting=waits) == []
    forced = completion.due(964.0, is_waiting=waits)
    assert {each.key for each in forced} == {StudyKey("1.2"), BatchKey("CT1", "CD_1")}
    assert all(each.is_forced for each in forced)


def test_it_is_told_soon_after_the_waiting_ends() -> None:
    completion = Completion(quiet=60, at_most=900)
    completion.saw([arrival(batch="CD_1")], 0.0)
    assert completion.due(60.0, is_waiting=lambda *_: True) == []
    due = completion.next_due()
    assert due is not None
    assert due <= 65.0
    assert len(completion.due(due, is_waiting=nobody)) == 2


def test_duplicates_and_quarantined_files_complete_a_batch_but_no_study() -> None:
    completion = Completion(quiet=60, at_most=900)
    completion.saw([arrival(None, outcome=Outcome.DUPLICATE)], 0.0)
    completion.saw([arrival(None, outcome=Outcome.QUARANTINED)], 0.0)
    finished = completion.due(60.0, is_waiting=nobody)
    assert [each.key for each in finished] == [BatchKey("CT1", "CD_1")]


def test_at_the_end_of_a_run_all_that_nothing_waits_for_is_told_quiet_or_not() -> None:
    completion = Completion(quiet=60, at_most=900)
    completion.saw([arrival(batch="CD_1"), arrival("1.3", "CD_2")], 0.0)

    def waits(_: Key, origin: Origin) -> bool:
        return origin == ("CT1", "CD_1")

    rest = completion.rest(is_waiting=waits)
    assert {each.key for each in rest} == {StudyKey("1.3"), BatchKey("CT1", "CD_2")}
    assert completion.rest(is_waiting=waits) == []
    assert {each.key for each in completion.rest(is_waiting=nobody)} == {
        StudyKey("1.2"),
        BatchKey("CT1", "CD_1"),
    }
    assert completion.next_due() is None
