"""`ingester show`: all that is known of a study, a series or an instance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ingester.cli import completing, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.people import readable
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.index.asked import Meant, meant
from ingester.index.readers import Reader, Row, Shown

_NOTHING = 1
_LONGEST_VALUE = 200
_MOST_MEANT = 10
_MOST_LISTED = 50
_MOST_PROBLEMS = 20
#: A terminal of so many columns has room for a UID and all else about an instance.
_WIDE = 120


@click.command(
    epilog=example(
        "ingester show 1.2.840.113619.2.55.3",
        "ingester show A1234",
        "ingester show --json 1.2.840.113619.2.55.3 | jq .history",
    )
)
@click.argument("uid", shell_complete=completing.studies)
@click.option("--all", "everything", is_flag=True, help="List all, however many there are.")
@as_json
@pass_site
def show(site: Site, uid: str, everything: bool, as_json: bool) -> None:
    """Show a study, a series or an instance by its UID.

    What it is, where it lies, its thumbnails and videos, its problems with the command
    that settles each, and what arrived when. The beginning of a UID will do where only
    one begins so, and so will an accession number. Exits with 1 where nothing is found,
    or too much.
    """
    with open_index(site.settings) as index:
        found = meant(index, uid, _MOST_MEANT + 1)
        shown = index.show(found[0].uid) if len(found) == 1 else None
        if shown is None and not as_json:
            for line in _unclear(index, uid, found):
                screen.say(screen.printable(line))
    if as_json:
        screen.answer_json(asdict(shown) if shown is not None else None)
        if shown is None:
            screen.say(_many(uid, found) if found else _nothing(uid))
    elif shown is not None:
        _Page(shown, site.settings.archive.path, _MOST_LISTED if not everything else None).print()
    if shown is None:
        click.get_current_context().exit(_NOTHING)


def _nothing(text: str) -> str:
    return (
        f"nothing has the UID or accession number {screen.printable(text)}, and no UID begins so; "
        "try: ingester find"
    )


def _many(text: str, found: Sequence[Meant]) -> str:
    several = f"more than {_MOST_MEANT}" if len(found) > _MOST_MEANT else str(len(found))
    return f"{screen.printable(text)} may mean {several} of them"


def _unclear(index: Reader, text: str, found: Sequence[Meant]) -> Iterator[str]:
    """Yield what is to be said where *text* means nothing, or several things."""
    if not found:
        yield _nothing(text)
        return
    yield f"{_many(text, found)}:"
    for each in found[:_MOST_MEANT]:
        (study,) = index.rows(
            "SELECT study_date, patient_name, modalities FROM study_list"
            " WHERE study_instance_uid = ?",
            (each.study,),
        )
        about = (study["study_date"], readable(study["patient_name"]), study["modalities"])
        yield f"  {each.level} {each.uid}  {'  '.join(part for part in about if part)}"
    if len(found) > _MOST_MEANT:
        yield "  and more"


class _Page:
    """What `show` prints; lists end after so many lines, unless all are asked for."""

    def __init__(self, found: Shown, archive: Path, most: int | None) -> None:
        self._found = found
        self._archive = archive
        self._most = most

    def print(self) -> None:
        """Print all of it."""
        if self._found.level == "instance":
            for version in self._found.instances:
                self._version(version)
        else:
            self._study()
            self._series()
            self._pictures()
        if self._found.level == "series":
            self._instances()
        self._problems()
        self._history()
        self._decisions()

    # -- what it is

    def _study(self) -> None:
        study = self._found.study
        patient = [readable(study["patient_name"]), study["patient_id"]]
        patient += [study["issuer_of_patient_id"], _born(study), study["patient_sex"]]
        count, series = study["instance_count"], study["series_count"]
        what = f"{screen.plural(series, 'series', 'series')}, {screen.plural(count, 'image')}"
        _fields(
            {
                "study": study["study_instance_uid"],
                "patient": _joined(patient),
                "date": _joined([study["study_date"], study["study_time"]]),
                "description": study["study_description"],
                "accession": study["accession_number"],
                "study ID": study["study_id"],
                "referring": readable(study["referring_physician_name"]),
                "institution": study["institution_name"],
                "what": f"{study['modalities'] or ''} {what}, {screen.size(study['size_bytes'])}",
                "archived": _span(study["first_archived_at"], study["last_archived_at"]),
            }
        )
        for folder in (study["folders"] or "").split(","):
            screen.answer(f"{'folder':<12}{screen.printable(self._archive / folder)}")

    def _series(self) -> None:
        counts = Counter(each["series_instance_uid"] for each in self._found.instances)
        width = screen.width_of()
        for series in self._found.series:
            number = "" if series["series_number"] is None else f"{series['series_number']}"
            uid = series["series_instance_uid"]
            parts = [
                series["modality"],
                screen.plural(counts[uid], "image"),
                series["series_description"],
                series["body_part_examined"],
                series["manufacturer_model_name"],
            ]
            screen.answer()
            line = screen.printable(f"series {number:<5}{_joined(parts)}")
            screen.answer(_shortened(line, width))
            screen.answer(f"{'':<12}{screen.printable(uid)}")

    def _pictures(self) -> None:
        thumbnails = sum(each["thumbnail_path"] is not None for each in self._found.instances)
        videos = sum(each["video_path"] is not None for each in self._found.instances)
        screen.answer()
        pictures = [screen.plural(thumbnails, "thumbnail"), screen.plural(videos, "video")]
        screen.answer(f"{'pictures':<12}{', '.join(pictures)}")

    def _instances(self) -> None:
        listed = self._found.instances[: self._most]
        width = screen.width_of()
        if width is not None and width < _WIDE:
            self._instances_narrow(listed)
            return
        screen.table(
            ["no.", "frames", "version", "size", "pictures", "SOP instance"],
            [
                [
                    each["instance_number"],
                    each["number_of_frames"],
                    each["version"],
                    screen.size(each["size_bytes"]),
                    " ".join(kind for kind in ("thumbnail", "video") if each[f"{kind}_path"]),
                    each["sop_instance_uid"],
                ]
                for each in listed
            ],
            title="instances",
        )
        self._and_more(len(self._found.instances) - len(listed))

    def _instances_narrow(self, listed: Sequence[Row]) -> None:
        """Print the instances so that each UID stays whole, with what is unusual below it."""
        screen.answer()
        screen.answer("instances")
        for each in listed:
            number = "" if each["instance_number"] is None else each["instance_number"]
            screen.answer(f"{number:>5}  {screen.printable(each['sop_instance_uid'])}")
            frames = each["number_of_frames"] or 1
            unusual = [
                f"{frames:,} frames" if frames > 1 else "",
                each["version"] if each["version"] != "current" else "",
                "video" if each["video_path"] else "",
                "" if each["thumbnail_path"] else "no thumbnail yet",
            ]
            if any(unusual):
                screen.answer(f"{'':<7}{_joined(unusual)}")
        self._and_more(len(self._found.instances) - len(listed))

    def _and_more(self, count: int) -> None:
        if count > 0:
            screen.answer(f"and {count:,} more; --all lists them")

    def _version(self, version: Row) -> None:
        study = self._found.study
        _fields(
            {
                "instance": version["sop_instance_uid"],
                "version": version["version"],
                "what": _name_of(version["sop_class_uid"]),
                "encoded as": _name_of(version["transfer_syntax_uid"]),
                "patient": _joined([readable(study["patient_name"]), study["patient_id"]]),
                "series": version["series_instance_uid"],
                "study": version["study_instance_uid"],
                "number": version["instance_number"],
                "image": _dimensions(version),
                "size": f"{screen.size(version['size_bytes'])} ({version['size_bytes']:,} bytes)",
                "SHA-256": version["sha256"],
                "source": version["source"],
                "archived": _short(version["archived_at"]),
                "file": self._archive / version["path"],
                **{each["kind"]: self._derivative(each) for each in version["derivatives"]},
            }
        )
        screen.answer()
        for keyword, value in version["attributes"].items():
            line = f"  {screen.printable(keyword)}: {screen.printable(_text(value))}"
            screen.answer(_shortened(line.rstrip(), _LONGEST_VALUE))
        screen.answer()

    def _derivative(self, derivative: Row) -> str:
        why = f" ({derivative['reason']})" if derivative["reason"] else ""
        where = f": {self._archive / derivative['path']}" if derivative["path"] else ""
        return f"{derivative['status']}{why}{where}"

    # -- what happened to it

    def _problems(self) -> None:
        told = Counter((each["kind"], each["message"]) for each in self._found.problems)
        listed = list(told.items())[: self._most and _MOST_PROBLEMS]
        for (kind, message), count in listed:
            times = f" ({count:,} times)" if count > 1 else ""
            screen.answer()
            screen.paragraph(f"problem: {kind}{times}: {message}")
        self._and_more(len(told) - len(listed))

    def _history(self) -> None:
        if self._found.level == "instance" or len(self._found.history) <= 1:
            rows = [
                [_short(each["arrived_at"]), each["source"], each["batch"], each["original_name"],
                 each["outcome"], each["explanation"]]
                for each in self._found.history
            ]  # fmt: skip
            headings = ["arrived", "source", "batch", "name", "outcome", "explanation"]
            screen.table(headings, rows, title="history")
            return
        screen.table(
            ["arrived", "source", "batch", "what became of it"],
            list(_summarised(self._found.history)),
            title="history",
        )

    def _decisions(self) -> None:
        if not self._found.decisions:
            return
        listed = self._found.decisions[: self._most]
        screen.table(
            ["decided", "by", "decision", "about", "note"],
            [
                [
                    _short(each["at"]),
                    each["decided_by"],
                    each["decision"],
                    each["path"] or each["arrival_id"] or "the study",
                    each["note"],
                ]
                for each in listed
            ],
            title="decisions",
        )
        self._and_more(len(self._found.decisions) - len(listed))


# -- values as people read them ----------------------------------------------------------


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _fields(fields: dict[str, object]) -> None:
    for name, value in fields.items():
        if value not in (None, ""):
            screen.answer(f"{name:<12}{screen.printable(value)}")


def _joined(parts: Iterable[object]) -> str:
    return "  ".join(str(part) for part in parts if part not in (None, ""))


def _born(study: Row) -> str:
    return f"born {study['patient_birth_date']}" if study["patient_birth_date"] else ""


def _short(at: str) -> str:
    """Return a moment of ours without fractions: "2026-11-24 18:54:07Z"."""
    return at[:19].replace("T", " ") + "Z"


def _span(first: str, last: str) -> str:
    begin, end = _short(first), _short(last)
    if begin == end:
        return begin
    return f"{begin} to {end[11:] if begin[:10] == end[:10] else end}"


def _dimensions(version: Row) -> str:
    if version["rows"] is None or version["columns"] is None:
        return ""
    frames = version["number_of_frames"] or 1
    several = f", {screen.plural(frames, 'frame')}" if frames > 1 else ""
    bits = f", {version['bits_stored']} bits" if version["bits_stored"] else ""
    colour = f", {version['photometric_interpretation'] or ''}".rstrip(", ")
    return f"{version['columns']} x {version['rows']}{several}{bits}{colour}"


def _name_of(uid: str) -> str:
    """Return a SOP class or transfer syntax by its name in the Standard, with its UID."""
    from pydicom.uid import UID  # takes its time, and only instances need it

    name = UID(uid).name
    return uid if name == uid else f"{name} ({uid})"


def _shortened(line: str, width: int | None) -> str:
    from ingester.cli.tables import shortened  # rich takes its time

    return line if width is None else shortened(line, width)


def _summarised(history: Sequence[Row]) -> Iterator[list[screen.Cell]]:
    """Yield arrivals put together by source and batch: when, and how many of each outcome."""
    groups: dict[tuple[str, str | None], list[Row]] = {}
    for arrival in history:
        groups.setdefault((arrival["source"], arrival["batch"]), []).append(arrival)
    for (source, batch), arrivals in groups.items():
        outcomes = Counter(each["outcome"] for each in arrivals)
        told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
        when = _span(arrivals[0]["arrived_at"], arrivals[-1]["arrived_at"])
        yield [when, source, batch, told]
