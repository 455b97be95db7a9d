"""What a file is, by its first bytes: names and extensions are not believed.

sniff(head)          "dicom", "zip", "tar", "gzip", "foreign", "maybe"; cheap
container_of(...)    a zip, tar or tar.gz to unpack, or None
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from ingester.dicom.part10 import looks_bare
from ingester.dicom.sources import Source
from ingester.model import ContainerKind

Sniffed = Literal["dicom", "zip", "tar", "gzip", "foreign", "maybe"]

#: How much of a zip's directory is looked at to know an office document (bytes).
_DIRECTORY = 2**20

#: Members that only documents and programs have (OPC, Java, Android, iOS, ODF, EPUB).
_NOT_AN_ARCHIVE = frozenset(
    (
        b"[Content_Types].xml",
        b"META-INF/MANIFEST.MF",
        b"META-INF/manifest.xml",
        b"META-INF/container.xml",
        b"AndroidManifest.xml",
        b"mimetype",
        b"extension/manifest.json",
        b"install.rdf",
        b"doc.kml",
        b"word/document.xml",
        b"xl/workbook.xml",
        b"ppt/presentation.xml",
    )
)


def sniff(head: bytes) -> Sniffed:
    """Tell what a file that begins with *head* (512 bytes or more) seems to be.

    "maybe" is a bare data set, or only zeros so far: reading it whole will tell.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if is_tar(head):
        return "tar"
    return "maybe" if looks_bare(head) or not any(head) else "foreign"


def container_of(source: Source, kind: Sniffed) -> ContainerKind | None:
    """Return the kind of archive file to unpack, None where it is none."""
    if kind == "tar":
        return ContainerKind.TAR
    if kind == "zip" and not _is_document(source):
        return ContainerKind.ZIP
    if kind == "gzip" and _holds_tar(source):
        return ContainerKind.TAR_GZ
    return None


def is_tar(head: bytes) -> bool:
    """Tell whether a tar header, of any age, stands at the beginning."""
    block = head[:512]
    if len(block) < 512 or not block[0]:
        return False
    try:
        declared = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    # The checksum is computed with its own field as spaces; old tars summed signed bytes.
    fields = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(fields)
    return declared in (unsigned, unsigned - 256 * sum(byte > 127 for byte in fields))


def _holds_tar(source: Source) -> bool:
    window, base = source.at(0, 65536)
    engine = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        return is_tar(engine.decompress(window[-base if base else 0 : 65536], 512))
    except zlib.error:
        return False


def _is_document(source: Source) -> bool:
    names = list(_first_local_name(source))
    if names and names[0] in _NOT_AN_ARCHIVE:
        return True
    return any(name in _NOT_AN_ARCHIVE for name in _names(source))


def _first_local_name(source: Source) -> Iterator[bytes]:
    window, _ = source.at(0, 30 + 64)
    if len(window) >= 30 and window.startswith(b"PK\x03\x04"):
        (length,) = struct.unpack_from("<H", window, 26)
        yield window[30 : 30 + min(length, 64)]


def _names(source: Source) -> Iterator[bytes]:
    # The names in the central directory, as far as they fit the first MiB of it.
    tail = max(source.size - 65557, 0)
    window, base = source.at(tail, source.size - tail)
    at = window.rfind(b"PK\x05\x06", max(tail - base, 0))
    if at < 0 or at + 22 > len(window):
        return
    size, start = struct.unpack_from("<LL", window, at + 12)
    if start > source.size:
        return
    window, base = source.at(start, min(size, _DIRECTORY))
    pos = start - base
    stop = min(len(window), pos + size)
    while pos + 46 <= stop and window[pos : pos + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<3H", window, pos + 28)
        yield window[pos + 46 : pos + 46 + name]
        pos += 46 + name + extra + comment
