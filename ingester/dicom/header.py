"""From a walked file to an `Instance`: safe UIDs, typed columns, the header as JSON.

`instance` takes what the walk found and believes only validated UIDs; everything
else is data.  The JSON text is put together value by value, from memory where the
same value was seen before (most of a series repeats), and pixels are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ingester.dicom import part10
from ingester.dicom.attributes import character_set_of, header_text
from ingester.dicom.columns import (
    has_other_length,
    has_pixels,
    image_of,
    patient_of,
    plain_text,
    series_of,
    study_of,
)
from ingester.dicom.elements import Element, Value
from ingester.dicom.part10 import MEDIA_STORAGE_DIRECTORY, Parsed, Settings
from ingester.dicom.sources import File
from ingester.dicom.uid import UnsafeUid, is_well_formed, validated_uid
from ingester.errors import Reject
from ingester.model import Instance, Reason

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_MEDIA_SOP_CLASS, _MEDIA_SOP_INSTANCE, _SOURCE_AE = 0x00020002, 0x00020003, 0x00020016
_DIRECTORY_RECORDS = 0x00041220

_UID_NAMES = {
    _SOP_CLASS: ("SOP Class UID", Reason.NO_SOP_CLASS_UID),
    _SOP_INSTANCE: ("SOP Instance UID", Reason.NO_SOP_INSTANCE_UID),
    _STUDY: ("Study Instance UID", Reason.NO_STUDY_INSTANCE_UID),
    _SERIES: ("Series Instance UID", Reason.NO_SERIES_INSTANCE_UID),
}

_TOLD_BY = {
    Reason.NO_SOP_CLASS_UID: "what kind of object it is",
    Reason.NO_SOP_INSTANCE_UID: "which object it is",
    Reason.NO_STUDY_INSTANCE_UID: "which study it belongs to",
    Reason.NO_SERIES_INSTANCE_UID: "which series it belongs to",
}


def read_header(
    path: str,
    *,
    character_set: str = "",
    issuer_of_patient_id: str = "",
    settings: Settings = Settings(),  # noqa: B008 (immutable)
) -> Instance:
    """Read an archived object's header, by the road that `prepare` takes.

    Raises
    ------
    Reject
        As `part10.read` and `instance`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        source = File(descriptor, os.fstat(descriptor).st_size)
        return instance(
            part10.read(source, settings),
            character_set=character_set,
            issuer_of_patient_id=issuer_of_patient_id,
        )
    finally:
        os.close(descriptor)


def is_directory(parsed: Parsed) -> bool:
    """Tell whether the file is a DICOMDIR.

    One without File Meta Information is told by its directory records, for only that
    names its class.
    """
    classes = (parsed.meta_value(_MEDIA_SOP_CLASS), _first(parsed.elements, _SOP_CLASS))
    named = [raw.rstrip(b"\0 ") for raw in classes if raw is not None]
    if named:
        return MEDIA_STORAGE_DIRECTORY.encode() in named
    return any(tag == _DIRECTORY_RECORDS for tag, _, _ in parsed.elements)


def instance(
    parsed: Parsed, *, character_set: str = "", issuer_of_patient_id: str = ""
) -> Instance:
    """Return the validated header of a walked file.

    Parameters
    ----------
    character_set : stands in where the file names none
    issuer_of_patient_id : stands in where the file names none

    Raises
    ------
    Reject
        Where an identifying UID is missing, contradictory or unsafe.
    """
    notes = set(parsed.notes)
    root = {tag: (vr, value) for tag, vr, value in reversed(parsed.elements)}
    if len(root) != len(parsed.elements):
        notes.add("duplicate-tags")
        _refuse_contradictions(parsed.elements)
    sop_class, sop_instance, study, series = _identify(parsed, root, notes)
    order = parsed.encoding.order
    context = order + character_set_of(parsed.elements, character_set, notes)
    attributes = header_text(parsed, context, notes)
    if min(root) < 0x00030000:
        is_command = min(root) < 0x00010000
        notes.add("command-group-in-data-set" if is_command else "file-meta-in-data-set")
    image = image_of(root, context)
    if has_other_length(root, image):
        notes.add("pixel-data-length")
    source_ae = parsed.meta_value(_SOURCE_AE)
    return Instance(
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        study_instance_uid=study,
        series_instance_uid=series,
        transfer_syntax_uid=parsed.transfer_syntax_uid,
        patient=patient_of(root, context, issuer_of_patient_id),
        study=study_of(root, context),
        series=series_of(root, context),
        image=image,
        attributes=attributes,
        has_pixels=has_pixels(root),
        source_application_entity_title=plain_text(b"AE", source_ae, "<") if source_ae else None,
        notes=tuple(sorted(notes)),
    )


# -- identity ----------------------------------------------------------------------------


def _first(elements: Iterable[Element], tag: int) -> bytes | None:
    for each, _, value in elements:
        if each == tag:
            return value if type(value) is bytes else None
    return None


def _refuse_contradictions(elements: list[Element]) -> None:
    seen: dict[int, bytes] = {}
    for tag, _, value in elements:
        if tag in _UID_NAMES and type(value) is bytes:
            stripped = value.rstrip(b"\0 ")
            if seen.setdefault(tag, stripped) != stripped:
                raise Reject(
                    Reason.MALFORMED,
                    f"The file gives two different values as its {_UID_NAMES[tag][0]}.",
                )


def _identify(
    parsed: Parsed, root: Mapping[int, tuple[bytes, Value]], notes: set[str]
) -> tuple[str, str, str, str]:
    uids: list[str] = []
    for tag, (name, reason) in _UID_NAMES.items():
        uid = _uid(root.get(tag, (b"", b""))[1], name)
        if uid is None and tag == _SOP_CLASS:
            uid = _uid(parsed.meta_value(_MEDIA_SOP_CLASS), name)
            notes.add("sop-class-from-file-meta")
        if uid is None:
            last = parsed.elements[-1][0] if parsed.elements else 0
            # A file that is still being written may get there.
            raise Reject(
                reason,
                f"The file has no {name}: nothing says {_TOLD_BY[reason]}.",
                may_grow=last < tag,
            )
        if not is_well_formed(uid):
            notes.add("uid-not-well-formed")
        uids.append(uid)
    in_meta = parsed.meta_value(_MEDIA_SOP_INSTANCE)
    class_in_meta = parsed.meta_value(_MEDIA_SOP_CLASS)
    if (in_meta is not None and in_meta.rstrip(b"\0 ") != uids[1].encode()) or (
        class_in_meta is not None and class_in_meta.rstrip(b"\0 ") != uids[0].encode()
    ):
        notes.add("file-meta-uid-differs")
    return uids[0], uids[1], uids[2], uids[3]


def _uid(raw: object, name: str) -> str | None:
    try:
        return validated_uid(raw if isinstance(raw, bytes) else None)
    except UnsafeUid:
        raise Reject(
            Reason.UNSAFE_UID,
            f"The {name} is not a valid identifier: only digits and dots, at most 64, are.",
        ) from None
