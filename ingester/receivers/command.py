"""DIMSE command sets: group 0000 in implicit little endian, nothing else.

A command is a handful of short elements (PS3.7 section 6.3, annex E), so they are
read into a dictionary by element number and written from one; no data dictionary,
no VR objects, 20 microseconds instead of a millisecond.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from ingester.receivers.upper_layer import ProtocolError

AFFECTED_SOP_CLASS_UID: Final = 0x0002
REQUESTED_SOP_CLASS_UID: Final = 0x0003
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_RESPONDED_TO: Final = 0x0120
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
ERROR_COMMENT: Final = 0x0902
AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
REQUESTED_SOP_INSTANCE_UID: Final = 0x1001
ACTION_TYPE_ID: Final = 0x1008

C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
N_ACTION_RQ: Final = 0x0130
C_CANCEL_RQ: Final = 0x0FFF
RESPONSE: Final = 0x8000

NO_DATA_SET: Final = 0x0101

#: No command comes near this; a longer one is an attack.
MAX_COMMAND_BYTES = 65536

_SHORTS = frozenset(
    {COMMAND_FIELD, MESSAGE_ID, MESSAGE_ID_RESPONDED_TO, DATA_SET_TYPE, STATUS, ACTION_TYPE_ID}
)


class Command:
    """A command set by element number: numbers as int, UIDs and texts as str."""

    __slots__ = ("values",)

    def __init__(self, values: Mapping[int, int | str]) -> None:
        self.values = dict(values)

    def number(self, element: int) -> int:
        """Return a number that must be there.

        Raises
        ------
        ProtocolError : it is not
        """
        value = self.values.get(element)
        if not isinstance(value, int):
            raise ProtocolError(f"command without (0000,{element:04X})")
        return value

    def text(self, element: int) -> str:
        """Return a text, "" where it is absent."""
        value = self.values.get(element, "")
        return value if isinstance(value, str) else ""

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows."""
        return self.number(DATA_SET_TYPE) != NO_DATA_SET


def decode(raw: bytes) -> Command:
    """Read a command set.

    Raises
    ------
    ProtocolError : it is not one
    """
    values: dict[int, int | str] = {}
    at = 0
    while at < len(raw):
        if len(raw) - at < 8:
            raise ProtocolError("command set cut short")
        group, element, length = struct.unpack_from("<HHL", raw, at)
        at += 8
        if group != 0 or length > len(raw) - at:
            raise ProtocolError("command set malformed")
        value = raw[at : at + length]
        at += length
        if element in _SHORTS:
            if length != 2:
                raise ProtocolError("command set malformed")
            values[element] = int.from_bytes(value, "little")
        else:
            values[element] = value.decode("latin-1").rstrip("\0 ")
    return Command(values)


def encode(values: Mapping[int, int | str]) -> bytes:
    """Write a command set, group length first."""
    body = b"".join(_element(element, values[element]) for element in sorted(values))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _element(element: int, value: int | str) -> bytes:
    if isinstance(value, int):
        return struct.pack("<HHLH", 0, element, 2, value)
    raw = value.encode("latin-1", "replace")
    if len(raw) % 2:
        raw += b" " if element == ERROR_COMMENT else b"\0"
    return struct.pack("<HHL", 0, element, len(raw)) + raw


def response(request: Command, status: int, comment: str = "") -> bytes:
    """Write the response to *request*, with its UIDs and *status*.

    *comment* is the Error Comment (0000,0902): at most 64 characters, for people.
    """
    values: dict[int, int | str] = {
        COMMAND_FIELD: request.number(COMMAND_FIELD) | RESPONSE,
        MESSAGE_ID_RESPONDED_TO: request.number(MESSAGE_ID),
        DATA_SET_TYPE: NO_DATA_SET,
        STATUS: status,
    }
    echoes = {
        AFFECTED_SOP_CLASS_UID: (AFFECTED_SOP_CLASS_UID, REQUESTED_SOP_CLASS_UID),
        AFFECTED_SOP_INSTANCE_UID: (AFFECTED_SOP_INSTANCE_UID, REQUESTED_SOP_INSTANCE_UID),
    }
    for element, sources in echoes.items():
        uid = next((request.text(source) for source in sources if request.text(source)), "")
        if uid and len(uid) <= 64:
            values[element] = uid
    if comment:
        values[ERROR_COMMENT] = comment[:64]
    return encode(values)
