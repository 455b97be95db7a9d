"""Reading the index for commands; a damaged one is answered with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ingester.config import Settings
from ingester.errors import Fatal
from ingester.index.connection import Corrupt
from ingester.index.readers import Reader


@contextmanager
def open_index(settings: Settings) -> Iterator[Reader]:
    """Open the index for reading.

    Raises
    ------
    Fatal
        there is no index yet, or it is damaged.
    """
    try:
        with Reader.open(settings.index.path) as reader:
            yield reader
    except Corrupt as error:
        raise Fatal(f"{error} Stop the service and run `ingester rebuild`.") from error
