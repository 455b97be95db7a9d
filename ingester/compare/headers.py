"""The header that the index recorded, where it is all there is of a stored object.

The JSON of `headers.attributes` says everything but long values.  So it can tell that
two objects differ, and in what; that they are the same only where neither holds
anything long.  Pixels that cannot be compared are never taken for the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from ingester.compare.datasets import ASIDE, PIXELS, Path, is_of_the_encoding
from ingester.compare.files import verdict_of
from ingester.compare.values import plain_name
from ingester.dicom.dictionary import AMBIGUOUS, entry, is_creator, tag_of
from ingester.model import Outcome, Verdict

_HEX = re.compile(r"(?:[0-9A-F]{2})+")
_NOT_DECODED = "\ufffd"


@dataclass(frozen=True, slots=True)
class HeaderRequest:
    """The `attributes` of the new and of the stored object, as JSON texts.

    `is_other_syntax`: their transfer syntaxes write pixels differently.
    """

    new: str
    old: str
    is_other_syntax: bool


def compare_headers(request: HeaderRequest) -> Verdict:
    """Say what the headers alone can tell of two versions.

    A conflict that names nothing: nothing differs, but not everything could be compared.
    """
    new, old = json.loads(request.new), json.loads(request.old)
    comparison = _Comparison()
    paths = list(comparison.differences(new, old))
    is_recompressed = request.is_other_syntax and _have_pixels(new, old)
    if is_recompressed:
        paths = [each for each in paths if not _is_of_the_encoding(each, new, old)]
        comparison.unknown -= {(entry(tag).name,) for tag in PIXELS}
    if not paths and comparison.unknown:
        return Verdict(Outcome.CONFLICT, pixels_differ=None)
    return verdict_of(paths, are_pixels_compared=not is_recompressed)


class _Comparison:
    def __init__(self) -> None:
        self.unknown: set[Path] = set()  # what is the same as far as one can see

    def differences(
        self, new: dict[str, Any], old: dict[str, Any], above: Path = ()
    ) -> Iterator[Path]:
        for name in sorted(new.keys() | old.keys(), key=tag_of):
            path, tag = (*above, name), tag_of(name)
            one, other = new.get(name), old.get(name)
            is_writing = tag in ASIDE or not tag & 0xFFFF
            if tag >> 16 == 2 or (is_writing and not (_are_items(one) or _are_items(other))):
                continue
            if is_creator(tag) and one is None and other is None:
                continue
            if name not in new or name not in old:
                yield path
            elif _are_items(one) and _are_items(other) and len(one) == len(other):
                for item, other_item in zip(one, other, strict=True):
                    yield from self.differences(item, other_item, path)
            elif self._differs(path, tag, one, other):
                yield path

    def _differs(self, path: Path, tag: int, one: Any, other: Any) -> bool:
        vr = b"UN" if tag >> 16 & 1 else entry(tag).vr
        if one != other and _are_perhaps_alike(vr, one, other):
            self.unknown.add(path)
            return False
        if vr == b"PN":
            one, other = _names(one), _names(other)
        if one == other and (
            isinstance(one, dict) or _NOT_DECODED in json.dumps(one, ensure_ascii=False)
        ):
            self.unknown.add(path)
        return bool(one != other)


def _have_pixels(new: dict[str, Any], old: dict[str, Any]) -> bool:
    names = [entry(tag).name for tag in PIXELS]
    return any(new.get(name) is not None and old.get(name) is not None for name in names)


def _is_of_the_encoding(path: Path, new: dict[str, Any], old: dict[str, Any]) -> bool:
    one, other = new.get(path[0]), old.get(path[0])
    return len(path) == 1 and is_of_the_encoding(tag_of(path[0]), one, other)


def _are_items(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_hex(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 1
        and isinstance(value[0], str)
        and _HEX.fullmatch(value[0]) is not None
    )


def _are_perhaps_alike(vr: bytes, one: Any, other: Any) -> bool:
    # Where the VR is known to one of the encodings only: as bytes, or of another sign.
    if vr != b"UN" and vr not in AMBIGUOUS:
        return False
    return _is_hex(one) != _is_hex(other) or (vr != b"UN" and _words(one) == _words(other))


def _words(value: Any) -> Any:
    """Return integers as what they are in 16 bits, signed or not."""
    if isinstance(value, list):
        return [_words(each) for each in value]
    return value & 0xFFFF if isinstance(value, int) else value


def _names(value: Any) -> Any:
    if isinstance(value, list):
        return [_names(each) for each in value]
    return plain_name(value) if isinstance(value, str) else value
