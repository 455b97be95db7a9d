"""The configuration: `ingest.toml` read, checked, and given as frozen settings.

Only `cli` and `service` read it; everything below takes values.

    settings = load(None)              # --config, $INGEST_CONFIG, ./ingest.toml
    settings.spool.quiet               # 2.0, seconds
    settings.archive.min_free.of(n)    # bytes that must stay free on a disk of n bytes
    example_text()                     # the commented file, every key at its default
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingester.config.problems import sentences
from ingester.config.settings import (
    ArchiveSettings,
    DcmtkSettings,
    HookSettings,
    IndexSettings,
    LimitSettings,
    LogSettings,
    PeerSettings,
    ReceiverSettings,
    ScpSettings,
    Settings,
    ShareSettings,
    SourceSettings,
    SpoolSettings,
    ThumbnailSettings,
    TlsSettings,
    VideoSettings,
    WorkerSettings,
)
from ingester.config.text import example_text, keys, sections
from ingester.config.values import FreeSpace
from ingester.errors import Fatal

__all__ = [
    "ArchiveSettings",
    "DcmtkSettings",
    "FreeSpace",
    "HookSettings",
    "IndexSettings",
    "LimitSettings",
    "LogSettings",
    "PeerSettings",
    "ReceiverSettings",
    "ScpSettings",
    "Settings",
    "ShareSettings",
    "SourceSettings",
    "SpoolSettings",
    "ThumbnailSettings",
    "TlsSettings",
    "VideoSettings",
    "WorkerSettings",
    "example_text",
    "find",
    "keys",
    "load",
    "parse",
    "sections",
]


def find(given: str | os.PathLike[str] | None) -> Path:
    """Return which file is meant: *given*, else $INGEST_CONFIG, else ./ingest.toml."""
    return Path(given or os.environ.get("INGEST_CONFIG") or "ingest.toml").absolute()


def load(given: str | os.PathLike[str] | None = None) -> Settings:
    """Read and check the configuration; relative paths become absolute.

    Raises
    ------
    Fatal
        the file is missing, writable by everybody, not TOML, or says something that
        cannot be used; the message says what to write instead.
    """
    file = find(given)
    try:
        with file.open("rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o002:
                raise Fatal(
                    f"{file}: everybody may write to this file, and it names programs to run; "
                    f"take that away with: chmod o-w {file}"
                )
            raw = stream.read()
    except FileNotFoundError:
        raise Fatal(
            f"{file} is not there; make a site with `ingester init DIR`, go to its folder, "
            "or name the file with --config"
        ) from None
    except OSError as error:
        raise Fatal(f"{file} cannot be read: {error.strerror}") from error
    return parse(raw, file)


def parse(raw: bytes, file: Path) -> Settings:
    """Check the bytes of a configuration that lies, or would lie, at *file*.

    Raises
    ------
    Fatal
        as `load`.
    """
    try:
        document = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Fatal(f"{file} is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise Fatal(f"{file} is not TOML: {error}") from None
    _let_index_follow_archive(document)
    try:
        return Settings.model_validate(document, context={"base": file.parent})
    except ValidationError as error:
        raise Fatal(sentences(error, file, Settings)) from None


def _let_index_follow_archive(document: dict[str, Any]) -> None:
    """Put the index into the archive's folder where only the latter is named."""
    archive = document.get("archive")
    index = document.setdefault("index", {})
    path = archive.get("path") if isinstance(archive, dict) else None
    if isinstance(path, str) and path and isinstance(index, dict):
        index.setdefault("path", os.path.join(path, "index.db"))
