"""One drop folder becomes a DICOM archive: files, a SQLite index and pictures."""

__version__ = "0.1.0"
