"""How the values of `ingest.toml` are written: durations, sizes, shares, names.

Each parser takes what TOML gave and returns what the program computes with
(seconds, bytes, a `FreeSpace`), or raises `ValueError` with a sentence that says
what to write instead.  Nothing here knows a section or a key.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from ingester.errors import Fatal

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)\s*", re.IGNORECASE)
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")

_SOURCE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_NOT_A_SOURCE = ("index.db", "index-snapshot.db", "quarantine")

#: Specific Character Set's defined terms (PS3.3 C.12.1.1.2).
_CHARACTER_SETS = frozenset(
    ["", "GB18030", "GBK"]
    + [f"ISO_IR {n}" for n in (6, 13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192, 203)]
    + [
        f"ISO 2022 IR {n}"
        for n in (6, 13, 58, 87, 100, 101, 109, 110, 126, 127, 138, 144, 148, 149, 159, 166, 203)
    ]
)


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """How much of a disk must stay free: a number of bytes, or a share of all."""

    size_bytes: int = 0
    share: float = 0.0

    def of(self, total_bytes: int) -> int:
        """Return the bytes that must stay free on a disk of *total_bytes*."""
        return max(self.size_bytes, int(self.share * total_bytes))


def duration(raw: Any) -> float:
    """Read a duration such as "10s", "2m" or "1.5h" as seconds."""
    match = _DURATION.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError('write a duration with its unit, such as "500ms", "10s", "2m" or "1h"')
    return float(match[1]) * _SECONDS[match[2]]


def duration_or_never(raw: Any) -> float | None:
    """Read a duration, or "" as never (None)."""
    return None if raw == "" else duration(raw)


def size(raw: Any) -> int:
    """Read a size such as "2 GiB" or "500 MB" as bytes."""
    match = _SIZE.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError('write a size with its unit, such as "16 MiB" or "2 GiB"')
    return int(float(match[1]) * _BYTES[match[2].lower()])


def free_space(raw: Any) -> FreeSpace:
    """Read a size, or a share such as "5 %"."""
    if isinstance(raw, FreeSpace):
        return raw
    match = _SHARE.fullmatch(raw) if isinstance(raw, str) else None
    if match is not None:
        if float(match[1]) >= 100:
            raise ValueError("a share of 100 % would never let a file in; write less")
        return FreeSpace(share=float(match[1]) / 100)
    try:
        return FreeSpace(size_bytes=size(raw))
    except ValueError:
        raise ValueError('write a size or a share, such as "2 GiB" or "5 %"') from None


def mode(raw: Any) -> int:
    """Check a folder's mode: an octal number that lets the owner in."""
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError("write an octal number, such as 0o2770")
    if raw & 0o700 != 0o700 or raw & ~0o3777:
        raise ValueError(f"{raw} is {raw:#o} in octal; write it as an octal number, such as 0o2770")
    if raw & 0o002:
        raise ValueError(f"{raw:#o} would let everybody write; take the last 2 away")
    return raw


def source(raw: Any) -> str:
    """Check a source's name: it becomes a folder in the spool and in the archive."""
    if not isinstance(raw, str) or _SOURCE.fullmatch(raw) is None:
        raise ValueError(
            "a source's name becomes a folder: write 1 to 64 letters, digits, "
            "`.`, `_` or `-`, without a dot first"
        )
    if raw.startswith(_NOT_A_SOURCE):
        raise ValueError("this name is one of our own files' or folders'; take another")
    return raw


def optional_source(raw: Any) -> str:
    """Check a source's name; "" stays empty."""
    return "" if raw == "" else source(raw)


def ae_title(raw: Any) -> str:
    """Check an AE title: 1 to 16 printable ASCII characters, no backslash (PS3.5 6.2)."""
    if (
        not isinstance(raw, str)
        or not 1 <= len(raw.strip()) <= 16
        or re.fullmatch(r"[\x20-\x5b\x5d-\x7e]+", raw) is None
    ):
        raise ValueError("write an AE title: 1 to 16 ASCII characters, no backslash")
    return raw.strip()


def optional_ae_title(raw: Any) -> str:
    """Check an AE title; "" stays empty."""
    return "" if raw == "" else ae_title(raw)


def character_set(raw: Any) -> str:
    """Check a Specific Character Set: its defined terms, joined by a backslash."""
    if not isinstance(raw, str) or any(t.strip() not in _CHARACTER_SETS for t in raw.split("\\")):
        raise ValueError(
            'write a Specific Character Set as in (0008,0005), such as "ISO_IR 100" or "ISO_IR 192"'
        )
    return raw


def column_keyword(raw: Any) -> str:
    """Check the keyword of an attribute that shall have a column of its own."""
    from ingester.keywords import column  # needs the dictionary, which nobody else here does

    if not isinstance(raw, str):
        raise ValueError('write a DICOM keyword, such as "SliceThickness"')
    try:
        return column(raw).keyword
    except Fatal as error:
        raise ValueError(str(error)) from None


def allowed(raw: Any) -> str:
    """Check one entry of `allow`: AE, ADDRESS/BITS, AE@ADDRESS/BITS or tls:SUBJECT.

    A bare address is refused: it would read as an AE title that nobody has.
    """
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("write AE, ADDRESS/BITS, AE@ADDRESS/BITS or tls:SUBJECT")
    text = raw.strip()
    if text.startswith("tls:"):
        if not text[4:].strip():
            raise ValueError('write the subject after "tls:"')
        return text
    title, at, address = text.rpartition("@")
    if at:
        ae_title(title)
    elif "/" in text or _is_address(text):
        address = text
    else:
        return ae_title(text)
    if "/" not in address:
        raise ValueError(f'write how many bits of the address count, such as "{address}/32"')
    try:
        ipaddress.ip_network(address, strict=False)
    except ValueError:
        raise ValueError(
            f'"{address}" is not a network; write for example "192.168.10.0/24"'
        ) from None
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def port(raw: Any) -> int:
    """Check a TCP port; 0 lets the operating system choose one."""
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= 65535:
        raise ValueError("write a port: a number from 1 to 65535 (0 = any free one)")
    return raw


def positive(raw: Any) -> int:
    """Check a count of at least one."""
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 1:
        raise ValueError("write a whole number of at least 1")
    return raw


def count(raw: Any) -> int:
    """Check a count of nought or more."""
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 0:
        raise ValueError("write a whole number, 0 or more")
    return raw


def path(raw: Any, given: ValidationInfo) -> Path:
    """Read a path; a relative one is below the configuration file's folder."""
    if not isinstance(raw, (str, Path)) or not str(raw) or "\0" in str(raw):
        raise ValueError("write a path; a relative one is below this file's folder")
    base = (given.context or {}).get("base", Path())
    return Path(os.path.normpath(base / Path(raw).expanduser()))


def optional_path(raw: Any, given: ValidationInfo) -> Path | None:
    """Read a path, or "" as none."""
    return None if raw == "" else path(raw, given)


_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("study_instance_uid", "folder", "source", "batch")


def argument(raw: Any) -> str:
    """Check one argument of a hook: only the placeholders that exist."""
    if not isinstance(raw, str):
        raise ValueError('write the program and its arguments as a list: ["/usr/bin/notify", "x"]')
    for name in _PLACEHOLDER.findall(raw):
        if name not in _PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS)
            raise ValueError(f"{{{name}}} is not a placeholder; there are {known}")
    return raw


Duration = Annotated[float, BeforeValidator(duration)]
DurationOrNever = Annotated[float | None, BeforeValidator(duration_or_never)]
Size = Annotated[int, BeforeValidator(size)]
MinFree = Annotated[FreeSpace, BeforeValidator(free_space)]
Mode = Annotated[int, BeforeValidator(mode)]
SourceName = Annotated[str, BeforeValidator(source)]
OptionalSourceName = Annotated[str, BeforeValidator(optional_source)]
AeTitle = Annotated[str, BeforeValidator(ae_title)]
OptionalAeTitle = Annotated[str, BeforeValidator(optional_ae_title)]
CharacterSet = Annotated[str, BeforeValidator(character_set)]
ColumnKeyword = Annotated[str, BeforeValidator(column_keyword)]
Allowed = Annotated[str, BeforeValidator(allowed)]
FilePath = Annotated[Path, BeforeValidator(path)]
OptionalPath = Annotated[Path | None, BeforeValidator(optional_path)]
Port = Annotated[int, BeforeValidator(port)]
Positive = Annotated[int, BeforeValidator(positive)]
Count = Annotated[int, BeforeValidator(count)]
Argument = Annotated[str, BeforeValidator(argument)]
