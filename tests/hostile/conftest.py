"""Sites in memory, as in the tests of faults."""

from __future__ import annotations

from tests.faults.conftest import tmp_path

__all__ = ["tmp_path"]
