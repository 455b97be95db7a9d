"""The index: an SQLite file that says what the archive holds.

One `Writer` (the ingest's) and any number of `Reader`s (the commands').  The tables
and views are part of the public contract; the statements that fill them are here.
"""

from ingester.index.connection import Corrupt, is_missing
from ingester.index.pending import PendingDerivative
from ingester.index.readers import Reader, Shown
from ingester.index.rows import Event, NotRecorded
from ingester.index.writer import Writer

#: Tables that are ours: what they hold may change at any time (docs/index.md has the rest).
NOT_PROMISED = frozenset(
    {
        "contradictions", "resolutions", "claim_attempts", "promoted_columns",
        "series_folders", "arrival_counts", "derivative_counts",
    }
)  # fmt: skip

__all__ = [
    "NOT_PROMISED",
    "Corrupt",
    "Event",
    "NotRecorded",
    "PendingDerivative",
    "Reader",
    "Shown",
    "Writer",
    "is_missing",
]
