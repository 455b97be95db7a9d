"""The text of `ingest.toml`: every key live at its default, with a comment.

Written from the declarations in `settings.py`, so that no default stands twice.
The repository's own `ingest.toml` is this text, and `ingester init` writes it with
some values changed.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ingester.config import settings as declared

_HEAD = """\
# The configuration of the archive. Every key stands here at its default, and may be left out.
# Durations are "500ms", "10s", "2m", "1h"; sizes "16 MiB", "2 GiB"; relative paths start at this
# file's folder. An unknown key is an error. `ingester run` reads this file at its start.
# Every key is explained in docs/configuration.md.
"""

#: Section, its name in the file, whether it is only an example (commented out).
_SECTIONS: tuple[tuple[str, type[BaseModel], bool], ...] = (
    ("[spool]", declared.SpoolSettings, False),
    ("[sources.CT1]", declared.SourceSettings, True),
    ("[archive]", declared.ArchiveSettings, False),
    ("[index]", declared.IndexSettings, False),
    ("[limits]", declared.LimitSettings, False),
    ("[workers]", declared.WorkerSettings, False),
    ("[receiver.scp]", declared.ScpSettings, False),
    ("[receiver.scp.tls]", declared.TlsSettings, False),
    ("[receiver.scp.peers.PACS]", declared.PeerSettings, True),
    ("[receiver.dcmtk]", declared.DcmtkSettings, False),
    ("[[receiver.share]]", declared.ShareSettings, True),
    ("[thumbnails]", declared.ThumbnailSettings, False),
    ("[videos]", declared.VideoSettings, False),
    ("[hooks]", declared.HookSettings, False),
    ("[log]", declared.LogSettings, False),
)

#: What the examples say instead of their defaults.
_EXAMPLES: dict[str, dict[str, Any]] = {
    "[sources.CT1]": {"character_set": "ISO_IR 100", "issuer_of_patient_id": "Hospital A"},
    "[receiver.scp.peers.PACS]": {"ae_title": "PACS", "host": "192.168.10.20", "port": 104},
    "[[receiver.share]]": {"path": "/mnt/modality", "source": "US1"},
}


def keys(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the plain keys of a section, without the sections within it."""
    return {
        name: field for name, field in section.model_fields.items() if field.description is not None
    }


def sections() -> dict[str, type[BaseModel]]:
    """Return every section by its heading in the file, in order."""
    return {heading: section for heading, section, _ in _SECTIONS}


def example_text(changes: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Return the commented text of `ingest.toml`.

    Parameters
    ----------
    changes
        values other than the defaults, by heading and key, such as
        ``{"[receiver.scp]": {"host": "0.0.0.0"}}``.
    """
    changed = dict(changes or {})
    parts = [_HEAD]
    for heading, section, is_example in _SECTIONS:
        values = changed.pop(heading, {})
        parts.append(_section_text(heading, section, is_example, values))
    if changed:
        raise KeyError(f"no such section: {', '.join(changed)}")
    return "\n".join(parts)


def _section_text(
    heading: str, section: type[BaseModel], is_example: bool, values: Mapping[str, Any]
) -> str:
    mark = "# " if is_example else ""
    known = keys(section)
    if unknown := values.keys() - known.keys():
        raise KeyError(f"no such key in {heading}: {', '.join(sorted(unknown))}")
    about = " ".join((section.__doc__ or "").split("\n\n")[0].split())
    lines = [f"# {about}", mark + heading]
    example = _EXAMPLES.get(heading, {})
    for name, field in known.items():
        value = values.get(name, example.get(name, field.default))
        lines.extend(_key_lines(mark, name, value, field))
    return "\n".join(lines) + "\n"


def _key_lines(mark: str, name: str, value: Any, field: FieldInfo) -> list[str]:
    text = f"{mark}{name} = {toml_value(name, value)}"
    line = f"{text:<38}  # {field.description}"
    if len(line) <= 120:
        return [line]
    comment = textwrap.wrap(field.description or "", 96)
    return [*(f"{mark}# {part}" for part in comment), text]


def toml_value(name: str, value: Any) -> str:
    """Return a default as TOML writes it; modes in octal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and name == "mode":
        return f"{value:#o}"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(toml_value(name, item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)
