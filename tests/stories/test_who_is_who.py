"""Late files complete a study; one patient ID for two people is told, and settled."""

from __future__ import annotations

from typing import Any

from pydicom.uid import ComprehensiveSRStorage, RTStructureSetStorage

from tests.factory import drop, instance, uid
from tests.stories.conftest import Command


def test_a_structure_set_and_a_report_that_come_first_leave_nothing_empty(
    command: Command,
) -> None:
    """They leave out what the images say later."""
    left_out: dict[str, Any] = dict.fromkeys(
        ("PatientName", "PatientBirthDate", "PatientSex", "StudyDescription", "AccessionNumber",
         "PixelData", "Rows", "Columns"), None
    )  # fmt: skip
    for series, (modality, sop_class) in enumerate(
        (("RTSTRUCT", RTStructureSetStorage), ("SR", ComprehensiveSRStorage)), start=2
    ):
        first = instance(1, 1, series, 1, Modality=modality, sop_class=sop_class, **left_out)
        drop(command.spool / f"{modality}.dcm", first)
        command.once()
    assert command.rows("SELECT patient_name, accession_number FROM study_list") == [(None, None)]
    drop(command.spool / "ct.dcm", instance(1))
    command.once()
    assert command.rows(
        "SELECT patient_name, patient_birth_date, patient_sex, accession_number,"
        " study_description, modalities FROM study_list"
    ) == [("Family1^Given1", "1970-01-31", "O", "A001001", "Abdomen", "CT,RTSTRUCT,SR")]
    assert command.rows("SELECT count(*) FROM patients") == [1]
    assert command.rows("SELECT * FROM problems") == []
    command.verify()


def test_one_patient_id_for_two_people_is_told_until_a_person_has_looked(
    command: Command,
) -> None:
    command.configure(sources__CLINIC={"issuer_of_patient_id": "CLINIC"})
    drop(command.spool / "a.dcm", instance(1))
    drop(command.spool / "b.dcm", instance(2, PatientID="P0001", PatientName="Other^Person"))
    # The same ID means somebody else where it is another issuer's.
    drop(command.spool / "CLINIC/c.dcm", instance(3, PatientID="P0001"))
    assert command.once()["archived"] == 3
    assert command.rows("SELECT count(*) FROM patients") == [3]
    assert command.json("status", exit_code=1)["unresolved_problems"] == 1
    (problem,) = command.json("sql", "SELECT * FROM problems")
    assert uid(1, 1) in problem["message"]
    assert uid(2, 1) in problem["message"]
    assert "another name" in problem["message"]
    assert "Other" not in problem["message"]
    assert "P0001" not in problem["message"]
    command.run("resolve", "--study", uid(1, 1), "--note", "two people; the ID was reused")
    command.run("status")
    command.run("rebuild")
    assert command.rows("SELECT * FROM problems") == []
    drop(command.spool / "d.dcm", instance(4, PatientID="P0001", PatientBirthDate="19800101"))
    command.once()
    assert command.rows("SELECT DISTINCT reason FROM problems ORDER BY 1") == [
        "patient_birth_date", "patient_name",
    ]  # fmt: skip
    command.verify()
