"""`ingester find` and `ingester show`: questions people ask of the index."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ingester.cli import screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.index.readers import Row, Shown

_NOTHING = 1
_LONGEST_VALUE = 200


@click.command(
    epilog=example(
        "ingester find meyer", "ingester find 2024-03 MR knee", "ingester find --json A1234"
    )
)
@click.argument("text", nargs=-1, required=True)
@as_json
@pass_site
def find(site: Site, text: tuple[str, ...], as_json: bool) -> None:
    """Find studies by name, ID, accession number, description, date or modality.

    Every word must match; names match in any script and without accents, dates also by
    their beginning (2024, 2024-03). Exits with 1 where nothing matches.
    """
    with open_index(site.settings) as index:
        found = index.find(" ".join(text).split())
    if as_json:
        screen.answer_json(found)
    elif found:
        screen.table(
            ["date", "name", "ID", "born", "modalities", "description", "images", "study"],
            [_cells(study) for study in found],
        )
    else:
        screen.say("nothing found; every word must match, so try fewer")
    if not found:
        click.get_current_context().exit(_NOTHING)


def _cells(study: Row) -> list[screen.Cell]:
    names = (
        "study_date",
        "patient_name",
        "patient_id",
        "patient_birth_date",
        "modalities",
        "study_description",
        "instance_count",
        "study_instance_uid",
    )
    return [study[name] for name in names]


@click.command(
    epilog=example(
        "ingester show 1.2.840.113619.2.55.3", "ingester show --json 1.2.3 | jq .history"
    )
)
@click.argument("uid")
@as_json
@pass_site
def show(site: Site, uid: str, as_json: bool) -> None:
    """Show a study, a series or an instance by its UID.

    Attributes, paths, derivatives, problems, and the history of what arrived. Exits
    with 1 where the UID is unknown.
    """
    with open_index(site.settings) as index:
        found = index.show(uid)
    if found is None:
        if as_json:
            screen.answer_json(None)
        screen.say(f"no study, series or instance has the UID {screen.printable(uid)}")
        click.get_current_context().exit(_NOTHING)
    if as_json:
        screen.answer_json(asdict(found))
    else:
        _print(found, site.settings.archive.path)


def _print(found: Shown, archive: Path) -> None:
    if found.level == "instance":
        for version in found.instances:
            _print_version(version, archive)
    else:
        _print_fields(found.study)
        _print_series(found)
    if found.level == "series":
        _print_instances(found)
    for problem in found.problems:
        screen.answer(f"problem: {screen.printable(problem['message'])}")
    _print_history(found)
    _print_decisions(found)


def _print_series(found: Shown) -> None:
    counts: dict[str, int] = {}
    for instance in found.instances:
        uid = instance["series_instance_uid"]
        counts[uid] = counts.get(uid, 0) + 1
    screen.table(
        ["no.", "modality", "description", "images", "series"],
        [
            [
                series["series_number"],
                series["modality"],
                series["series_description"],
                counts.get(series["series_instance_uid"], 0),
                series["series_instance_uid"],
            ]
            for series in found.series
        ],
    )


def _print_instances(found: Shown) -> None:
    screen.table(
        ["no.", "frames", "version", "path", "thumbnail", "video"],
        [
            [
                instance["instance_number"],
                instance["number_of_frames"],
                instance["version"],
                instance["path"],
                "yes" if instance["thumbnail_path"] else "",
                "yes" if instance["video_path"] else "",
            ]
            for instance in found.instances
        ],
    )


def _print_version(version: Row, archive: Path) -> None:
    nested = ("attributes", "derivatives")
    _print_fields({name: value for name, value in version.items() if name not in nested})
    screen.answer(f"file: {screen.printable(archive / version['path'])}")
    for derivative in version["derivatives"]:
        why = f" ({derivative['reason']})" if derivative["reason"] else ""
        where = f": {archive / derivative['path']}" if derivative["path"] else ""
        screen.answer(screen.printable(f"{derivative['kind']} {derivative['status']}{why}{where}"))
    screen.answer()
    for keyword, value in version["attributes"].items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        screen.answer(f"  {screen.printable(keyword)}: {screen.printable(text)[:_LONGEST_VALUE]}")
    screen.answer()


def _print_fields(fields: Row) -> None:
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        if value is not None:
            screen.answer(f"{name:<{width}}  {screen.printable(value)}")


def _print_history(found: Shown) -> None:
    screen.table(
        ["arrived", "source", "batch", "name", "outcome", "explanation"],
        [
            [
                arrival["arrived_at"],
                arrival["source"],
                arrival["batch"],
                arrival["original_name"],
                arrival["outcome"],
                arrival["explanation"],
            ]
            for arrival in found.history
        ],
        title="history",
    )


def _print_decisions(found: Shown) -> None:
    if not found.decisions:
        return
    screen.table(
        ["decided", "by", "decision", "about", "note"],
        [
            [
                decision["at"],
                decision["decided_by"],
                decision["decision"],
                decision["path"] or decision["arrival_id"] or "the study",
                decision["note"],
            ]
            for decision in found.decisions
        ],
        title="decisions",
    )
