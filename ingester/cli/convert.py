"""`ingester convert`: one file's picture, without any site."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NoReturn

import click

from ingester.cli import screen
from ingester.cli.options import as_json, example
from ingester.derivatives.convert import Converted
from ingester.derivatives.convert import convert as make
from ingester.derivatives.errors import DecodeError
from ingester.handover import is_foreign
from ingester.model import DerivativeReason

_NOT_MADE = 1
_STILL = (
    DerivativeReason.NO_PIXELS,
    DerivativeReason.SINGLE_FRAME,
    DerivativeReason.NOT_A_CINE,
)


@click.command(
    epilog=example(
        "ingester convert loop.dcm",
        "ingester convert loop.dcm /tmp",
        "ingester convert a.dcm a.jpg",
    )
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", required=False, type=click.Path(path_type=Path))
@as_json
def convert(file: Path, out: Path | None, as_json: bool) -> None:
    """Convert one DICOM file to MP4 (several frames) or JPEG, without any site.

    The same picture as the archive would make, a still in full size. OUT is a file that
    ends in .mp4 or .jpg (it is replaced), or a folder; without it the picture lies beside
    FILE, and one that is there is not overwritten. Exits with 1 where none could be made.
    """
    if out is not None and not out.is_dir() and out.suffix.lower() not in (".mp4", ".jpg", ".jpeg"):
        raise click.BadParameter(
            "name a file that ends in .mp4 or .jpg, or a folder", param_hint="OUT"
        )
    if out is not None and not out.parent.is_dir():
        raise click.BadParameter(f"the folder {out.parent} is not there", param_hint="OUT")
    if is_foreign(file):
        _refuse(f"{file} is not DICOM")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, about oddities of the file
            made = _into_folder(file, out) if out is not None and out.is_dir() else make(file, out)
    except DecodeError as error:
        _refuse(str(error))
    except FileExistsError as error:
        _refuse(f"{error.filename or error}")
    else:
        if as_json:
            told = {"path": str(made.path), "kind": made.kind.value, "detail": made.detail}
            screen.answer_json(told)
        else:
            screen.answer(f"{made.path}{_described(made)}")


def _into_folder(file: Path, folder: Path) -> Converted:
    name = file.name.removesuffix(".dcm")
    try:
        return make(file, folder / f"{name}.mp4")
    except DecodeError as error:
        if error.reason not in _STILL:
            raise
        return make(file, folder / f"{name}.jpg")


def _described(made: Converted) -> str:
    detail = made.detail
    size = f"{detail['width']} x {detail['height']}" if "width" in detail else ""
    if "fps" in detail:
        return f" ({detail['frames']} frames, {detail['fps']:g} frames/s, {size})"
    return f" ({size})" if size else ""


def _refuse(sentence: str) -> NoReturn:
    screen.say(f"ingester: {screen.printable(sentence)}")
    click.get_current_context().exit(_NOT_MADE)
