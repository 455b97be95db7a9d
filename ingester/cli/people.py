"""Names of people as people write them."""

from __future__ import annotations


def readable(name: str | None) -> str:
    """Return a person's name for reading: "Müller, Dr. Anna Maria", "Yamada, Tarou (山田 太郎)".

    A value of VR PN is up to three groups (alphabetic, ideographic, phonetic), parted by
    "=", each of family name, given name, middle name, prefix and suffix, parted by "^"
    (PS3.5 §6.2). The phonetic group is for sorting and is left out.
    """
    alphabetic, ideographic, *_ = [*(name or "").split("="), ""]
    spoken, written = _alphabetic(alphabetic), " ".join(_parts(ideographic))
    if spoken and written:
        return f"{spoken} ({written})"
    return spoken or written or (name or "").strip("^= ")


def _parts(group: str) -> list[str]:
    return [part for part in (each.strip() for each in group.split("^")) if part]


def _alphabetic(group: str) -> str:
    family, given, middle, prefix, suffix, *more = [*group.split("^"), "", "", "", "", ""]
    parts = (each.strip() for each in (prefix, given, middle, suffix, *more))
    rest = " ".join(part for part in parts if part)
    return ", ".join(part for part in (family.strip(), rest) if part)
