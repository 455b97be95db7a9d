"""Reading one claimed file: what it is, what its bytes are, who still writes."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pickle
import random
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from ingester.model import (
    Container,
    ContainerKind,
    FileIdentity,
    Instance,
    Prepared,
    Reason,
    Refusal,
    WriterState,
)
from ingester.prepare import Limits, PrepareRequest, prepare, sniff
from tests.factory import encoded, instance
from tests.unit.dicom import raw

LARGE = 200_000  # beyond what is read whole


def request(path: Path, **options: object) -> PrepareRequest:
    settings: dict[str, object] = {
        "intake": "link",
        "staging": str(path.parent / "staged"),
        "is_received": True,
        "character_set": "",
        "issuer_of_patient_id": "",
        "limits": Limits(),
    } | options
    return PrepareRequest(path=str(path), **settings)  # type: ignore[arg-type] # checked by use


def made(tmp_path: Path, content: bytes, **options: object) -> Prepared:
    path = tmp_path / "file"
    path.write_bytes(content)
    return prepare(request(path, **options))


def reason(found: Prepared) -> Reason:
    assert isinstance(found.found, Refusal)
    return found.found.reason


def sizes() -> list[bytes]:
    small = encoded(instance())
    return [small, encoded(instance(rows=400, columns=400))]


@pytest.mark.parametrize("content", sizes())
def test_digests_are_of_the_file_and_of_all_after_group_0002(
    tmp_path: Path, content: bytes
) -> None:
    found = made(tmp_path, content)
    meta_length = struct.unpack_from("<L", content, 140)[0]
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.data_set_sha256 == hashlib.sha256(content[144 + meta_length :]).hexdigest()
    assert found.is_steady
    assert not found.staged
    assert isinstance(found.found, Instance)
    assert found.identity == FileIdentity.of((tmp_path / "file").stat())


def test_without_file_meta_both_digests_are_the_same(tmp_path: Path) -> None:
    found = made(tmp_path, raw.explicit())
    assert found.sha256 == found.data_set_sha256


@pytest.mark.parametrize("content", sizes())
def test_a_copy_is_made_of_the_bytes_that_were_hashed(tmp_path: Path, content: bytes) -> None:
    found = made(tmp_path, content, intake="copy")
    assert found.staged
    assert (tmp_path / "staged").read_bytes() == content
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.data_set_sha256


@pytest.mark.parametrize("content", [each[:-9] for each in sizes()])
def test_no_copy_is_kept_of_what_is_no_instance(tmp_path: Path, content: bytes) -> None:
    found = made(tmp_path, content, intake="copy")
    assert reason(found) is Reason.INCOMPLETE
    assert not found.staged
    assert not (tmp_path / "staged").exists()
    assert found.sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_with_two_names_is_copied_whatever_intake_says(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encoded(instance()))
    os.link(path, tmp_path / "other")
    assert prepare(request(path)).staged


def test_a_leased_file_is_free_and_an_open_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encoded(instance()))
    free = prepare(request(path, is_received=False, intake="auto"))
    if free.writer is WriterState.UNKNOWN:
        pytest.skip("no leases on this file system")
    assert (free.writer, free.staged) == (WriterState.FREE, False)
    with path.open("ab"):
        busy = prepare(request(path, is_received=False, intake="auto"))
    assert (busy.writer, busy.staged) == (WriterState.WRITING, True)


def test_requests_and_answers_can_be_pickled(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encoded(instance()))
    again = pickle.loads(pickle.dumps(request(path)))
    assert again == request(path)
    answer = prepare(again)
    assert pickle.loads(pickle.dumps(answer)) == answer


# -- what is no instance -----------------------------------------------------------------


def test_links_fifos_sockets_and_folders_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(encoded(instance()))
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    server = socket.socket(socket.AF_UNIX)
    with server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        for name in ("link", "dangling", "loop", "fifo", "socket"):
            found = prepare(request(tmp_path / name))
            assert reason(found) is Reason.NOT_A_REGULAR_FILE
            assert found.sha256 == ""


def test_a_vanished_or_forbidden_file_is_the_worlds_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        prepare(request(tmp_path / "gone"))


def test_empty_and_zeros_may_grow(tmp_path: Path) -> None:
    empty = made(tmp_path, b"")
    assert reason(empty) is Reason.EMPTY
    assert isinstance(empty.found, Refusal)
    assert empty.found.may_grow
    for size in (5, 500, LARGE):
        zeros = made(tmp_path, bytes(size))
        assert reason(zeros) is Reason.INCOMPLETE
        assert isinstance(zeros.found, Refusal)
        assert zeros.found.may_grow
        assert zeros.has_zero_tail is (size == LARGE)


@pytest.mark.parametrize("rows", [16, 400])
def test_a_tail_of_zeros_is_told(tmp_path: Path, rows: int) -> None:
    content = encoded(instance(rows=rows, columns=rows))
    assert not made(tmp_path, content + bytes(65000)).has_zero_tail
    found = made(tmp_path, content + bytes(70000))
    assert found.has_zero_tail
    assert isinstance(found.found, Instance)


def test_a_file_beyond_the_limit_is_not_even_read(tmp_path: Path) -> None:
    found = made(tmp_path, encoded(instance()), limits=Limits(object_bytes=500))
    assert reason(found) is Reason.TOO_LARGE
    assert found.sha256 == ""


def test_limits_reach_the_walk(tmp_path: Path) -> None:
    content = encoded(instance())
    assert reason(made(tmp_path, content, limits=Limits(elements=5))) is Reason.TOO_LARGE
    assert reason(made(tmp_path, content, limits=Limits(header_bytes=50))) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "content",
    [b"x", b"Dear colleague, " * 50, b"%PDF-1.7\n" + bytes(300), b"\x80\x04\x95cos\nsystem\n."],
)
def test_other_files_are_not_dicom_and_hashed(tmp_path: Path, content: bytes) -> None:
    found = made(tmp_path, content)
    assert reason(found) is Reason.NOT_DICOM
    assert found.sha256 == hashlib.sha256(content).hexdigest()


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return out.getvalue()


def tarred(mode: str, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload] # a mode in a variable
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return out.getvalue()


ISO = bytes(32768) + b"\1CD001\1" + bytes(5000)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\n" + bytes(300), "a PDF document"),
        (b"MZ" + bytes(500), "a program"),
        (b"MZ" + bytes(500) + zipped("a.dcm"), "unpack it and drop the files"),
        (b"\xff\xd8\xff\xe0" + bytes(300), "a JPEG picture"),
        (b"\xef\xbb\xbf\r\n<!DOCTYPE html><html>", "a web page"),
        ("Anleitung für den Betrachter\r\n".encode() * 30, "a text"),
        (b"[autorun]\r\nopen=viewer.exe\r\n", "a text"),
        (b"\x5c\1\0\0" + bytes(340) + b"n+1\0" + bytes(500), "a NIfTI image"),
        (b"\x5c\1\0\0" + bytes(344) + b"\1" * 500, "an Analyze image"),
        (zipped("[Content_Types].xml", "word/document.xml"), "an office document"),
        (gzip.compress(b"only text " * 99, mtime=0), "a gzipped file of another kind"),
        (b"\x13\x37" * 300, "This is not a DICOM file."),
    ],
)
def test_what_is_foreign_is_called_by_its_name(tmp_path: Path, content: bytes, words: str) -> None:
    found = made(tmp_path, content).found
    assert isinstance(found, Refusal)
    assert found.reason is Reason.NOT_DICOM
    assert words in found.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(300), "a 7z archive"),
        (b"Rar!\x1a\x07\1\0" + bytes(300), "a RAR archive"),
        (b"PK\x07\x08PK\3\4" + bytes(300), "a part of a split zip archive"),
        (bz2.compress(tarred("w")), "a tar archive packed with bzip2"),
        (lzma.compress(tarred("w")), "a tar archive packed with xz"),
        (lzma.compress(encoded(instance())), "a DICOM file packed with xz"),
        (bz2.compress(random.Random(1).randbytes(128) + b"DICM" + bytes(10**6)), "a DICOM file"),
        (ISO, "the image of a CD or DVD"),
    ],
)
def test_archive_files_that_are_not_unpacked_here_are_never_foreign(
    tmp_path: Path, content: bytes, words: str
) -> None:
    found = made(tmp_path, content).found
    assert isinstance(found, Refusal)
    assert found.reason is Reason.UNREADABLE
    assert words in found.message
    assert "unpack it and drop the files" in found.message


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_what_else_is_packed_so_is_foreign(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    assert reason(made(tmp_path, pack(b"a line of a log\n" * 99))) is Reason.NOT_DICOM


# -- containers --------------------------------------------------------------------------


def old_tar() -> bytes:
    # Before POSIX there was no magic, only the checksum.
    block = bytearray(tarred("w", tarfile.USTAR_FORMAT)[:512])
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (zipped("a.dcm", "b/viewer.jar"), ContainerKind.ZIP),
        (zipped(), ContainerKind.ZIP),
        (zipped("a.dcm")[:50], ContainerKind.ZIP),
        (tarred("w"), ContainerKind.TAR),
        (tarred("w", tarfile.GNU_FORMAT), ContainerKind.TAR),
        (old_tar(), ContainerKind.TAR),
        (tarred("w:gz"), ContainerKind.TAR_GZ),
        (gzip.compress(encoded(instance()), mtime=0), ContainerKind.GZIP),
        (b"PK00" + zipped("a.dcm"), ContainerKind.ZIP),
    ],
    ids=[
        "zip",
        "empty zip",
        "cut zip",
        "tar",
        "GNU tar",
        "old tar",
        "tar.gz",
        "gzip",
        "part of a zip",
    ],
)
def test_archive_files_are_to_be_unpacked(
    tmp_path: Path, content: bytes, kind: ContainerKind
) -> None:
    found = made(tmp_path, content)
    assert found.found == Container(kind)
    assert found.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        zipped("[Content_Types].xml", "word/document.xml"),
        zipped("mimetype", "content.xml"),
        zipped("a/b.class", "META-INF/MANIFEST.MF"),
        zipped("x", "AndroidManifest.xml"),
        gzip.compress(b"only text " * 99, mtime=0),
        b"\x1f\x8b\x08junk",
    ],
)
def test_documents_and_programs_are_not(tmp_path: Path, content: bytes) -> None:
    assert reason(made(tmp_path, content)) is Reason.NOT_DICOM


def test_a_dicomdir_is_a_container_and_needs_no_study(tmp_path: Path) -> None:
    ds = Dataset()
    ds.FileSetID = "DISC"
    ds.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    ds.SOPClassUID = MediaStorageDirectoryStorage
    content = encoded(ds)
    assert made(tmp_path, content).found == Container(ContainerKind.DICOMDIR)
    assert reason(made(tmp_path, content[:-3])) is Reason.INCOMPLETE


def test_the_first_bytes_tell_enough_for_import() -> None:
    assert sniff(encoded(instance())[:512]) == "dicom"
    assert sniff(raw.explicit()[:512]) == "maybe"
    assert sniff(bytes(512)) == "maybe"
    assert sniff(zipped("a")[:512]) == "zip"
    assert sniff(tarred("w")[:512]) == "tar"
    assert sniff(tarred("w:gz")[:512]) == "gzip"
    assert sniff(b"Rar!\x1a\x07" + bytes(510)) == "packed"
    assert sniff(b"MZ" + bytes(510)) == "foreign"
    assert sniff(b"") == "maybe"


def test_messages_hold_no_value_of_the_header(tmp_path: Path) -> None:
    found = made(tmp_path, raw.part10(raw.explicit(study=b"Doe^Jane is her name")))
    assert isinstance(found.found, Refusal)
    assert "Doe" not in found.found.message
    assert found.found.reason is Reason.UNSAFE_UID
