"""Text in any character set of the Standard, decoded without ever failing.

Specific Character Set names one set, or several between which escape sequences
switch (ISO 2022).  A byte that cannot be decoded is kept: it becomes a lone surrogate
(U+DC00 and its value), which `shown` replaces by U+FFFD and `written` makes visible
as a backslash, "x" and two digits.

References
----------
PS3.3 §C.12.1.1.2, PS3.5 §6.1.2 (code extensions), Annexes H to K.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

#: What stands where nothing else is said: ASCII, and a guess for the upper half.
DEFAULT = "ascii"

_TERM = re.compile(r"ISO[ _-]*(2022)?[ _-]*(?:IR)?[ _-]*(\d+)")
_OTHER_NAMES = {
    "UTF-8": "utf_8",
    "UTF8": "utf_8",
    "UTF 8": "utf_8",
    "UNICODE": "utf_8",
    "LATIN1": "latin_1",
    "LATIN-1": "latin_1",
    "ASCII": DEFAULT,
    "GB2312": "gb18030",
    "GBK": "gb18030",
    "GB18030": "gb18030",
    "ISO 2022 GBK": "gb18030",
    "SHIFT_JIS": "shift_jis",
}
_SINGLE = {
    "6": DEFAULT,
    "13": "shift_jis",
    "14": "shift_jis",
    "58": "gb2312",
    "87": "iso2022_jp",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "159": "iso2022_jp_2",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
}
_WHOLE = frozenset(("utf_8", "gb18030"))
#: Read without their escape sequence, as many devices write them: what contains them.
_WITHOUT_ESCAPE = {"euc_kr": "cp949", "gb2312": "gbk"}

_KEPT = 0xDC00
_LONE = re.compile("[\udc00-\udcff]")


def _keep(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # nothing is encoded with it
    return _kept(error.object[error.start : error.end]), error.end


def _kept(undecodable: bytes) -> str:
    return "".join(chr(_KEPT + byte) for byte in undecodable)


codecs.register_error("ingester.keep", _keep)

#: Escape sequence → (the half it fills, codec); "pair": the lower half, two bytes a sign.
_ESCAPES: dict[bytes, tuple[str, str]] = {
    b"(B": ("low", DEFAULT),
    b"(J": ("low", DEFAULT),
    b"$B": ("pair", "iso2022_jp"),
    b"$@": ("pair", "iso2022_jp"),
    b"$(D": ("pair", "iso2022_jp_2"),
    b")I": ("high", "shift_jis"),
    b"$)C": ("high", "euc_kr"),
    b"$)A": ("high", "gb2312"),
    b"-A": ("high", "latin_1"),
    b"-B": ("high", "iso8859_2"),
    b"-C": ("high", "iso8859_3"),
    b"-D": ("high", "iso8859_4"),
    b"-F": ("high", "iso8859_7"),
    b"-G": ("high", "iso8859_6"),
    b"-H": ("high", "iso8859_8"),
    b"-L": ("high", "iso8859_5"),
    b"-M": ("high", "iso8859_9"),
    b"-T": ("high", "tis_620"),
    b"-b": ("high", "iso8859_15"),
}
_ESCAPE = re.compile(rb"\x1b(\$\([D]|\$\)[AC]|\$[B@]|[()-][ABCDFGHIJLMTb])")
_DELIMITER = re.compile(rb"[\\\t\n\f\r]")
_NAME_DELIMITER = re.compile(rb"[\\\t\n\f\r^=]")


@lru_cache(maxsize=1024)
def codec(specific_character_set: str) -> tuple[str, bool]:
    """Return (the codec of text before any escape sequence, whether every set is known).

    *specific_character_set* is the value as it stands, several split by backslash.
    """
    sets = _codecs(specific_character_set)
    first = sets[0] or DEFAULT
    # Multi-byte sets are reached by escapes; as the first they stand for ASCII.
    if first.startswith("iso2022") or (len(sets) > 1 and first in _WITHOUT_ESCAPE):
        first = DEFAULT
    if first == DEFAULT:
        # ASCII has no upper half: what is there without an escape is the next set's.
        halves = (each for each in sets if each and not each.startswith("iso2022"))
        first = next((each for each in halves if each != DEFAULT), DEFAULT)
        first = _WITHOUT_ESCAPE.get(first, first)
    return first, None not in sets


@lru_cache(maxsize=1024)
def says_something(specific_character_set: str) -> bool:
    """Tell whether a set is named that is known and goes beyond ASCII."""
    return any(each not in (None, DEFAULT) for each in _codecs(specific_character_set))


def _codecs(specific_character_set: str) -> list[str | None]:
    return [_codec(each.strip(" \0").upper()) for each in specific_character_set.split("\\")]


def _codec(term: str) -> str | None:
    if not term:
        return DEFAULT
    if term in _OTHER_NAMES:
        return _OTHER_NAMES[term]
    found = _TERM.fullmatch(term)
    return _SINGLE.get(found[2]) if found else None


def decode(value: bytes, first: str, *, is_name: bool = False) -> tuple[str, bool]:
    """Return (text, whether every byte could be read) of a whole value.

    Raises nothing: a byte that cannot be decoded is kept as a lone surrogate.
    """
    if b"\x1b" in value and first not in _WHOLE:
        return _decode_extended(value, first, _NAME_DELIMITER if is_name else _DELIMITER)
    return _decode_run(value, first)


def shown(text: str) -> str:
    """Return decoded text for people: U+FFFD stands for what could not be decoded."""
    return _LONE.sub("\N{REPLACEMENT CHARACTER}", text)


def written(text: str) -> str:
    """Return decoded text, what could not be decoded as a backslash, "x", two digits."""
    return _LONE.sub(lambda found: f"\\x{ord(found[0]) - _KEPT:02X}", text)


def _decode_run(run: bytes, name: str) -> tuple[str, bool]:
    if name == DEFAULT:
        return _decode_default(run)
    try:
        return run.decode(name), True
    except UnicodeDecodeError:
        return run.decode(name, "ingester.keep"), False


def _decode_default(run: bytes) -> tuple[str, bool]:
    if run.isascii():
        return run.decode("ascii"), True
    # No set was named, yet there are bytes beyond ASCII: nowadays UTF-8, else Latin-1.
    try:
        return run.decode("utf_8"), False
    except UnicodeDecodeError:
        return run.decode("latin_1"), False


def _decode_extended(value: bytes, first: str, delimiter: re.Pattern[bytes]) -> tuple[str, bool]:
    text: list[str] = []
    is_whole = True
    pair, high = "", first
    pos = 0
    while pos < len(value):
        escape = _ESCAPE.search(value, pos)
        run = value[pos : escape.start() if escape else len(value)]
        at = 0
        if pair:
            piece, is_good, at = _decode_pairs(run, pair)
            text.append(piece)
            is_whole &= is_good
        while at < len(run):
            # Behind a delimiter the first set holds again (PS3.5 §6.1.2.5.3).  Writers
            # that do not say a set again behind one are forgiven where the first set
            # has no upper half of its own.
            end = delimiter.search(run, at) if high != first and first != DEFAULT else None
            upto = end.end() if end else len(run)
            piece, is_good = _decode_run(run[at:upto], high)
            text.append(piece)
            is_whole &= is_good
            at = upto
            if end:
                high = first
        if escape is None:
            break
        half, name = _ESCAPES[escape[1]]
        pair = name if half == "pair" else "" if half == "low" else pair
        high = name if half == "high" else high
        pos = escape.end()
    result = "".join(text)
    return result, is_whole and "\x1b" not in result


def _decode_pairs(run: bytes, name: str) -> tuple[str, bool, int]:
    # Two bytes a sign, until a control character (a line ends the set) or the run does.
    end = next((at for at, byte in enumerate(run) if byte < 0x21 or byte > 0x7E), len(run))
    try:
        return _pairs(run[:end], name), True, end
    except UnicodeDecodeError:
        signs = [run[at : at + 2] for at in range(0, end, 2)]
        return "".join(_pair_or_kept(sign, name) for sign in signs), False, end


def _pairs(signs: bytes, name: str) -> str:
    escape = b"\x1b$(D" if name == "iso2022_jp_2" else b"\x1b$B"
    return (escape + signs + b"\x1b(B").decode(name)


def _pair_or_kept(sign: bytes, name: str) -> str:
    try:
        return _pairs(sign, name)
    except UnicodeDecodeError:
        return _kept(sign)
