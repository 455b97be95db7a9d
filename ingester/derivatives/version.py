"""Which version of a derivative the program makes now; imports no decoder.

A new number makes the derivatives of that kind again; a restart does not.
"""

from __future__ import annotations

from ingester.model import Kind

PIPELINE_VERSION = {Kind.THUMBNAIL: 1, Kind.VIDEO: 1}
