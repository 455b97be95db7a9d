"""What is wrong with a configuration, said in plain sentences.

pydantic finds the mistakes; here each becomes one sentence with the file, the
section, the key and what to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_EXPECTED = {
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "string_type": 'write a text in quotes, such as "x"',
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "tuple_type": 'write a list in brackets, such as ["x", "y"]',
    "dict_type": "write a section of its own",
    "model_type": "write a section of its own",
}


def sentences(error: ValidationError, file: Path, root: type[BaseModel]) -> str:
    """Return one sentence for each mistake, each on a line of its own."""
    return "\n".join(_sentence(found, file, root) for found in error.errors(include_url=False))


def _sentence(found: Mapping[str, Any], file: Path, root: type[BaseModel]) -> str:
    place: Sequence[str | int] = found["loc"]
    if found["type"] == "extra_forbidden":
        return f"{file}: {_unknown(place, root)}"
    if found["type"] == "value_error":
        hint = str(found["ctx"]["error"])
    elif found["type"] == "literal_error":
        hint = f"write one of {found['ctx']['expected']}"
    else:
        hint = _EXPECTED.get(found["type"], str(found["msg"]))
    if isinstance(found["input"], dict):
        return f"{file}: [{'.'.join(map(str, place))}]: {hint}"
    if place[-1] == "[key]":
        return f"{file}: [{'.'.join(map(str, place[:-1]))}]: {hint}"
    return f"{file}: {_name(place)} = {found['input']!r} cannot be used: {hint}"


def _name(place: Sequence[str | int]) -> str:
    """Return "[section] key" for a place, positions in lists counted from 1."""
    keys = list(place)
    tail = ""
    if isinstance(keys[-1], int) and len(keys) > 2:
        tail = f" (no. {int(keys.pop()) + 1})"
    if len(keys) == 1:
        return f"[{keys[0]}]{tail}"
    section = ".".join(str(part) for part in keys[:-1] if isinstance(part, str))
    return f"[{section}] {keys[-1]}{tail}"


def _unknown(place: Sequence[str | int], root: type[BaseModel]) -> str:
    name = str(place[-1])
    if len(place) == 1:
        return f"[{name}] is not a section; {_nearest(name, root.model_fields, '[{}]')}"
    section = _model_at(place[:-1], root)
    where = ".".join(str(part) for part in place[:-1] if isinstance(part, str))
    known = section.model_fields if section is not None else {}
    nearest = _nearest(name, known, "{}")
    return f"[{where}] has no key {name}; {nearest}"


def _nearest(name: str, known: Iterable[str], form: str) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {form.format(near[0])}?"
    return "there are " + ", ".join(form.format(other) for other in names)


def _model_at(place: Sequence[str | int], root: type[BaseModel]) -> type[BaseModel] | None:
    """Return the section that the place leads to, through dictionaries and lists."""
    model: type[BaseModel] | None = root
    inner: type[BaseModel] | None = None
    for part in place:
        if inner is not None:  # a name in a dictionary, a position in a list
            model, inner = inner, None
            continue
        field = model.model_fields.get(str(part)) if model is not None else None
        if field is None:
            return None
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
        else:
            inner = next(
                (k for k in get_args(kind) if isinstance(k, type) and issubclass(k, BaseModel)),
                None,
            )
    return model
