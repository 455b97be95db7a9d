"""Zip archives: honest ones in pages, hostile ones refused before a byte is written."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ingester import durable
from ingester.model import ContainerKind, Reason
from ingester.unpack import Extracted, ExtractRequest, Survey, UnpackLimits, extract

Extract = Callable[..., Extracted]


@pytest.fixture
def unpack(tmp_path: Path) -> Extract:
    """Unpack one page of the given bytes into a fresh folder."""
    folder = tmp_path / "members"
    folder.mkdir()

    def run(archive: bytes, **fields: object) -> Extracted:
        path = tmp_path / "archive"
        path.write_bytes(archive)
        request = ExtractRequest(str(path), ContainerKind.ZIP, str(folder), **fields)  # type: ignore[arg-type]  # any field of the request
        return extract(request)

    return run


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


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


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_members_come_whole_and_in_order(unpack: Extract, method: int) -> None:
    noise = random.Random(1).randbytes(3_000_000)
    members = [("B/IM2", noise), ("A/IM1", bytes(5_000_000)), ("empty", b"")]
    extracted = unpack(zipped(*members, method=method))
    assert [(each.name, each.size_bytes) for each in extracted.members] == [
        ("B/IM2", 3_000_000),
        ("A/IM1", 5_000_000),
        ("empty", 0),
    ]
    assert list(contents(extracted).items()) == [(n, digest(data)) for n, data in members]
    assert extracted.next is None


def test_members_of_one_name_lie_beside_each_other_in_our_mode(
    unpack: Extract, tmp_path: Path
) -> None:
    extracted = unpack(zipped(("a/IM", b"1"), ("b/IM", b"2")))
    assert [each.path for each in extracted.members] == [
        str(tmp_path / "members/000001=IM"),
        str(tmp_path / "members/000002=IM"),
    ]
    mode = os.stat(extracted.members[0].path or "").st_mode
    assert stat.S_IMODE(mode) & ~0o640 == 0


def test_the_archive_file_is_flushed_and_its_members_are_not(unpack: Extract) -> None:
    seen: list[tuple[str, str]] = []
    with durable.observe(lambda effect, path: seen.append((effect, Path(path).name))):
        unpack(zipped(("IM", b"1"), ("IM2", b"2")))
    assert [name for effect, name in seen if effect == "fsync-file"] == ["archive"]


def test_pages_resume_where_the_last_one_ended(unpack: Extract) -> None:
    archive = zipped(*((f"IM{n}", bytes([n])) for n in range(7)))
    pages = [unpack(archive, most_members=3)]
    while (following := pages[-1].next) is not None:
        pages.append(unpack(archive, most_members=3, first=following))
    assert [[each.number for each in page.members] for page in pages] == [
        [1, 2, 3], [4, 5, 6], [7],
    ]  # fmt: skip
    names = [each.name for page in pages for each in page.members]
    assert names == [f"IM{n}" for n in range(7)]
    assert [page.survey for page in pages] == [Survey(7, 7), None, None]


def test_a_page_is_full_once_it_has_grown_large(unpack: Extract) -> None:
    archive = zipped(("a", bytes(90)), ("b", bytes(90)), ("c", bytes(9)))
    page = unpack(archive, most_bytes=100)
    assert [each.name for each in page.members] == ["a", "b"]
    page = unpack(archive, most_bytes=100, first=page.next)
    assert ([each.name for each in page.members], page.next) == (["c"], None)


def test_members_that_an_earlier_run_has_seen_to_are_not_unpacked_again(
    unpack: Extract, tmp_path: Path
) -> None:
    archive = zipped(("IM1", b"1"), ("A/", b""), ("IM2", b"22"), ("IM3", b"3"))
    page = unpack(archive, done=frozenset({1, 4}))
    assert [each.name for each in page.members] == ["IM2"]
    assert page.survey == Survey(3, 4)
    assert os.listdir(tmp_path / "members") == ["000003=IM2"]


def test_the_same_page_can_be_made_again(unpack: Extract) -> None:
    archive = zipped(("IM", b"whole"))
    path = Path(unpack(archive).members[0].path or "")
    path.write_bytes(b"half written, then killed")
    assert contents(unpack(archive)) == {"IM": digest(b"whole")}


def test_request_and_answer_cross_process_borders(unpack: Extract, tmp_path: Path) -> None:
    extracted = unpack(zipped(("../x", b"1")))
    assert pickle.loads(pickle.dumps(extracted)) == extracted
    request = ExtractRequest("/a", ContainerKind.ZIP, str(tmp_path))
    assert pickle.loads(pickle.dumps(request)) == request


def test_folders_and_litter_are_passed_over(unpack: Extract) -> None:
    names = ["A/", "A/IM1", "A/.DS_Store", "__MACOSX/A/._IM1", "A/Thumbs.db", "A/@eaDir/x"]
    extracted = unpack(zipped(*((name, b"" if name == "A/" else b"1") for name in names)))
    assert [each.name for each in extracted.members] == ["A/IM1"]
    assert (extracted.members[0].number, extracted.skipped) == (2, 5)


def test_hidden_and_temporary_names_are_objects_here(unpack: Extract) -> None:
    extracted = unpack(zipped((".hidden", b"1"), ("IM.tmp", b"2"), ("IM~", b"3")))
    assert [each.name for each in extracted.members] == [".hidden", "IM.tmp", "IM~"]


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "\\x", "C:\\x", "c:x", "a/../../x", "a\\..\\x", ".."]
)
def test_an_unsafe_name_refuses_that_member_alone(
    unpack: Extract, tmp_path: Path, name: str
) -> None:
    extracted = unpack(zipped(("IM1", b"1"), (name, b"kept"), ("IM2", b"2")))
    good, bad, after = extracted.members
    assert (good.refusal, after.refusal) == (None, None)
    assert bad.refusal is not None
    assert bad.refusal.reason is Reason.ARCHIVE_MEMBER_UNSAFE
    assert Path(bad.path or "").read_bytes() == b"kept"
    made = {path.name for path in (tmp_path / "members").rglob("*") if path.is_file()}
    assert len(made) == 3
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "name",
    ["Müller.dcm", "影像", "IM\n1", "-rf", "$(id)", "\u202egnp.dcm", "n" * 300, "ü" * 255, "IM 1"],
)
def test_odd_names_are_only_names(unpack: Extract, name: str) -> None:
    (member,) = unpack(zipped((name, b"1"))).members
    assert member.refusal is None
    assert member.name.isprintable()
    path = Path(member.path or "")
    assert path.read_bytes() == b"1"
    number, _, safe = path.name.partition("=")
    assert number == "000001"
    assert len(os.fsencode(safe)) <= 200
    assert not safe.startswith(("-", "."))


def test_names_without_a_character_set_are_code_page_437(unpack: Extract) -> None:
    archive = zipped(("M_ller", b"1")).replace(b"M_ller", b"M\x81ller")
    assert [each.name for each in unpack(archive).members] == ["Müller"]


def test_a_symbolic_link_is_refused_and_its_target_never_followed(unpack: Extract) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("IM", b"1")
    link_member, member = unpack(out.getvalue()).members
    assert link_member.refusal is not None
    assert link_member.refusal.reason is Reason.ARCHIVE_MEMBER_UNSAFE
    path = Path(link_member.path or "")
    assert (path.is_symlink(), path.read_bytes()) == (False, b"/etc/passwd")
    assert member.refusal is None


def test_a_half_copied_archive_may_still_grow(unpack: Extract) -> None:
    archive = zipped(("IM1", random.Random(2).randbytes(5000)), ("IM2", b"2"))
    for cut in (30, 2000, len(archive) - 22, len(archive) - 1):
        extracted = unpack(archive[:cut])
        assert reason(extracted) is Reason.INCOMPLETE
        assert extracted.refusal is not None
        assert extracted.refusal.may_grow


def test_an_encrypted_archive_is_refused_as_a_whole(unpack: Extract) -> None:
    archive = bytearray(zipped(("IM1", b"1"), ("IM2", b"2")))
    entry = archive.rfind(b"PK\x01\x02")
    archive[entry + 8] |= 1
    assert reason(unpack(bytes(archive))) is Reason.ARCHIVE_ENCRYPTED


@pytest.mark.parametrize(
    ("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (95, "XZ"), (77, "method 77")]
)
def test_a_method_that_cannot_be_read_refuses_the_whole_and_is_named(
    unpack: Extract, method: int, name: str
) -> None:
    archive = bytearray(zipped(("IM1", b"1")))
    struct.pack_into("<H", archive, archive.rfind(b"PK\x01\x02") + 10, method)
    extracted = unpack(bytes(archive))
    assert reason(extracted) is Reason.UNREADABLE
    assert extracted.refusal is not None
    assert name in extracted.refusal.message


@pytest.mark.parametrize(
    "head",
    [b"\x09\x04\x05\0\x5d\xff\xff\xff\xff", b"\x09\x04\x05\0\xff\0\0\1\0", b"\x09\x04\x06\0"],
)
def test_lzma_that_asks_for_too_much_memory_is_kept_raw(unpack: Extract, head: bytes) -> None:
    body = head + bytes(100)
    archive = _one_member(b"IM", body, method=14, unpacked=1, crc=0)
    tracemalloc.start()
    try:
        (member,) = unpack(archive).members
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert member.refusal is not None
    assert member.refusal.reason is Reason.MALFORMED
    assert Path(member.path or "").read_bytes().endswith(body)


def test_overlapping_members_are_a_bomb(unpack: Extract) -> None:
    archive = zipped(("IM1", bytes(1000)), ("IM2", bytes(1000)))
    first, second = _entries(archive)
    hostile = bytearray(archive)
    struct.pack_into("<L", hostile, second + 42, _offset(archive, first))
    assert reason(unpack(bytes(hostile))) is Reason.BOMB


def test_one_member_listed_many_times_is_a_bomb(unpack: Extract) -> None:
    archive = zipped(("IM1", bytes(1000)))
    start = archive.index(b"PK\x01\x02")
    end = archive.rindex(b"PK\x05\x06")
    entry = archive[start:end]
    tail = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 50, 50, 50 * len(entry), start, 0)
    assert reason(unpack(archive[:start] + entry * 50 + tail)) is Reason.BOMB


def test_too_many_members_are_a_bomb_and_cost_nothing(unpack: Extract) -> None:
    archive = zipped(*((f"{n}", b"") for n in range(50)))
    extracted = unpack(archive, limits=UnpackLimits(members=49))
    assert reason(extracted) is Reason.BOMB
    assert extracted.refusal is not None
    assert "[limits] archive_members" in extracted.refusal.message
    assert len(unpack(archive, limits=UnpackLimits(members=50)).members) == 50


def test_a_directory_that_hides_its_size_is_walked_within_limits(unpack: Extract) -> None:
    archive = bytearray(zipped(*((f"{n}", b"") for n in range(50))))
    struct.pack_into("<HH", archive, archive.rfind(b"PK\x05\x06") + 8, 1, 1)
    assert reason(unpack(bytes(archive), limits=UnpackLimits(members=20))) is Reason.BOMB
    assert reason(unpack(bytes(archive))) is Reason.MALFORMED


def test_total_size_and_ratio_have_limits(unpack: Extract) -> None:
    archive = zipped(("a", bytes(600_000)), ("b", bytes(600_000)))
    assert reason(unpack(archive, limits=UnpackLimits(total_bytes=1_199_999))) is Reason.BOMB
    assert reason(unpack(archive, limits=UnpackLimits(ratio_floor_bytes=500_000))) is Reason.BOMB
    assert reason(unpack(archive, limits=UnpackLimits(ratio_floor_bytes=1_000_000))) is Reason.BOMB
    assert len(unpack(archive).members) == 2, "below the floor, zeros may pack as well as they do"


@pytest.mark.parametrize("claimed", [10, 100, 5000])
def test_a_member_that_lies_about_its_size_is_kept_raw(unpack: Extract, claimed: int) -> None:
    data = bytes(range(256)) * 4
    archive = bytearray(zipped(("IM1", data), ("IM2", b"2")))
    struct.pack_into("<L", archive, archive.find(b"PK\x01\x02") + 24, claimed)
    liar, honest = unpack(bytes(archive)).members
    assert honest.refusal is None
    assert liar.refusal is not None
    assert liar.refusal.reason is Reason.MALFORMED
    raw = Path(liar.path or "").read_bytes()
    assert zlib.decompress(raw[30 + len("IM1") :], -15) == data


def test_a_damaged_member_is_kept_raw_and_the_rest_arrives(unpack: Extract) -> None:
    noise = random.Random(3).randbytes(10_000)
    archive = bytearray(zipped(("IM1", noise), ("IM2", b"2"), method=zipfile.ZIP_STORED))
    archive[1000] ^= 0xFF
    damaged, good = unpack(bytes(archive)).members
    assert good.refusal is None
    assert damaged.refusal is not None
    assert damaged.refusal.reason is Reason.MALFORMED
    record = Path(damaged.path or "").read_bytes()
    assert record == bytes(archive[: 30 + len("IM1") + len(noise)])


@pytest.mark.parametrize("method", METHODS[1:])
def test_damaged_packed_bytes_are_kept_raw(unpack: Extract, method: int) -> None:
    noise = random.Random(4).randbytes(10_000)
    archive = bytearray(zipped(("IM1", noise), method=method))
    archive[40:80] = bytes(40)
    (damaged,) = unpack(bytes(archive)).members
    assert damaged.refusal is not None
    assert damaged.refusal.reason is Reason.MALFORMED
    assert Path(damaged.path or "").read_bytes().startswith(b"PK\x03\x04")


def test_bytes_hidden_behind_a_member_are_not_lost(unpack: Extract) -> None:
    packed = zlib.compressobj(wbits=-15)
    body = packed.compress(b"1") + packed.flush() + b"hidden"
    archive = _one_member(b"IM", body, method=8, unpacked=1, crc=zlib.crc32(b"1"))
    (member,) = unpack(archive).members
    assert member.refusal is not None
    assert Path(member.path or "").read_bytes().endswith(b"hidden")


def test_a_directory_that_points_nowhere_is_malformed(unpack: Extract) -> None:
    archive = zipped(("IM1", bytes(100)))
    (entry,) = _entries(archive)
    for field, value in ((42, 7), (42, 0x7FFFFFFF), (20, 0x7FFFFFFF)):
        hostile = bytearray(archive)
        struct.pack_into("<L", hostile, entry + field, value)
        assert reason(unpack(bytes(hostile))) is Reason.MALFORMED


def test_offsets_that_no_file_reaches_are_malformed(unpack: Extract) -> None:
    archive = zipped(("IM1", bytes(100)))
    (entry,) = _entries(archive)
    end = archive.rindex(b"PK\x05\x06")
    hostile = bytearray(archive[:end])
    for field in (20, 24, 42):
        struct.pack_into("<L", hostile, entry + field, 0xFFFFFFFF)
    extra = struct.pack("<HH3Q", 1, 24, 2**64 - 1, 2**63, 2**64 - 2)
    struct.pack_into("<H", hostile, entry + 30, len(extra))
    tail = struct.pack(
        "<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, len(hostile) - entry + len(extra), entry, 0
    )
    assert reason(unpack(bytes(hostile) + extra + tail)) is Reason.MALFORMED
    far = struct.pack("<4sLQL", b"PK\x06\x07", 0, 2**64 - 1, 1)
    assert reason(unpack(archive[:end] + far + archive[end:])) is Reason.MALFORMED


def test_a_part_of_a_split_archive_says_so(unpack: Extract) -> None:
    archive = bytearray(zipped(("IM1", b"1")))
    struct.pack_into("<H", archive, archive.rfind(b"PK\x05\x06") + 4, 2)
    assert reason(unpack(bytes(archive))) is Reason.UNREADABLE


def test_zip64_sizes_are_read(unpack: Extract) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("IM1", "w", force_zip64=True) as file:
        file.write(b"1")
    data = out.getvalue()
    start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry = bytearray(data[start:end])
    struct.pack_into("<LL", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    extra = struct.pack("<HHQQ", 1, 16, 1, 1)
    struct.pack_into("<H", entry, 30, len(extra))
    entry += extra
    end64 = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(entry), 1)
    last = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    assert contents(unpack(data[:start] + bytes(entry) + end64 + locator + last)) == {
        "IM1": digest(b"1")
    }


def test_bytes_before_the_archive_and_a_comment_after_it_are_fine(unpack: Extract) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("IM1", b"1")
        archive.comment = b"burnt on a Friday"
    assert contents(unpack(b"MZ stub " * 10 + out.getvalue())) == {"IM1": digest(b"1")}


INNER = zipped(("README.TXT", b"see the viewer"), method=zipfile.ZIP_STORED)


@pytest.mark.parametrize("behind", [0, 1, 30, 4000])
def test_cut_within_or_behind_a_member_that_is_an_archive_nothing_is_taken(
    unpack: Extract, behind: int
) -> None:
    noise = random.Random(1).randbytes(5000)
    whole = zipped(
        ("IM1", b"1" * 300), ("viewer.jar", INNER), ("IM2", noise), method=zipfile.ZIP_STORED
    )
    end_of_inner = whole.index(INNER) + len(INNER)
    assert reason(unpack(whole[: end_of_inner + behind])) is Reason.INCOMPLETE


def test_two_archives_one_behind_the_other_are_not_taken_for_one(unpack: Extract) -> None:
    assert reason(unpack(zipped(("IM1", b"1")) + zipped(("IM2", b"2")))) is Reason.MALFORMED


@pytest.mark.parametrize("more", [b"x", b"\0" * 200 + b"DICM", zipped(("IM2", b"2"))[:-5]])
def test_what_follows_the_end_is_not_dropped(unpack: Extract, more: bytes) -> None:
    assert reason(unpack(zipped(("IM1", b"1")) + more)) is Reason.MALFORMED


def test_zeros_behind_the_end_are_padding(unpack: Extract) -> None:
    assert contents(unpack(zipped(("IM1", b"1")) + bytes(700))) == {"IM1": digest(b"1")}


@pytest.mark.parametrize(
    "said", [b"PK\5\6", b"PK\5\6 and more of it, beyond one record's length", INNER]
)
def test_a_comment_may_say_anything(unpack: Extract, said: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("IM1", b"1")
        archive.comment = said
    assert contents(unpack(out.getvalue())) == {"IM1": digest(b"1")}


def test_memory_stays_constant(unpack: Extract) -> None:
    archive = zipped(("a", bytes(80 << 20)), ("b", random.Random(5).randbytes(10 << 20)))
    tracemalloc.start()
    try:
        members = unpack(archive).members
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(members) == 2
    assert peak < 8 << 20


def test_a_full_disk_is_not_the_archives_fault(unpack: Extract, tmp_path: Path) -> None:
    def full(effect: str, path: str) -> None:
        if effect == "write":
            raise OSError(28, "No space left on device")

    with durable.observe(full), pytest.raises(OSError, match="No space left"):
        unpack(zipped(("IM1", b"1")))
    assert not [path for path in (tmp_path / "members").rglob("*") if path.is_file()]


def _entries(archive: bytes) -> list[int]:
    found, at = [], archive.find(b"PK\x01\x02")
    while at >= 0:
        found.append(at)
        at = archive.find(b"PK\x01\x02", at + 4)
    return found


def _offset(archive: bytes, entry: int) -> int:
    (offset,) = struct.unpack_from("<L", archive, entry + 42)
    return int(offset)


def _one_member(name: bytes, body: bytes, *, method: int, unpacked: int, crc: int) -> bytes:
    sizes = (crc, len(body), unpacked, len(name), 0)
    local = struct.pack("<4sHHHHHLLLHH", b"PK\x03\x04", 20, 0, method, 0, 0, *sizes) + name + body
    entry = struct.pack(
        "<4sHHHHHHLLLHHHHHLL", b"PK\x01\x02", 20, 20, 0, method, 0, 0, *sizes, 0, 0, 0, 0, 0
    )
    entry += name
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(local), 0)
    return local + entry + end
