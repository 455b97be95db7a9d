"""Tar archives: honest ones in pages, hostile ones refused before a byte is written."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingester.model import ContainerKind, Reason
from ingester.unpack import (
    START,
    Extracted,
    ExtractRequest,
    Member,
    Place,
    Survey,
    UnpackLimits,
    extract,
    streams,
)

Extract = Callable[..., Extracted]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
KINDS = [ContainerKind.TAR, ContainerKind.TAR_GZ]


@pytest.fixture
def unpack(tmp_path: Path) -> Extract:
    """Unpack one page of the given bytes into a fresh folder."""
    folder = tmp_path / "members"
    folder.mkdir()

    def run(archive: bytes, **fields: object) -> Extracted:
        path = tmp_path / "archive"
        path.write_bytes(archive)
        kind = ContainerKind.TAR_GZ if archive.startswith(b"\x1f\x8b") else ContainerKind.TAR
        return extract(ExtractRequest(str(path), kind, str(folder), **fields))  # type: ignore[arg-type]  # any field of the request

    return run


def regular(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = target
    return header, b""


def tarred(
    *members: tuple[tarfile.TarInfo, bytes],
    kind: ContainerKind = ContainerKind.TAR,
    format: int = tarfile.PAX_FORMAT,  # noqa: A002 - tarfile's own word
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for header, data in members:
            archive.addfile(header, io.BytesIO(data))
    whole = out.getvalue()
    return gzip.compress(whole, mtime=0) if kind is ContainerKind.TAR_GZ else whole


def contents(extracted: Extracted) -> dict[str, str]:
    """Return the digest of each member's bytes (which a failing test need not show)."""
    assert extracted.refusal is None
    return {each.name: digest(Path(each.path or "").read_bytes()) for each in extracted.members}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reason(extracted: Extracted) -> Reason:
    assert extracted.refusal is not None
    assert extracted.members == ()
    assert extracted.next is None
    return extracted.refusal.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", FORMATS)
def test_members_come_whole_and_in_order(
    unpack: Extract,
    kind: ContainerKind,
    format: int,  # noqa: A002 - tarfile's own word
) -> None:
    members = {
        "B/IM2": random.Random(1).randbytes(2_500_000),
        "A/IM1": b"x" * 511,
        "empty": b"",
        "p" * 90 + "/" + "n" * 90: b"long name",
        "Müller": b"2",
    }
    archive = tarred(*(regular(*each) for each in members.items()), kind=kind, format=format)
    assert list(contents(unpack(archive)).items()) == [
        (name, digest(data)) for name, data in members.items()
    ]


def pages(path: Path, kind: ContainerKind, folder: Path, **fields: Any) -> Iterator[Extracted]:
    """Unpack an archive file that lies there page by page, as the ingest does."""
    folder.mkdir(exist_ok=True)
    first: Place | None = START
    while first is not None:
        page = extract(ExtractRequest(str(path), kind, str(folder), first, **fields))
        yield page
        first = page.next


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_left_open", [True, False])
def test_pages_resume_where_the_last_one_ended(
    tmp_path: Path, kind: ContainerKind, is_left_open: bool
) -> None:
    path = tmp_path / "archive"
    path.write_bytes(tarred(*(regular(f"IM{n}", b"%d" % n * 600) for n in range(7)), kind=kind))
    found: list[Member] = []
    numbers: list[list[int]] = []
    for page in pages(path, kind, tmp_path / "members", most_members=3):
        found += page.members
        numbers.append([each.number for each in page.members])
        if not is_left_open:
            streams.forget_left()
    assert numbers == [[1, 2, 3], [4, 5, 6], [7]]
    assert {each.name: digest(Path(each.path or "").read_bytes()) for each in found} == {
        f"IM{n}": digest(b"%d" % n * 600) for n in range(7)
    }


def test_a_gzipped_archive_is_inflated_once_for_all_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    noise = random.Random(6).randbytes(400_000)
    archive = tarred(regular("IM1", noise), regular("IM2", noise), kind=ContainerKind.TAR_GZ)
    path.write_bytes(archive)
    walk = pages(path, ContainerKind.TAR_GZ, tmp_path / "members", most_members=1)
    assert [each.name for each in next(walk).members] == ["IM1"]
    before = path.stat()
    with path.open("r+b") as file:
        file.write(bytes(10_000))  # what was inflated already is not asked for again
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [each.name for each in next(walk).members] == ["IM2"]
    streams.forget_left()


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_an_earlier_run_has_seen_to_are_not_unpacked_again(
    unpack: Extract, tmp_path: Path, kind: ContainerKind
) -> None:
    archive = tarred(
        regular("IM1", b"1"),
        special("A", tarfile.DIRTYPE),
        regular("IM2", b"22"),
        regular("IM3", b"3"),
        kind=kind,
    )
    page = unpack(archive, done=frozenset({1, 4}))
    assert [each.name for each in page.members] == ["IM2"]
    assert page.survey == Survey(3, 4)
    assert os.listdir(tmp_path / "members") == ["000003=IM2"]


def test_links_and_devices_are_refused_and_the_rest_arrives(
    unpack: Extract, tmp_path: Path
) -> None:
    archive = tarred(
        regular("IM1", b"1"),
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "../../outside"),
        special("fifo", tarfile.FIFOTYPE),
        special("disk", tarfile.BLKTYPE),
        special("tty", tarfile.CHRTYPE),
        special("folder", tarfile.DIRTYPE),
        regular("IM2", b"2"),
    )
    extracted = unpack(archive)
    assert extracted.skipped == 1
    refused = [each for each in extracted.members if each.refusal is not None]
    assert [each.name for each in refused] == ["link", "hard", "fifo", "disk", "tty"]
    assert all(each.path is None for each in refused)
    assert {each.refusal.reason for each in refused if each.refusal} == {
        Reason.ARCHIVE_MEMBER_UNSAFE
    }
    assert [each.name for each in extracted.members if each.path] == ["IM1", "IM2"]
    hard = refused[1].refusal
    assert hard is not None
    assert "another member" in hard.message
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_fifo()]


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "C:\\x", "a/../../x"])
def test_an_unsafe_name_refuses_that_member_alone(unpack: Extract, name: str) -> None:
    good, bad = unpack(tarred(regular("IM1", b"1"), regular(name, b"kept"))).members
    assert good.refusal is None
    assert bad.refusal is not None
    assert bad.refusal.reason is Reason.ARCHIVE_MEMBER_UNSAFE
    assert Path(bad.path or "").read_bytes() == b"kept"


def test_a_name_that_no_character_set_knows_is_escaped(unpack: Extract) -> None:
    archive = tarred(regular("M\udcfcller\n", b"1"), format=tarfile.GNU_FORMAT)
    (member,) = unpack(archive).members
    assert member.name == "M\\udcfcller\\n"
    assert Path(member.path or "").name == "000001=M_ller_"


@pytest.mark.parametrize("kind", KINDS)
def test_a_half_copied_archive_may_still_grow(unpack: Extract, kind: ContainerKind) -> None:
    data = random.Random(2).randbytes(3000)
    archive = tarred(regular("IM1", data), regular("IM2", data[::-1]), kind=kind)
    for cut in (520, 1024, 3000, 5500):
        extracted = unpack(archive[:cut])
        assert reason(extracted) is Reason.INCOMPLETE, cut
        assert extracted.refusal is not None
        assert extracted.refusal.may_grow


def test_an_archive_cut_between_members_is_not_taken_for_whole(unpack: Extract) -> None:
    archive = tarred(regular("IM1", b"1"), regular("IM2", b"2"), format=tarfile.USTAR_FORMAT)
    assert reason(unpack(archive[:1024])) is Reason.INCOMPLETE


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_middle_is_not_taken_for_the_end(
    unpack: Extract, kind: ContainerKind
) -> None:
    archive = bytearray(tarred(regular("IM1", b"1"), regular("IM2", b"2")))
    archive[1024 + 5] ^= 0xFF
    whole = gzip.compress(archive) if kind is ContainerKind.TAR_GZ else bytes(archive)
    assert reason(unpack(whole)) is Reason.MALFORMED


def test_a_second_archive_behind_the_first_is_not_lost(unpack: Extract) -> None:
    assert reason(unpack(tarred(regular("a", b"1")) + tarred(regular("b", b"2")))) is (
        Reason.MALFORMED
    )


def test_several_gzip_streams_are_one_archive(unpack: Extract) -> None:
    whole = tarred(regular("IM1", bytes(2000)), regular("IM2", b"2"))
    archive = gzip.compress(whole[:700]) + gzip.compress(whole[700:]) + bytes(512)
    assert set(contents(unpack(archive))) == {"IM1", "IM2"}


def test_damaged_gzip_is_malformed(unpack: Extract) -> None:
    archive = bytearray(
        tarred(regular("IM1", random.Random(3).randbytes(9000)), kind=ContainerKind.TAR_GZ)
    )
    archive[-6] ^= 0xFF  # of the checksum
    assert reason(unpack(bytes(archive))) is Reason.MALFORMED
    assert reason(unpack(bytes(archive[:-8]) + b"garbage!garbage!")) is Reason.MALFORMED


@pytest.mark.parametrize("size", [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\xff" * 11 + b"\x00"])
def test_impossible_sizes_end_at_once(unpack: Extract, size: bytes) -> None:
    assert reason(unpack(_with_size(tarred(regular("IM1", b"1")), size))) in (
        Reason.MALFORMED,
        Reason.BOMB,
    )


def test_a_size_beyond_the_end_allocates_nothing(unpack: Extract) -> None:
    hostile = _with_size(tarred(regular("IM1", b"1")), b"77777777777\0")
    assert reason(unpack(hostile)) is Reason.INCOMPLETE


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_giant_extension_header_allocates_nothing(unpack: Extract, kind: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type = kind
    header.size = 8 << 30
    tracemalloc.start()
    try:
        assert reason(unpack(header.tobuf(tarfile.GNU_FORMAT) + bytes(5000))) is Reason.MALFORMED
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_headers_without_end_are_refused(unpack: Extract) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    assert reason(unpack(header.tobuf() * 100 + bytes(1024))) is Reason.MALFORMED


@pytest.mark.parametrize(
    "records",
    [b"", b"99 path=x\n", b"x path=y\n", b"12 size=abc\n", b"12 size=-512\n", b"8 pathx\n"],
)
def test_a_damaged_pax_header_never_breaks_the_walk(unpack: Extract, records: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    header.size = len(records)
    body = records + bytes(-len(records) % 512)
    archive = header.tobuf(tarfile.USTAR_FORMAT) + body + tarred(regular("IM1", b"1"))
    extracted = unpack(archive)
    if records:
        assert reason(extracted) is Reason.MALFORMED
    else:
        assert contents(extracted) == {"IM1": digest(b"1")}


def test_sparse_files_refuse_the_whole(unpack: Extract) -> None:
    header = tarfile.TarInfo("IM1")
    header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    assert reason(unpack(tarred((header, b"")))) is Reason.UNREADABLE


def test_litter_is_passed_over(unpack: Extract) -> None:
    extracted = unpack(tarred(regular("A/.DS_Store", b"x" * 900), regular("A/IM1", b"1")))
    assert ([each.name for each in extracted.members], extracted.skipped) == (["A/IM1"], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_members_total_and_ratio_have_limits(unpack: Extract, kind: ContainerKind) -> None:
    many = tarred(*(regular(f"{n}", b"") for n in range(50)), kind=kind)
    assert reason(unpack(many, limits=UnpackLimits(members=49))) is Reason.BOMB
    big = tarred(regular("a", bytes(600_000)), regular("b", bytes(600_000)), kind=kind)
    assert reason(unpack(big, limits=UnpackLimits(total_bytes=1_199_999))) is Reason.BOMB
    assert len(unpack(big).members) == 2
    if kind is ContainerKind.TAR_GZ:
        limits = UnpackLimits(ratio_floor_bytes=1_000_000)
        assert reason(unpack(big, limits=limits)) is Reason.BOMB


def test_global_headers_say_nothing_of_a_member(unpack: Extract) -> None:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", pax_headers={"comment": "a commit", "path": "x"}
    ) as tar:
        for number in (1, 2):
            header, data = regular(f"IM{number}", b"1")
            tar.addfile(header, io.BytesIO(data))
    assert set(contents(unpack(out.getvalue()))) == {"IM1", "IM2"}


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_constant(unpack: Extract, kind: ContainerKind) -> None:
    archive = tarred(
        regular("a", bytes(80 << 20)), regular("b", random.Random(5).randbytes(10 << 20)), kind=kind
    )
    tracemalloc.start()
    try:
        members = unpack(archive).members
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [each.size_bytes for each in members] == [80 << 20, 10 << 20]
    assert peak < 10 << 20


def _with_size(archive: bytes, size: bytes) -> bytes:
    """Return the archive with another size in its first header, the checksum adjusted."""
    header = bytearray(archive[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]
