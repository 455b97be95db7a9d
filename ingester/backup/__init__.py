"""A copy of the archive and its index elsewhere, made while the service runs.

    backup(origin, path, options, clock=..., progress=...)

What lies at *path* is a tree like the archive's: objects byte for byte under the same
paths, derivatives, kept DICOMDIRs, an ordinary `index.db` in which every object has
its file, and below `.spool` the quarantine.  It is read, verified and rebuilt where it
lies (`ingester --config PATH/ingest.toml verify`).
"""

from ingester.backup.origin import Origin
from ingester.backup.story import BackedUp, Options, backup

__all__ = ["BackedUp", "Options", "Origin", "backup"]
