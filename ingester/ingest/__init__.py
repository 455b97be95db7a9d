"""From claim to row: the story of every file (`story.py` tells it)."""

from ingester.ingest.story import Ingest
from ingester.ingest.values import ArchiveProgress, Counts, IngestSettings, SourceDefaults, Turn

__all__ = ["ArchiveProgress", "Counts", "Ingest", "IngestSettings", "SourceDefaults", "Turn"]
