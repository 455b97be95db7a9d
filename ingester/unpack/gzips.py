"""One gzipped object: an archive file of one member, as some programs keep their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from ingester.unpack import refusals
from ingester.unpack.request import CHUNK, Extracted, ExtractRequest, Survey
from ingester.unpack.sink import Page
from ingester.unpack.streams import Gunzipped

_KIND = "gzip"
_ENDINGS = (".gz", ".gzip")


def extract_gzip(file: BinaryIO, request: ExtractRequest) -> Extracted:
    """Unpack a gzipped object; its name is the file's own, without `.gz`.

    Raises
    ------
    Reject
        it cannot be unpacked, and nothing was kept
    """
    if 1 in request.done:
        return Extracted(survey=Survey(1, 0))
    stream = Gunzipped(file.fileno(), request.limits, _KIND)
    page = Page(request, None)
    try:
        page.add(1, _name(request.path), _chunks(stream, request))
    finally:
        stream.close()
    return replace(page.extracted(None), survey=Survey(1, stream.at))


def _chunks(stream: Gunzipped, request: ExtractRequest) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        if stream.at > request.limits.total_bytes:
            raise refusals.too_large(_KIND, request.limits)
        yield chunk


def _name(path: str) -> str:
    name = os.path.basename(path)
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name
