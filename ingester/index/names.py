"""How names of people are compared, searched and told apart.

Identity asks "is this the same name?" and forgives case and padding; a search asks
"does this sound like it?" and forgives accents and scripts: every component group
(alphabetic, ideographic, phonetic) is folded to lower-case ASCII.  Where folding says
too little (many a Chinese character is read "li", as half of "Oliver" is), a search
compares the signs themselves.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from anyascii import anyascii

# What typists write where the keyboard lacks the letter, and what it is folded to.
_DIGRAPHS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_SHORTENED = (("ae", "a"), ("oe", "o"), ("ue", "u"), ("aa", "a"), ("yo", "e"))
#: A GLOB pattern for names that have such a letter (or its dots, set apart).
HAS_DIGRAPH = "*[äöüøåëÄÖÜØÅёЁ\u0308\u030a]*"
#: What stands for bytes that could not be decoded.
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
#: What stands between the words of a name, as written or as typed.
_BETWEEN = re.compile(r"[\s^=]+")
#: Letters that have capitals and accents: Latin, Greek, Cyrillic.
_LETTERS = re.compile("[\x00-\u052f\u1e00-\u1fff]*")
_KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f]")
#: Signs that mean more than their reading: Chinese characters, Korean syllables.
_SIGNS = re.compile("[\u1100-\u11ff\u3005\u3007\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
                    "\U00020000-\U0003ffff]")  # fmt: skip


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


def says_more(name: str, other: str) -> bool:
    """Tell whether a normalised *name* has all component groups of *other*, and more."""
    groups, others = _groups(name, other)
    return groups != others and all(
        not theirs or group == theirs for group, theirs in zip(groups, others, strict=True)
    )


def is_another(name: str, other: str) -> bool:
    """Tell whether two normalised names cannot be one person's, spelt in two ways.

    Groups and components that one of them leaves out, accents, width, and `ue` for `ü`
    make no other name, nor does `^` where the other has a space.  What could not be
    decoded says nothing.
    """
    return any(
        _is_another_group(group, theirs)
        for group, theirs in zip(*_groups(name, other), strict=True)
    )


def _groups(name: str, other: str) -> tuple[list[str], list[str]]:
    one, two = name.split("="), other.split("=")
    longest = max(len(one), len(two))
    return one + [""] * (longest - len(one)), two + [""] * (longest - len(two))


def _is_another_group(group: str, other: str) -> bool:
    if not group or not other or group == other or UNREADABLE in group + other:
        return False
    pairs = zip(group.split("^"), other.split("^"), strict=False)
    if all(not one or not two or _spelt(one) & _spelt(two) for one, two in pairs):
        return False
    words, other_words = words_of(group), words_of(other)
    return len(words) != len(other_words) or not all(
        _spelt(one) & _spelt(two) for one, two in zip(words, other_words, strict=True)
    )


@lru_cache(maxsize=4096)
def _spelt(text: str) -> frozenset[str]:
    """Return the ways in which the same *text* may be spelt."""
    if _LETTERS.fullmatch(text):
        return frozenset((folded(text), folded(text.lower().translate(_DIGRAPHS))))
    plain = unicodedata.normalize("NFKC", text).casefold()
    if _KANA.search(plain):
        return frozenset((plain,))
    marks = unicodedata.normalize("NFKD", plain)
    return frozenset(("".join(each for each in marks if unicodedata.category(each) != "Mn"),))


@lru_cache(maxsize=4096)
def folded(text: str | None) -> str:
    """Return *text* as lower-case ASCII words, each component a word of its own."""
    if not text:
        return ""
    plain = unicodedata.normalize("NFKC", text.replace("^", " ").replace("=", " "))
    if not plain.isascii():
        plain = "".join(_ascii(character) for character in plain)
    return " ".join(plain.lower().replace("`", "'").split())


def _ascii(character: str) -> str:
    plain: str = anyascii(character)
    # Soft signs and the like come out as quotes that nobody types in a search.
    return plain.replace("'", "").replace("`", "") if character.isalpha() else plain


def words_of(text: str) -> list[str]:
    """Return the words that somebody typed, a name's components among them."""
    return [word for word in _BETWEEN.split(text) if word]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for in names; any one of the forms will do.

    `folded` stand in the folded name, `joined` in the folded name without spaces, and
    `signs` in the normalised name without `^` and spaces.  `shortened` stands in the
    folded name of those who `HAS_DIGRAPH` finds, lest "maeda" should find every Yamada.
    """

    folded: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    shortened: str | None = None


@lru_cache(maxsize=1024)
def wanted(word: str) -> Wanted:
    """Return the forms under which a typed *word* may stand in the index.

    "Müller" is found as "muller" and as "mueller", and "mueller" finds "Müller".  Words
    that no one puts spaces between (やまだたろう) find a name that has them.
    """
    composed = unicodedata.normalize("NFC", word)
    compatible = unicodedata.normalize("NFKC", word)
    if _SIGNS.search(compatible):
        return Wanted(signs=_distinct(composed.upper(), compatible.upper()))
    lower = compatible.lower()
    plain = folded(lower)
    if not lower.isascii():
        return Wanted(joined=_distinct(plain, folded(lower.translate(_DIGRAPHS))))
    shortened = plain
    for long, short in _SHORTENED:
        shortened = shortened.replace(long, short)
    return Wanted(folded=_distinct(plain), shortened=shortened if shortened != plain else None)


def _distinct(*forms: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form for form in forms if form))
