"""What a file is, by its first bytes: names and extensions are not believed.

sniff(head)          "dicom", "zip", "tar", "gzip", "packed", "foreign", "maybe"; cheap
container_of(...)    a zip, tar, tar.gz or gzipped object to unpack, or None
packed_as(...)       an archive file or disc image that is not unpacked here, or None
foreign_as(...)      what a file that is not DICOM is, in words for people
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from ingester.dicom.part10 import looks_bare
from ingester.dicom.sources import Source, chunks
from ingester.model import ContainerKind

Sniffed = Literal["dicom", "zip", "tar", "gzip", "packed", "foreign", "maybe"]

_BZIP2, _XZ = b"BZh", b"\xfd7zXZ\0"
_SPLIT_ZIP, _ONE_OF_ONE = b"PK\x07\x08", b"PK00PK\x03\x04"

#: Archive files that other programs unpack.  What bzip2 and xz hold is looked at.
_PACKED = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (_SPLIT_ZIP, "a part of a split zip archive"),
    (_BZIP2, "a tar archive packed with bzip2"),
    (_XZ, "a tar archive packed with xz"),
)
_XZ_MEMORY = 64 * 2**20
_LARGEST_BLOCK = 2**20

#: Where ISO 9660 puts its mark, 16 sectors in.
_ISO_AT, _ISO_MARK = 16 * 2048 + 1, b"CD001"

_PROGRAM = "a program"
_FOREIGN = (
    (b"%PDF-", "a PDF document"),
    (b"MZ", _PROGRAM),
    (b"\x7fELF", _PROGRAM),
    (b"\xcf\xfa\xed\xfe", _PROGRAM),
    (b"\xca\xfe\xba\xbe", _PROGRAM),
    (b"#!", "a script"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\0\0\1\0", "an icon"),
    (b"RIFF", "a film or a sound"),
    (b"\xd0\xcf\x11\xe0", "a document of an older office program, or a Windows installer"),
    (b"MSCF", "a Windows installer's package"),
    (b"{\\rtf", "a text document"),
    (b"SQLite format 3\0", "a database"),
)
_NIFTI_AT, _NIFTI = 344, (b"n+1\0", b"ni1\0")
_ANALYZE = struct.pack("<L", 348)
_ZIP_END, _ZIP_TAIL = b"PK\x05\x06", 65557

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
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", _ONE_OF_ONE)):
        return "zip"
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if is_tar(head):
        return "tar"
    if any(head.startswith(mark) for mark, _ in _PACKED):
        return "packed"
    return "maybe" if looks_bare(head) or not any(head) else "foreign"


def container_of(source: Source, kind: Sniffed) -> ContainerKind | None:
    """Return the kind of archive file to unpack, None where it is none."""
    if kind == "tar":
        return ContainerKind.TAR
    if kind == "zip" and not _is_document(source):
        return ContainerKind.ZIP
    if kind == "gzip":
        inside = _gunzipped_head(source)
        if is_tar(inside):
            return ContainerKind.TAR_GZ
        if inside[128:132] == b"DICM":
            return ContainerKind.GZIP
    return None


def packed_as(source: Source) -> str | None:
    """Tell in words which archive file, or image of a disc, this is that we do not unpack.

    None where it is none: also a bzip2 or xz file without a tar archive or an object.
    """
    head = source.at(0, 512)[0][:512]
    for mark, words in _PACKED:
        if not head.startswith(mark):
            continue
        if mark in (_BZIP2, _XZ):
            inside = _unpacked_head(source, mark)
            if inside[128:132] == b"DICM":
                return words.replace("tar archive", "DICOM file")
            return words if is_tar(inside) else None
        return words
    if not any(head) and source.size > _ISO_AT:
        window, base = source.at(_ISO_AT, len(_ISO_MARK))
        if window[_ISO_AT - base : _ISO_AT - base + len(_ISO_MARK)] == _ISO_MARK:
            return "the image of a CD or DVD"
    return None


def foreign_as(source: Source) -> str | None:
    """Tell in words what a file is that is not DICOM, None where its first bytes do not."""
    head = source.at(0, 512)[0][:512]
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if start.startswith(b"<?xml"):
        return "an XML document"
    if head[4:8] == b"ftyp":
        return "a film"
    if head[_NIFTI_AT : _NIFTI_AT + 4] in _NIFTI:
        return "a NIfTI image"
    if head.startswith(_ANALYZE):
        return "an Analyze image"
    for mark, words in _FOREIGN:
        if head.startswith(mark):
            is_archive = words == _PROGRAM and _ends_as_zip(source)
            return f"{words} with an archive inside" if is_archive else words
    if head.startswith(b"PK"):
        return "an office document or a program's package"
    if head.startswith(b"\x1f\x8b\x08"):
        return "a gzipped file of another kind"
    return "a text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", "replace").rstrip("\ufffd")  # the last character may be cut
    return "\ufffd" not in text and all(each.isprintable() or each.isspace() for each in text)


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


def _gunzipped_head(source: Source) -> bytes:
    engine = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        return engine.decompress(source.at(0, 65536)[0][:65536], 512)
    except zlib.error:
        return b""


def _unpacked_head(source: Source, mark: bytes) -> bytes:
    """Return the first bytes that a bzip2 or xz file holds.

    Their blocks come out whole or not at all, and those of bzip2 may take 900 KB.
    """
    engine = bz2.BZ2Decompressor() if mark == _BZIP2 else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    try:
        for piece in chunks(source, 0, min(source.size, _LARGEST_BLOCK)):
            if inside := engine.decompress(piece, 512):
                return inside
    except (OSError, EOFError, lzma.LZMAError):
        return b""
    return b""


def _ends_as_zip(source: Source) -> bool:
    tail = max(source.size - _ZIP_TAIL, 0)
    window, base = source.at(tail, source.size - tail)
    return _ZIP_END in window[tail - base :]


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
