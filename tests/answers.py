"""What any bytes must have: an answer.  For properties and for the fuzzer."""

from __future__ import annotations

import json

from ingester.dicom import header, part10
from ingester.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    Bulk,
    Limits,
    Sequence,
)
from ingester.dicom.part10 import Settings
from ingester.dicom.sources import Memory
from ingester.dicom.uid import validated_uid
from ingester.dicom.walk import Walker
from ingester.errors import Reject
from ingester.model import Instance, Reason
from tests.factory import encoded, instance
from tests.unit.dicom import raw
from tests.unit.dicom.raw import el, explicit, implicit, item

LIMITS = Settings(walk=Limits(nesting=16, elements=2000, header_bytes=2**16))

ENCODINGS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, IMPLICIT_BIG)
#: The reasons for which bytes are no data set (PS3.5 §7.1).
STRUCTURAL = {Reason.INCOMPLETE, Reason.MALFORMED, Reason.TOO_DEEP, Reason.TOO_LARGE}

SEEDS = [
    encoded(instance()),
    raw.part10(implicit() + raw.im(0x7FE00010, bytes(300)), raw.IMPLICIT),
    raw.part10(explicit(">") + el(0x7FE00010, b"OW", bytes(300), order=">"), raw.BIG),
    raw.part10(
        explicit()
        + raw.open_sequence(0x00400275, raw.open_item(el(0x00400007, b"LO", b"abcd")), item())
        + el(0x7FE00010, b"OB", length=raw.UNDEFINED)
        + item()
        + item(b"\xff\xd8" * 30)
        + raw.SEQUENCE_END,
        raw.JPEG,
    ),
    explicit() + raw.PIXELS,
]


def answer(content: bytes) -> Instance | Reject:
    """Read as `prepare` does: an instance or why it is none; anything else is a fault."""
    try:
        parsed = part10.read(Memory(content), LIMITS)
        if header.is_directory(parsed):
            return Reject(part10.not_dicom().refusal.reason, "a directory")
        found = header.instance(parsed)
    except Reject as reject:
        return reject
    assert isinstance(json.loads(found.attributes), dict)
    for uid in (found.sop_instance_uid, found.study_instance_uid, found.series_instance_uid):
        assert validated_uid(uid) == uid
    return found


def walked(content: bytes) -> None:
    """Walk a data set; the first byte says in which encoding it is believed to be written."""
    if not content:
        return
    encoding = ENCODINGS[content[0] % len(ENCODINGS)]
    walker = Walker(Memory(content), 1, encoding, LIMITS.walk)
    try:
        waiting = list(walker.walk())
    except Reject as reject:
        if reject.refusal.reason not in STRUCTURAL:
            raise
        return
    while waiting:
        _tag, _vr, value = waiting.pop()
        if isinstance(value, Bulk):
            assert value.offset >= 1
            assert value.offset + value.length <= len(content)
        elif isinstance(value, Sequence):
            waiting.extend(each for nested in value.items for each in nested)
        else:
            assert len(value) <= len(content)
