"""The closing summary of `run --once` and `import`, and the exit code it means."""

from __future__ import annotations

from collections.abc import Mapping

from ingester.cli import screen

#: The keys, in order; with --json exactly these.
KEYS = (
    "arrived",
    "archived",
    "duplicate",
    "variant",
    "conflict",
    "quarantined",
    "foreign",
    "unpacked",
    "thumbnails",
    "videos",
    "derivative_failures",
    "bytes",
    "seconds",
)
_TROUBLES = ("quarantined", "conflict", "derivative_failures")

Summary = Mapping[str, int | float]


def exit_code(summary: Summary) -> int:
    """Return 1 where something was quarantined, in conflict or not derived, else 0."""
    return 1 if any(summary[key] for key in _TROUBLES) else 0


def show(summary: Summary, *, as_json: bool) -> None:
    """Print the summary; as JSON with exactly the keys of the contract."""
    if as_json:
        screen.answer_json({key: summary[key] for key in KEYS})
        return
    width = max(len(key) for key in KEYS)
    for key in KEYS:
        value = summary[key]
        if key == "bytes":
            text = f"{value:,} ({screen.size(value)})" if value else "0"
        elif key == "seconds":
            text = f"{value:.1f}"
        else:
            text = f"{value:,}"
        screen.answer(f"{key.replace('_', ' '):<{width}}  {text:>12}")
