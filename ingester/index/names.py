"""How names of people are compared, searched and told apart.

Identity asks "is this the same name?" and forgives case and padding; a search asks
"does this sound like it?" and forgives accents and scripts: every component group
(alphabetic, ideographic, phonetic) is folded to lower-case ASCII.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from anyascii import anyascii

# What German, Danish and Swedish typists write where the keyboard lacks the letter.
_DIGRAPHS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "æ": "ae"})


@lru_cache(maxsize=4096)
def normalised(name: str | None) -> str:
    """Return what two spellings of one name (PN) share: "" where there is none.

    Case, spaces around components, trailing `^` and `=` do not count.
    """
    if not name:
        return ""
    groups = []
    for group in unicodedata.normalize("NFC", name).split("="):
        components = [" ".join(component.split()) for component in group.split("^")]
        groups.append("^".join(components).rstrip("^ "))
    return "=".join(groups).rstrip("=").upper()


@lru_cache(maxsize=4096)
def folded(text: str | None) -> str:
    """Return *text* as lower-case ASCII words, each component a word of its own."""
    if not text:
        return ""
    words = anyascii(text.replace("^", " ").replace("=", " ")).lower().split()
    # Soft signs and the like come out as quotes that nobody types in a search.
    return " ".join(word.replace("`", "'") for word in words)


def spellings(word: str) -> tuple[str, ...]:
    """Return the folded forms under which *word* may stand in the index.

    "Müller" is found as "muller" and as "mueller", and "mueller" finds "Müller".
    """
    lower = unicodedata.normalize("NFC", word).lower()
    plain = folded(lower)
    shortened = plain.replace("ue", "u").replace("oe", "o").replace("ae", "a")
    candidates = (plain, folded(lower.translate(_DIGRAPHS)), shortened)
    return tuple(dict.fromkeys(each for each in candidates if each))
