"""Whatever an archive file says, its members stay in their folders and nothing is lost."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.model import ContainerKind
from ingester.unpack import START, Extracted, ExtractRequest, Place, extract

parts = st.sampled_from(["..", ".", "", "A", "IM1", "C:", "\\", "ü", "\n", "__MACOSX", "x" * 260])
names = st.one_of(st.lists(parts, min_size=1, max_size=4).map("/".join), st.text(min_size=1))
members = st.lists(st.tuples(names, st.binary(max_size=2000)), max_size=6)
kinds = st.sampled_from([ContainerKind.ZIP, ContainerKind.TAR, ContainerKind.TAR_GZ])
few_examples = settings(max_examples=120, deadline=None)


def packed(kind: ContainerKind, files: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    if kind is ContainerKind.ZIP:
        with warnings.catch_warnings(), zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            warnings.simplefilter("ignore")  # two members of one name are what we want
            for name, data in files:
                archive.writestr(zipfile.ZipInfo(name), data)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return gzip.compress(out.getvalue()) if kind is ContainerKind.TAR_GZ else out.getvalue()


def unpacked_in(above: Path, kind: ContainerKind, archive: bytes, most_members: int) -> Extracted:
    """Unpack all pages, check that everything stays inside, and return them as one."""
    path = above / "archive"
    path.write_bytes(archive)
    folder = above / "members"
    folder.mkdir(exist_ok=True)
    pages: list[Extracted] = []
    first: Place | None = START
    while first is not None:
        request = ExtractRequest(str(path), kind, str(folder), first, most_members=most_members)
        pages.append(extract(request))
        following = pages[-1].next
        assert following is None or following.number > first.number
        first = following
    found = tuple(member for page in pages for member in page.members)
    for each in found:
        if each.path is not None:
            assert Path(os.path.normpath(each.path)).parent == folder
            assert Path(each.path).lstat().st_size == each.size_bytes
    inside = {str(each) for each in folder.rglob("*") if not each.is_dir()}
    assert inside == {each.path for each in found if each.path is not None}
    assert sorted(each.name for each in above.iterdir()) == ["archive", "members"]
    if pages[-1].refusal is None:
        assert pages[0].survey is not None
        assert pages[0].survey.members == len(found)
    return Extracted(found, refusal=pages[-1].refusal, skipped=sum(page.skipped for page in pages))


@few_examples
@given(kind=kinds, files=members, most_members=st.integers(1, 4))
def test_every_member_arrives_once_wherever_its_name_points(
    kind: ContainerKind, files: list[tuple[str, bytes]], most_members: int
) -> None:
    try:
        archive = packed(kind, files)
    except (UnicodeError, ValueError):
        return  # a name that the packing program itself refuses
    with tempfile.TemporaryDirectory() as above:
        extracted = unpacked_in(Path(above), kind, archive, most_members)
        assert extracted.refusal is None
        assert len(extracted.members) + extracted.skipped == len(files)
        if not extracted.skipped:
            arrived = [Path(each.path or "").read_bytes() for each in extracted.members]
            assert arrived == [data for _, data in files]


@few_examples
@given(
    kind=kinds,
    files=members.filter(bool),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.integers(0, 10_000),
)
def test_no_damage_leads_out_of_the_folder_or_raises(
    kind: ContainerKind,
    files: list[tuple[str, bytes]],
    damage: list[tuple[int, int]],
    cut: int | None,
) -> None:
    try:
        archive = bytearray(packed(kind, files))
    except (UnicodeError, ValueError):
        return  # a name that the packing program itself refuses
    for at, value in damage:
        archive[at % len(archive)] = value
    with tempfile.TemporaryDirectory() as above:
        whole = bytes(archive) if cut is None else bytes(archive[:cut])
        extracted = unpacked_in(Path(above), kind, whole, most_members=100)
        assert extracted.refusal is None or not extracted.members
