"""`ingester find` and `ingester show`: questions people ask of the index."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import click
from anyascii import anyascii

from ingester.cli import screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import Row, open_index, row, rows
from ingester.cli.site import Site

_NOTHING = 1

#: One word matches a study where any of these holds; ?1 is folded, ?2 as typed, ?3 a date.
_WORD = """(
  instr(patient_name_folded, ?1) OR instr(lower(patient_id), lower(?2))
  OR instr(lower(accession_number), lower(?2)) OR instr(lower(study_description), lower(?2))
  OR study_instance_uid = ?2 OR instr(study_date, ?3) = 1
  OR instr(',' || modalities || ',', ',' || upper(?2) || ','))"""


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
    with open_index(site.settings) as connection:
        found = _matching(connection, " ".join(text).split())
    if as_json:
        screen.answer_json(found)
    elif found:
        screen.table(
            ["date", "name", "ID", "born", "modalities", "description", "images", "study"],
            (
                [
                    study["study_date"],
                    study["patient_name"],
                    study["patient_id"],
                    study["patient_birth_date"],
                    study["modalities"],
                    study["study_description"],
                    study["instance_count"],
                    study["study_instance_uid"],
                ]
                for study in found
            ),
        )
    else:
        screen.say("nothing found; every word must match, so try fewer")
    if not found:
        click.get_current_context().exit(_NOTHING)


def _matching(connection: sqlite3.Connection, words: list[str]) -> list[Row]:
    keys: set[str] | None = None
    for word in words:
        date = word
        if len(word) == 8 and word.isdigit():
            date = f"{word[:4]}-{word[4:6]}-{word[6:]}"
        found = {
            each["study_instance_uid"]
            for each in rows(
                connection,
                f"SELECT study_instance_uid FROM study_list WHERE {_WORD}",
                (anyascii(word).lower(), word, date),
            )
        }
        keys = found if keys is None else keys & found
    if not keys:
        return []
    return rows(
        connection,
        "SELECT * FROM study_list WHERE study_instance_uid IN (SELECT value FROM json_each(?))"
        " ORDER BY study_date DESC, study_time DESC, study_instance_uid",
        (json.dumps(sorted(keys)),),
    )


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

    Attributes, paths, derivatives, and the history of what arrived. Exits with 1 where
    the UID is unknown.
    """
    with open_index(site.settings) as connection:
        found = _study(connection, uid) or _series(connection, uid) or _instance(connection, uid)
    if found is None:
        screen.say(f"no study, series or instance has the UID {uid}")
        click.get_current_context().exit(_NOTHING)
    if as_json:
        screen.answer_json(found)
        return
    _print(found, site.settings.archive.path)


_HISTORY = """
  SELECT a.arrival_id, a.arrived_at, a.finished_at, a.source, a.batch, a.original_name,
         a.outcome, a.reason, a.detail, a.instance_id
  FROM arrivals AS a JOIN instances AS i USING (instance_id) WHERE i.{column} = ?
  ORDER BY a.finished_at, a.arrival_id"""


def _history(connection: sqlite3.Connection, column: str, uid: str) -> list[Row]:
    found = rows(connection, _HISTORY.format(column=column), (uid,))
    for arrival in found:
        arrival["detail"] = json.loads(arrival["detail"] or "null")
    return found


def _study(connection: sqlite3.Connection, uid: str) -> Row | None:
    study = row(connection, "SELECT * FROM study_list WHERE study_instance_uid = ?", (uid,))
    if study is None:
        return None
    series = rows(
        connection,
        "SELECT s.*, (SELECT count(*) FROM instances AS i WHERE i.series_instance_uid ="
        " s.series_instance_uid) AS instance_count FROM series AS s"
        " WHERE study_instance_uid = ? ORDER BY series_number, series_instance_uid",
        (uid,),
    )
    history = _history(connection, "study_instance_uid", uid)
    return {"kind": "study", "study": study, "series": series, "history": history}


_INSTANCES = """
  SELECT instance_id, sop_instance_uid, instance_number, number_of_frames, version, path,
         thumbnail_path, video_path, size_bytes
  FROM images WHERE series_instance_uid = ? ORDER BY instance_number, instance_id"""


def _series(connection: sqlite3.Connection, uid: str) -> Row | None:
    series = row(connection, "SELECT * FROM series WHERE series_instance_uid = ?", (uid,))
    if series is None:
        return None
    return {
        "kind": "series",
        "series": series,
        "instances": rows(connection, _INSTANCES, (uid,)),
        "history": _history(connection, "series_instance_uid", uid),
    }


def _instance(connection: sqlite3.Connection, uid: str) -> Row | None:
    versions = rows(
        connection, "SELECT * FROM images WHERE sop_instance_uid = ? ORDER BY instance_id", (uid,)
    )
    if not versions:
        return None
    for version in versions:
        key = (version["instance_id"],)
        header = row(connection, "SELECT attributes FROM headers WHERE instance_id = ?", key)
        version["attributes"] = json.loads(header["attributes"]) if header else {}
        version["derivatives"] = rows(
            connection,
            "SELECT kind, status, reason, path, pipeline_version, made_at, detail"
            " FROM derivatives WHERE instance_id = ? ORDER BY kind",
            key,
        )
        for derivative in version["derivatives"]:
            derivative["detail"] = json.loads(derivative["detail"] or "null")
    history = _history(connection, "sop_instance_uid", uid)
    return {"kind": "instance", "versions": versions, "history": history}


def _print(found: Row, archive: Path) -> None:
    if found["kind"] == "study":
        _print_fields(found["study"])
        screen.table(
            ["no.", "modality", "description", "images", "series"],
            (
                [
                    series["series_number"],
                    series["modality"],
                    series["series_description"],
                    series["instance_count"],
                    series["series_instance_uid"],
                ]
                for series in found["series"]
            ),
        )
    elif found["kind"] == "series":
        _print_fields(found["series"])
        screen.table(
            ["no.", "frames", "version", "path", "thumbnail", "video"],
            (
                [
                    image["instance_number"],
                    image["number_of_frames"],
                    image["version"],
                    image["path"],
                    "yes" if image["thumbnail_path"] else "",
                    "yes" if image["video_path"] else "",
                ]
                for image in found["instances"]
            ),
        )
    else:
        for version in found["versions"]:
            _print_version(version, archive)
    _print_history(found["history"])


def _print_version(version: Row, archive: Path) -> None:
    nested = ("attributes", "derivatives")
    _print_fields({name: value for name, value in version.items() if name not in nested})
    screen.answer(f"file: {archive / version['path']}")
    for derivative in version["derivatives"]:
        why = f" ({derivative['reason']})" if derivative["reason"] else ""
        where = f": {archive / derivative['path']}" if derivative["path"] else ""
        screen.answer(f"{derivative['kind']} {derivative['status']}{why}{where}")
    screen.answer()
    for keyword, value in version["attributes"].items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        screen.answer(f"  {screen.printable(keyword)}: {screen.printable(text)[:200]}")
    screen.answer()


def _print_fields(fields: Row) -> None:
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        if value is not None:
            screen.answer(f"{name:<{width}}  {screen.printable(value)}")


def _print_history(history: list[Row]) -> None:
    screen.table(
        ["arrived", "source", "batch", "name", "outcome", "reason"],
        (
            [
                arrival["arrived_at"],
                arrival["source"],
                arrival["batch"],
                arrival["original_name"],
                arrival["outcome"],
                arrival["reason"],
            ]
            for arrival in history
        ),
        title="history",
    )
