"""The index: an SQLite file that says what the archive holds.

One `Writer` (the ingest's) and any number of `Reader`s (the commands').  The tables
and views are part of the public contract; the statements that fill them are here.
"""

from ingester.index.connection import Corrupt, is_missing
from ingester.index.pending import PendingDerivative
from ingester.index.readers import Reader, Shown
from ingester.index.rows import Event, NotRecorded
from ingester.index.writer import Writer

__all__ = [
    "Corrupt",
    "Event",
    "NotRecorded",
    "PendingDerivative",
    "Reader",
    "Shown",
    "Writer",
    "is_missing",
]
