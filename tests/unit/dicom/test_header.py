"""From bytes to an instance: identity, columns, and the header as JSON."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ingester.dicom import header, part10
from ingester.dicom.sources import Memory
from ingester.errors import Reject
from ingester.model import Instance, Reason
from tests.factory import encoded, instance, uid
from tests.unit.dicom import raw
from tests.unit.dicom.raw import el, explicit, im, implicit, item


def read(content: bytes, **options: str) -> Instance:
    return header.instance(part10.read(Memory(content)), **options)


def attributes(content: bytes) -> dict[str, Any]:
    found = json.loads(read(content).attributes)
    assert isinstance(found, dict)
    return found


def refused(content: bytes) -> Reason:
    with pytest.raises(Reject) as caught:
        read(content)
    return caught.value.refusal.reason


# -- columns -----------------------------------------------------------------------------


def test_columns_are_typed() -> None:
    found = read(encoded(instance(3, 2, 5, 7, frames=4, ReferringPhysicianName="Roe^R")))
    assert found.sop_instance_uid == uid(3, 2, 5, 7)
    assert found.patient.patient_birth_date == "1970-01-31"
    assert found.patient.patient_name == "Family3^Given3"
    assert (found.study.study_date, found.study.study_time) == ("2024-01-02", "10:15:30.500000")
    assert found.study.referring_physician_name == "Roe^R"
    assert found.series.series_number == 5
    assert (found.image.instance_number, found.image.number_of_frames) == (7, 4)
    assert (found.image.rows, found.image.columns, found.image.bits_stored) == (16, 16, 12)
    assert found.has_pixels
    assert found.notes == ()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_encoding_changes_nothing_but_itself(syntax: str) -> None:
    one, other = (
        json.loads(read(encoded(instance(), each)).attributes)
        for each in (syntax, ExplicitVRLittleEndian)
    )
    for name in ("TransferSyntaxUID", "FileMetaInformationGroupLength"):
        one.pop(name), other.pop(name)
    assert one == other


def test_unreadable_values_are_none_in_columns_and_raw_in_json() -> None:
    rows = el(0x00080020, b"DA", b"20241399") + el(0x00200013, b"IS", b"first ")
    found = read(raw.part10(rows + explicit()))
    assert found.study.study_date is None
    assert found.image.instance_number is None
    assert json.loads(found.attributes)["StudyDate"] == "20241399"
    assert json.loads(found.attributes)["InstanceNumber"] == "first"


def test_what_a_source_leaves_out_is_filled_in() -> None:
    content = raw.part10(el(0x00100020, b"LO", "Grün".encode("latin_1") + b" ") + explicit())
    found = read(content, character_set="ISO_IR 100", issuer_of_patient_id="Ward 7")
    assert found.patient.patient_id == "Grün"
    assert found.patient.issuer_of_patient_id == "Ward 7"
    named = read(encoded(instance(IssuerOfPatientID="Own")), issuer_of_patient_id="Ward 7")
    assert named.patient.issuer_of_patient_id == "Own"


@pytest.mark.parametrize("named", [b"", b"ISO_IR 6", b"ISO_IR 999", b"ISO 2022 IR 6"])
def test_a_character_set_that_says_nothing_leaves_it_to_the_source(named: bytes) -> None:
    name = "Семёнов^Андрей".encode("iso8859_5")
    inner = item(el(0x00080005, b"CS", named) + el(0x0008103E, b"LO", name[:6]))
    content = (
        el(0x00080005, b"CS", named) + el(0x00081115, b"SQ", inner) + el(0x00100010, b"PN", name)
    )
    found = read(raw.part10(content + explicit()), character_set="ISO_IR 144")
    assert found.patient.patient_name == "Семёнов^Андрей"
    told = json.loads(found.attributes)
    assert told["ReferencedSeriesSequence"][0]["SeriesDescription"] == "Семёно"
    assert ("unknown-character-set" in found.notes) is (named == b"ISO_IR 999")


def test_undecodable_text_is_raw_in_json_and_replaced_in_columns() -> None:
    content = el(0x00080005, b"CS", b"ISO_IR 192") + el(0x00100010, b"PN", b"M\xfcller^A")
    found = read(raw.part10(content + explicit()))
    assert found.patient.patient_name == "M\ufffdller^A"
    assert json.loads(found.attributes)["PatientName"] == r"M\xFCller^A"
    assert "undecodable-text" in found.notes


def test_pixels_of_another_length_are_noted() -> None:
    assert read(encoded(instance(rows=8, PixelData=bytes(100)))).notes == ("pixel-data-length",)


# -- identity ----------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, b"", b" \0"])
def test_a_missing_or_empty_uid_has_its_own_reason(nothing: bytes | None) -> None:
    assert refused(raw.part10(explicit(sop=nothing))) is Reason.NO_SOP_INSTANCE_UID
    assert refused(raw.part10(explicit(study=nothing))) is Reason.NO_STUDY_INSTANCE_UID
    assert refused(raw.part10(explicit(series=nothing))) is Reason.NO_SERIES_INSTANCE_UID


def test_the_sop_class_may_come_from_file_meta() -> None:
    assert read(encoded(instance(SOPClassUID=None))).notes == ("sop-class-from-file-meta",)
    assert refused(bytes(128) + b"DICM" + explicit(sop_class=None)) is Reason.NO_SOP_CLASS_UID


@pytest.mark.parametrize("value", [b"../../etc/x ", b"1.2/3 ", b"1." * 33, b"..", b"1.2\x003 "])
@pytest.mark.parametrize("which", ["sop", "study", "series", "sop_class"])
def test_an_unsafe_uid_is_refused_wherever_it_stands(which: str, value: bytes) -> None:
    assert refused(raw.part10(explicit("<", **{which: value}))) is Reason.UNSAFE_UID


def test_oddities_of_identity_are_noted() -> None:
    found = read(raw.part10(explicit(sop=b"1.02.3")))
    assert set(found.notes) == {"file-meta-uid-differs", "uid-not-well-formed"}
    assert found.sop_instance_uid == "1.02.3"


def test_of_duplicates_the_first_counts_unless_they_contradict_identity() -> None:
    again = el(0x00100010, b"PN", b"Roe^Rick")
    found = read(raw.part10(explicit() + again))
    assert "duplicate-tags" in found.notes
    assert found.patient.patient_name == "Doe^Jane"
    assert json.loads(found.attributes)["PatientName"] == "Doe^Jane"
    same = el(0x0020000E, b"UI", raw.even(uid(1, 1, 1).encode(), b" "))
    assert read(raw.part10(explicit() + same)).series_instance_uid == uid(1, 1, 1)
    other = el(0x0020000E, b"UI", b"1.9 ")
    assert refused(raw.part10(explicit() + other)) is Reason.MALFORMED


def test_a_missing_uid_may_still_come_while_the_file_grows() -> None:
    for content, may_grow in (
        (raw.part10(explicit(study=None, series=None)), True),
        (raw.part10(explicit(study=None)), False),
    ):
        with pytest.raises(Reject) as caught:
            read(content)
        assert caught.value.refusal.may_grow is may_grow


# -- the header as JSON ------------------------------------------------------------------


def test_multiplicity_is_the_dictionarys() -> None:
    found = attributes(
        encoded(instance(ImageType=["ORIGINAL"], PixelSpacing=[0.5, 0.5], OtherPatientIDs="X",
                         WindowCenter=40, SliceThickness=2, PatientComments=""))
    )  # fmt: skip
    assert found["ImageType"] == ["ORIGINAL"]
    assert found["PixelSpacing"] == [0.5, 0.5]
    assert found["WindowCenter"] == [40.0]
    assert found["SliceThickness"] == 2.0
    assert found["PatientComments"] is None
    assert found["Rows"] == 16
    assert found["PixelData"] == {"bytes": 512}
    assert found["TransferSyntaxUID"] == "1.2.840.10008.1.2.1"
    assert found["FileMetaInformationVersion"] == "0001"


def test_private_unknown_and_repeating_elements_have_their_own_names() -> None:
    rows = el(0x00090010, b"LO", b'ACME "1" ') + el(0x00091002, b"LO", b"hello ")
    rows += el(0x00091003, b"OB", b"\1\2") + el(0x00091004, b"OB", bytes(65))
    rows += el(0x00091102, b"LO", b"orphan")
    content = raw.part10(
        rows + explicit() + el(0x00200099, b"LO", b"x ") + el(0x60020010, b"US", b"\5\0")
        + el(0x60020022, b"LO", b"note")
    )  # fmt: skip
    found = attributes(content)
    assert found["00090010"] == ['ACME "1"']
    assert found['ACME "1":0009xx02'] == ["hello"]
    assert found['ACME "1":0009xx03'] == ["0102"]
    assert found['ACME "1":0009xx04'] == {"bytes": 65}
    assert found["00091102"] == ["orphan"]
    assert found["00200099"] == ["x"]
    assert found["60020010"] == 5
    assert found["60020022"] == "note"


def test_two_blocks_of_one_creator_lose_nothing() -> None:
    rows = el(0x00090010, b"LO", b"ACME") + el(0x00090011, b"LO", b"ACME")
    rows += el(0x00091002, b"LO", b"one ") + el(0x00091102, b"LO", b"two ")
    found = attributes(raw.part10(rows + explicit()))
    assert found["ACME:0009xx02"] == ["one"]
    assert found["00091102"] == ["two"]


def test_look_up_tables_are_bytes_whatever_their_vr() -> None:
    found = attributes(
        raw.part10(explicit() + el(0x00281201, b"OW", bytes(66)) + el(0x00281202, b"US", bytes(66))
                   + el(0x00281203, b"OW", b"\1\2"))
    )  # fmt: skip
    assert found["RedPaletteColorLookupTableData"] == {"bytes": 66}
    assert found["GreenPaletteColorLookupTableData"] == {"bytes": 66}
    assert found["BluePaletteColorLookupTableData"] == "0102"


def test_sequences_are_arrays_and_long_ones_a_count() -> None:
    code = el(0x00080100, b"SH", b"T1")
    small = el(0x00081032, b"SQ", item(code) + item(code))
    large = el(0x00081115, b"SQ", item(el(0x0008103E, b"LO", b"x" * 60000)) * 2)
    empty = el(0x00081140, b"SQ")
    found = attributes(raw.part10(small + large + empty + explicit()))
    assert found["ProcedureCodeSequence"] == [{"CodeValue": "T1"}] * 2
    assert found["ReferencedSeriesSequence"] == {"items": 2}
    assert found["ReferencedImageSequence"] == []


def test_a_sequence_has_its_own_character_set_or_its_parents() -> None:
    german, greek = "Ä".encode("latin_1") + b" ", "Δ".encode("iso8859_7") + b" "
    own = item(el(0x00080005, b"CS", b"ISO_IR 126") + el(0x0008103E, b"LO", greek))
    inherited = item(el(0x0008103E, b"LO", german))
    content = el(0x00080005, b"CS", b"ISO_IR 100") + el(0x00081115, b"SQ", own + inherited)
    found = attributes(raw.part10(content + explicit()))
    assert [each["SeriesDescription"] for each in found["ReferencedSeriesSequence"]] == ["Δ", "Ä"]


def test_us_or_ss_is_settled_by_pixel_representation() -> None:
    value = im(0x00280103, b"\1\0") + im(0x00280106, b"\xff\xff")
    assert attributes(raw.part10(implicit() + value, raw.IMPLICIT))["SmallestImagePixelValue"] == -1
    value = im(0x00280103, b"\0\0") + im(0x00280106, b"\xff\xff")
    assert (
        attributes(raw.part10(implicit() + value, raw.IMPLICIT))["SmallestImagePixelValue"] == 65535
    )


def test_un_of_a_known_attribute_is_read_as_that() -> None:
    found = attributes(raw.part10(el(0x00080070, b"UN", b"ACME") + explicit()))
    assert found["Manufacturer"] == "ACME"


def test_odd_vrs_and_groups_are_noted() -> None:
    assert "vr-differs" in read(raw.part10(el(0x00080070, b"DS", b"1 ") + explicit())).notes
    assert (
        "command-group-in-data-set"
        in read(raw.part10(el(0x00000002, b"UI", b"1.2 ") + explicit())).notes
    )
    assert (
        "file-meta-in-data-set"
        in read(raw.part10(el(0x00020010, b"UI", b"1.2 ") + explicit())).notes
    )


def test_hostile_text_is_only_text() -> None:
    text = "'; DROP TABLE patients;--%s{}<script>\x1b]0;x\x07=cmd|'/C calc'!A0\n\x9b"
    found = read(encoded(instance(PatientID=text, SpecificCharacterSet="ISO_IR 192")))
    assert found.patient.patient_id == text
    assert json.loads(found.attributes)["PatientID"] == text


def test_hundreds_of_thousands_of_elements_are_read(tmp_path: Path) -> None:
    tags = b"".join(
        struct.pack("<HH", 0x0009 + 2 * (at >> 15), 0x1000 + (at & 0x7FFF)) + b"SH\2\0ab"
        for at in range(100_000)
    )
    assert len(attributes(raw.part10(tags + explicit()))) > 100_000


def test_encapsulated_pixels_tell_their_size() -> None:
    ds = Dataset()
    ds.update(instance())
    content = raw.part10(
        explicit() + el(0x7FE00010, b"OB", length=raw.UNDEFINED) + item() + item(b"\xff\xd8" * 9)
        + raw.SEQUENCE_END,
        raw.JPEG,
    )  # fmt: skip
    found = read(content)
    assert found.has_pixels
    assert json.loads(found.attributes)["PixelData"] == {"bytes": 18}


def test_a_stored_object_is_read_by_the_same_road(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(encoded(instance()))
    assert header.read_header(str(path)) == read(path.read_bytes())


def test_a_number_written_as_unknown_is_read_as_the_dictionary_says() -> None:
    content = raw.part10(
        raw.explicit()
        + el(0x00200011, b"UN", b"1 ")
        + el(0x00280010, b"UN", (16).to_bytes(2, "little"))
    )
    found = read(content)
    assert found.series.series_number == 1
    assert found.image.rows == 16
