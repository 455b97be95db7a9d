"""What a well-behaved sender gets: durable objects, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from ingester import durable
from ingester.archive import escape_source
from tests import factory
from tests.unit.receivers.conftest import Running
from tests.unit.receivers.wire import CT, EXPLICIT, Raw, p_data, store_rq

Associate = Callable[..., Association]


def data_set_bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    length = int.from_bytes(raw[140:144], "little")
    return raw[144 + length :]


def as_sent(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    return data_set_bytes(path)


def test_echo(scp: Running, associate: Associate) -> None:
    association = associate(scp.port, [(Verification, ImplicitVRLittleEndian)])
    assert association.send_c_echo().Status == 0x0000


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_the_data_set_is_stored_byte_for_byte(
    scp: Running, associate: Associate, tmp_path: Path, syntax: str
) -> None:
    ds = factory.instance()
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = ds.PixelData[::-1]
    source = tmp_path / "sent.dcm"
    sent = as_sent(source, factory.encoded(ds, syntax))
    association = associate(scp.port, [(CTImageStorage, syntax)])
    assert association.send_c_store(source).Status == 0x0000
    (path,) = scp.received("CT1")
    # pynetdicom sends a deflated data set without its padding byte.
    assert data_set_bytes(path).rstrip(b"\0") == sent.rstrip(b"\0")
    assert path.stat().st_mode & 0o777 == 0o640
    assert scp.leftovers() == []


@pytest.mark.parametrize("size", [0, 1, 1023, 2**20 - 1, 2**20, 3 * 2**20 + 5])
def test_small_objects_and_streamed_ones_are_the_same(scp: Running, size: int) -> None:
    uid = b"\x08\0\x18\0UI\x06\x001.2.3\0"
    data = uid + b"\xe0\x7f\x10\0OB\0\0" + (size + size % 2).to_bytes(4, "little")
    data += bytes(n % 251 for n in range(size + size % 2))
    with Raw(scp.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, store_rq())))
        pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
        for number, piece in enumerate(pieces, 1):
            peer.send(p_data((1, 2 * (number == len(pieces)), piece)))
        assert peer.status() == 0x0000
    (path,) = scp.received("RAW")
    assert data_set_bytes(path) == data


def test_private_class_in_a_private_syntax(scp: Running) -> None:
    private, syntax = "1.2.826.0.1.3680043.9.1", "1.2.826.0.1.3680043.9.2"
    data = b"\x08\0\x18\0UI\x06\x001.2.3\0"
    with Raw(scp.port) as peer:
        peer.associate(contexts=[(5, private, (syntax, EXPLICIT))])
        peer.send(p_data((5, 3, store_rq()), (5, 2, data)))
        assert peer.status() == 0x0000
    (path,) = scp.received("RAW")
    assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax


def test_encapsulated_pixels_stay_compressed(
    scp: Running, associate: Associate, tmp_path: Path
) -> None:
    from pydicom.encaps import encapsulate

    ds = factory.instance(PixelData=encapsulate([b"\xff\xd8not really\xff\xd9\0"]))
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    source = tmp_path / "sent.dcm"
    sent = as_sent(source, factory.encoded(ds, JPEGBaseline8Bit))
    association = associate(scp.port, [(CTImageStorage, JPEGBaseline8Bit)])
    assert association.send_c_store(source).Status == 0x0000
    assert data_set_bytes(scp.received("CT1")[0]) == sent


def test_file_meta_names_sender_and_receiver(scp: Running, associate: Associate) -> None:
    ds = factory.instance()
    ds.file_meta = dcmread(BytesIO(factory.encoded(ds))).file_meta
    association = associate(scp.port, [(CTImageStorage, ExplicitVRLittleEndian)])
    assert association.send_c_store(ds).Status == 0x0000
    meta = dcmread(scp.received("CT1")[0]).file_meta
    assert meta.MediaStorageSOPClassUID == ds.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.SendingApplicationEntityTitle == "CT1"
    assert meta.ReceivingApplicationEntityTitle == "INGESTER"
    assert meta.FileMetaInformationVersion == b"\0\1"


def test_one_association_is_one_batch_in_order(scp: Running, associate: Associate) -> None:
    association = associate(scp.port, [(CTImageStorage, ExplicitVRLittleEndian)])
    for number in (1, 2, 3):
        ds = factory.instance(instance=number)
        ds.file_meta = dcmread(BytesIO(factory.encoded(ds))).file_meta
        assert association.send_c_store(ds).Status == 0x0000
    names = [path.name for path in scp.received("CT1")]
    assert len({name.partition(".")[0] for name in names}) == 1
    assert [name.partition(".")[2] for name in names] == [f"00000{n}.dcm" for n in (1, 2, 3)]
    assert [dcmread(path).InstanceNumber for path in scp.received("CT1")] == [1, 2, 3]


@pytest.mark.parametrize(
    "title", [b"..", b"a/b", b"a b", b"a\\b", b"index.db", b".staging", b"\x1b[2J", b"\xdcBER"]
)
def test_no_ae_title_escapes_its_folder(scp: Running, title: bytes) -> None:
    data = b"\x08\0\x18\0UI\x06\x001.2.3\0"
    with Raw(scp.port) as peer:
        peer.associate(calling=title)
        peer.send(p_data((1, 3, store_rq()), (1, 2, data)))
        assert peer.status() == 0x0000
    (path,) = scp.received()
    assert path.parent.name == escape_source(title.decode("latin-1"))
    assert len(list((scp.spool / ".received").iterdir())) == 1
    assert dcmread(path).SOPInstanceUID == "1.2.3"


def test_success_comes_after_data_name_and_folder_are_durable(scp: Running) -> None:
    effects: list[tuple[str, str]] = []

    def note(effect: str, path: str) -> None:
        effects.append((effect, Path(path).name))

    with durable.observe(note), Raw(scp.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, store_rq()), (1, 2, b"\x08\0\x18\0UI\x06\x001.2.3\0")))
        assert peer.status() == 0x0000
        seen = list(effects)
    name = scp.received("RAW")[0].name
    assert seen == [
        ("create", name.removesuffix(".dcm")),
        ("write", name.removesuffix(".dcm")),
        ("fsync-file", name.removesuffix(".dcm")),
        ("mkdir", "RAW"),
        ("fsync-folder", ".received"),
        ("rename", name),
        ("fsync-folder", "RAW"),
    ]


def test_several_objects_in_one_pdu_stream(scp: Running) -> None:
    """A sender need not wait for our answers to have its bytes kept apart."""
    message = b"".join(
        p_data((1, 3, store_rq(f"1.2.{n}\0".encode())))
        + p_data((1, 2, b"\x08\0\x18\0UI\x06\x00" + f"1.2.{n}\0".encode()))
        for n in (1, 2, 3)
    )
    with Raw(scp.port) as peer:
        peer.associate()
        peer.send(message)
        assert [peer.status() for _ in range(3)] == [0, 0, 0]
    assert len(scp.received("RAW")) == 3


def test_a_peer_with_tiny_pdus_is_answered_in_tiny_pdus(scp: Running) -> None:
    from tests.unit.receivers.wire import user_information

    with Raw(scp.port) as peer:
        peer.associate(user=user_information(max_pdu=64))
        peer.send(p_data((1, 3, store_rq(field=0x30, data_set_type=0x0101))))
        kind, body = peer.read()
        assert kind == 4
        assert len(body) <= 64


def test_explicit_little_endian_is_preferred_to_implicit(scp: Running) -> None:
    from tests.unit.receivers.wire import IMPLICIT

    with Raw(scp.port) as peer:
        reply = peer.associate(contexts=[(1, CT, (IMPLICIT, EXPLICIT))])
    assert EXPLICIT.encode() in reply
