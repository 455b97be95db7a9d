r"""Lists of what ought to have arrived, line by line: hashes or SOP Instance UIDs.

    d41d…27e  IMAGES/IM1             what `sha256sum` writes, in all its forms
    d41d…27e *IMAGES/IM1             (read as binary)
    \d41d…27e  odd\nname             (a name with a line break or a backslash in it)
    SHA256 (IMAGES/IM1) = d41d…27e   (with --tag, and on the BSDs)
    1.2.840.113619.2.55.3.1          one SOP Instance UID

A list may come from another system: a byte order mark, UTF-16, CRLF, empty lines and
comments (#) are understood.  A line that is none of these is an error with its number,
and then nothing is compared: a list that is read by half would call a batch complete.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingester.errors import IngesterError
from ingester.spool import shown

_HASHED = re.compile(r"(\\?)([0-9A-Fa-f]{64})(?: [ *](.+))?")
_TAGGED = re.compile(r"(\\?)SHA256 \((.+)\) ?= ?([0-9A-Fa-f]{64})")
_UID = re.compile(r"[0-9][0-9.]{0,62}[0-9]|[0-9]")
_OTHER_HASH = re.compile(r"\\?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{96,128})(?: .*)?")
_ESCAPE = re.compile(r"\\([nr\\])")
_ESCAPED = {"n": "\n", "r": "\r", "\\": "\\"}

_HEAD_BYTES = 4096
_LONGEST_LINE = 16_384
_MOST_BAD = 20


@dataclass(frozen=True, slots=True)
class Expected:
    """One thing that ought to have arrived; at least one of its three names is there.

    `position` is the number of its line, or of its directory record.  `name` is its path
    as the list spells it, made printable; `what` says what kind of object it is.
    """

    position: int
    name: str = ""
    sop_instance_uid: str | None = None
    sha256: str | None = None
    what: str = ""


class BadList(IngesterError):
    """A list of what was expected cannot be understood; each bad line is named."""


def read_list(path: Path) -> Iterator[Expected]:
    """Yield what a list names, a line at a time.

    Raises
    ------
    BadList
        At the end, where lines were bad, or nothing was named at all.
    OSError
        The file cannot be read.
    """
    bad: list[str] = []
    count = bad_count = 0
    for number, line in enumerate(_lines(path), start=1):
        text = line.rstrip("\r\n")
        if not text.strip(" \t\0") or text.lstrip().startswith("#"):
            continue
        found = parsed(number, text)
        if isinstance(found, Expected):
            count += 1
            yield found
            continue
        bad_count += 1
        if len(bad) < _MOST_BAD:
            bad.append(f"line {number}: {found}")
    if bad_count:
        more = [f"and {bad_count - len(bad):,} more bad lines"] if bad_count > len(bad) else []
        raise BadList("\n".join([f"{shown(str(path))} cannot be compared with:", *bad, *more]))
    if not count:
        raise BadList(f"{shown(str(path))} names nothing")


def parsed(number: int, text: str) -> Expected | str:
    """Return what a line names, or in words why it names nothing."""
    if len(text) > _LONGEST_LINE:
        return "it is too long for a line of such a list"
    if hashed := _HASHED.fullmatch(text):
        escape, digest, name = hashed.groups()
        return Expected(number, _name(escape, name or ""), sha256=digest.lower())
    if uid := _UID.fullmatch(text.strip(" \t\0")):
        return Expected(number, sop_instance_uid=uid[0])
    if tagged := _TAGGED.fullmatch(text.rstrip()):
        escape, name, digest = tagged.groups()
        return Expected(number, _name(escape, name), sha256=digest.lower())
    if _OTHER_HASH.fullmatch(text) or re.match(r"\\?(MD5|SHA1|SHA512|BLAKE2b) ?\(", text):
        return "this is another checksum than SHA-256: make the list with sha256sum"
    return "it is neither a line of sha256sum nor a SOP Instance UID"


def _name(escape: str, name: str) -> str:
    if escape:
        name = _ESCAPE.sub(lambda match: _ESCAPED[match[1]], name)
    return shown(name)


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    encoding = "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in head:
        raise BadList(
            f"{shown(str(path))} is no list of lines: give a DICOMDIR, the output of sha256sum, "
            "or one SOP Instance UID a line"
        )
    try:
        # Only "\n" ends a line: a name may hold every other character.
        with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as lines:
            while line := lines.readline(_LONGEST_LINE + 2):
                yield line
    except UnicodeError:
        raise BadList(f"{shown(str(path))} begins like UTF-16 text and is none") from None
