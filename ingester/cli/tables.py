"""Tables as text, fitted to the width there is; nothing of a cell is ever left out.

    for line in fitted(["date", "name"], rows, width=80): ...

Where a table is too wide its widest texts are folded, by words where that goes.  Where
even that leaves no room, each row becomes a list of its own (`records`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len

_GAP = "  "
_NARROWEST = 12
_COPIED = frozenset({"id", "ID", "study", "series", "SOP instance"})


def fitted(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    width: int | None = None,
) -> list[str]:
    """Return the lines of a table; it is wider than *width* where it cannot be folded so far.

    Parameters
    ----------
    rows : cells as text that a terminal may show
    numbers : columns that are set to the right and never folded
    width : of the terminal, in columns; None is as wide as needed
    """
    right = frozenset(numbers)
    widths = _widths(headings, rows, right, width)
    lines = [_line(headings, widths, right), _GAP.join("─" * each for each in widths)]
    for row in rows:
        lines += _folded(row, widths, right)
    return lines


def fits(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    width: int | None = None,
) -> bool:
    """Tell whether a table can be folded to *width*."""
    if width is None:
        return True
    widths = _widths(headings, rows, frozenset(numbers), width)
    return sum(widths) + len(_GAP) * (len(widths) - 1) <= width


def records(
    headings: Sequence[str], rows: Iterable[Iterable[str]], *, width: int | None = None
) -> Iterator[str]:
    """Yield each row as a list of its own: a heading and its value on a line."""
    longest = max(map(cell_len, headings), default=0)
    for number, row in enumerate(rows, start=1):
        yield f"─ row {number} ".ljust(min(width or 40, 40), "─")
        for heading, cell in zip(headings, row, strict=True):
            room = max(_NARROWEST, width - longest - len(_GAP)) if width is not None else None
            first, *rest = wrapped(cell, room) if room else [cell]
            yield f"{_padded(heading, longest)}{_GAP}{first}".rstrip()
            for more in rest:
                yield f"{' ' * longest}{_GAP}{more}"


def wrapped(text: str, width: int) -> list[str]:
    """Fold a text into lines of at most *width* columns, at spaces where there are some."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *whole, line = _cut(word, width)
        lines += whole
    return [*lines, line]


def shortened(text: str, width: int) -> str:
    """Return a text of at most *width* columns; what is cut off shows as "…"."""
    if cell_len(text) <= width:
        return text
    first = _cut(text, width - 1)[0]
    return f"{first if cell_len(first) < width else ''}…"


def _cut(word: str, width: int) -> list[str]:
    parts, part, taken = [], "", 0
    for character in word:
        wide = cell_len(character)
        if taken + wide > width and part:
            parts.append(part)
            part, taken = "", 0
        part, taken = part + character, taken + wide
    return [*parts, part]


def _widths(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: frozenset[int],
    width: int | None,
) -> list[int]:
    widths = [
        max(map(cell_len, (heading, *(row[position] for row in rows))), default=0)
        for position, heading in enumerate(headings)
    ]
    if width is None:
        return widths
    fixed = {position for position, each in enumerate(headings) if _is_whole(each)}
    return _shrunk(widths, [cell_len(each) for each in headings], numbers | fixed, width)


def _is_whole(heading: str) -> bool:
    """Tell a column that people copy from: folded, its values would be of no use."""
    return heading in _COPIED or heading.lower().endswith(("_uid", "_id", "path", "sha256"))


def _shrunk(
    widths: Sequence[int], least: Sequence[int], fixed: frozenset[int], width: int
) -> list[int]:
    """Take from the widest texts first, until the table fits or nothing can give."""
    shrunk = list(widths)
    too_many = sum(shrunk) + len(_GAP) * (len(shrunk) - 1) - width
    while too_many > 0:
        giving = [
            position
            for position, each in enumerate(shrunk)
            if position not in fixed and each > max(_NARROWEST, least[position])
        ]
        if not giving:
            break
        widest = max(giving, key=shrunk.__getitem__)
        shrunk[widest] -= 1
        too_many -= 1
    return shrunk


def _folded(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> Iterator[str]:
    cells = [wrapped(cell, max(1, width)) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells), default=1)):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        yield _line(parts, widths, right)


def _line(cells: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    parts = [
        _padded(cell, width, is_right=position in right)
        for position, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return _GAP.join(parts).rstrip()


def _padded(text: str, width: int, *, is_right: bool = False) -> str:
    space = " " * (width - cell_len(text))
    return space + text if is_right else text + space
