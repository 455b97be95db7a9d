"""`ingester find`: which studies somebody means who types a few words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import click

from ingester.cli import screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.people import readable
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.index.asked import meant, words_of_names
from ingester.index.readers import Reader, Row

_NOTHING = 1
_PAGE = 100
#: A terminal of so many columns has room for the UID beside all else.
_WIDE = 150
_LEAST_ALIKE = 0.7
#: What stands between words; names are shown as "Yamada, Tarou (山田 太郎)".
_BETWEEN = re.compile(r"[\s,;()]+")
_LIKE_A_UID = re.compile(r"[0-9]+(\.[0-9]+)+\.?", re.ASCII)
_MOST_ALIKE = 3
_HEADINGS = ("date", "name", "ID", "born", "modalities", "images", "description")


@click.command(
    epilog=example(
        "ingester find meyer",
        "ingester find 2024-03 MR knee",
        "ingester find --json A1234",
        "ingester find CT --limit 1000",
    )
)
@click.argument("text", nargs=-1, required=True)
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), help="Show so many studies, not 100."
)
@click.option("--all", "everything", is_flag=True, help="Show all studies that are found.")
@as_json
@pass_site
def find(
    site: Site, text: tuple[str, ...], limit: int | None, everything: bool, as_json: bool
) -> None:
    """Find studies by name, ID, accession number, description, date or modality.

    Every word must match; names match in any script and without accents, dates also by
    their beginning (2024, 2024-03). The latest 100 are shown, as JSON all of them. What
    is known of one of them: `ingester show` and its UID. Exits with 1 where nothing
    matches.
    """
    if limit is not None and everything:
        raise click.UsageError("choose --limit or --all, not both")
    words = [word for word in _BETWEEN.split(" ".join(text)) if word]
    most = -1 if everything or (as_json and limit is None) else limit or _PAGE
    with open_index(site.settings) as index:
        found = index.find(words, most)
        total = index.count_found(words) if len(found) == most else len(found)
        hints = [] if found else list(_hints(index, words))
    if as_json:
        screen.answer_json(found)
    elif found:
        _print(found)
        if total > len(found):
            screen.say(
                f"and {total - len(found):,} more; another word narrows it, "
                "--all or --limit N shows them"
            )
    if not found:
        for hint in hints:
            screen.say(screen.printable(hint))
        click.get_current_context().exit(_NOTHING)


# -- studies on the screen ---------------------------------------------------------------


def _print(studies: Sequence[Row]) -> None:
    width = screen.width_of()
    if width is None or width >= _WIDE:
        screen.table(
            [*_HEADINGS, "study"],
            [[*_cells(each), each["study_instance_uid"]] for each in studies],
        )
        return
    for study in studies:
        for line in _two_lines(study, width):
            screen.answer(line)


def _cells(study: Row) -> list[screen.Cell]:
    return [
        study["study_date"],
        readable(study["patient_name"]),
        study["patient_id"],
        study["patient_birth_date"],
        study["modalities"],
        study["instance_count"],
        study["study_description"],
    ]


def _two_lines(study: Row, width: int) -> Iterable[str]:
    """Yield a study for a narrow terminal: who and when, then what; the UID stays whole."""
    from ingester.cli.tables import shortened  # rich takes its time

    date, name, patient_id, born, modalities, count, description = map(
        screen.printable, _cells(study)
    )
    who = "  ".join(part for part in (name or "(no name)", patient_id, born) if part)
    images = screen.plural(int(count), "image")
    what = "  ".join(part for part in (modalities, images, description) if part)
    yield shortened(f"{date or '(no date)':<12}{who}", width)
    yield shortened(f"{'':<12}{what}", width)
    yield f"{'':<12}{screen.printable(study['study_instance_uid'])}"


# -- where nothing is found --------------------------------------------------------------


def _hints(index: Reader, words: Sequence[str]) -> Iterable[str]:
    """Yield what may help somebody who found nothing."""
    if index.count_found([]) == 0:
        yield "nothing found: the index is empty, nothing has been archived yet"
        return
    yield "nothing found"
    for word in dict.fromkeys(words):
        if _LIKE_A_UID.fullmatch(word) and meant(index, word, 1):
            yield f"but there is a UID that is this or begins so; see: ingester show {word}"
            return
    counts = {word: index.count_found([word]) for word in dict.fromkeys(words)}
    if len(counts) > 1:
        alone = ", ".join(f"{word}: {count:,}" for word, count in counts.items())
        yield f"every word must match; studies that match one of them: {alone}"
    for word, count in counts.items():
        alike = _alike(word, index) if count == 0 else []
        if alike:
            yield f"names like {word}: {', '.join(alike)}"


def _alike(word: str, index: Reader) -> list[str]:
    """Return words of patients' names that are written much like *word*."""
    return difflib.get_close_matches(
        word.lower(), words_of_names(index), n=_MOST_ALIKE, cutoff=_LEAST_ALIKE
    )
