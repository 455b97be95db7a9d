"""What is refused, with which status, and that nothing of it is kept."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelFind,
    Verification,
)

from ingester import durable
from ingester.receivers.settings import ScpSettings
from tests import factory
from tests.unit.receivers.conftest import Running
from tests.unit.receivers.wire import (
    CT,
    EXPLICIT,
    VERIFICATION,
    Raw,
    associate_rq,
    p_data,
    store_rq,
)

Associate = Callable[..., Association]
Start = Callable[..., Running]

OBJECT = b"\x08\0\x18\0UI\x06\x001.2.3\0"


def sent(scp: Running, data: bytes, uid: bytes = b"1.2.3\0") -> int:
    """Send one object raw and return the status."""
    with Raw(scp.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, store_rq(uid))))
        for at in range(0, len(data), 65536):
            piece = data[at : at + 65536]
            peer.send(p_data((1, 2 * (at + 65536 >= len(data)), piece)))
        return peer.status()


def nothing_kept(scp: Running) -> bool:
    scp.wait_until_empty()
    return scp.received() == [] and scp.leftovers() == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x08\0\x18\0UI\x06\x001.2.4\0", 0xA900),
        (b"\x08\0\x16\0UI\x06\x001.2.9\0" + OBJECT, 0xA900),
        (b"\x10\0\x10\0PN\x04\0Name", 0xC000),
        (b"\x08\0\x18\0UI\0\0", 0xC000),
        (b"GET / HTTP/1.1\r\n\r\n", 0xC000),
    ],
)
def test_a_data_set_that_is_not_what_was_announced(scp: Running, data: bytes, status: int) -> None:
    assert sent(scp, data) == status
    assert nothing_kept(scp)


def test_a_large_data_set_is_compared_too(scp: Running) -> None:
    pixels = b"\xe0\x7f\x10\0OB\0\0" + (3 * 2**20).to_bytes(4, "little") + bytes(3 * 2**20)
    assert sent(scp, b"\x08\0\x18\0UI\x06\x001.2.4\0" + pixels) == 0xA900
    assert nothing_kept(scp)


@pytest.mark.parametrize("uid", [b"../../x\0", b"", b"1.2.", b"1" * 66, b"1.2\n3\0", b"x" * 10_000])
def test_an_unsafe_sop_instance_uid(scp: Running, uid: bytes) -> None:
    assert sent(scp, OBJECT, uid) == 0xC000
    assert nothing_kept(scp)


def test_a_store_without_a_data_set(scp: Running) -> None:
    with Raw(scp.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, store_rq(data_set_type=0x0101))))
        assert peer.status() == 0xC000


def test_larger_than_the_limit(start: Start) -> None:
    scp = start(object_bytes=3 * 2**20)
    assert sent(scp, OBJECT + bytes(4 * 2**20)) == 0xA701
    assert nothing_kept(scp)


@pytest.mark.parametrize(
    "effect", ["create", "write", "fsync-file", "mkdir", "rename", "fsync-folder"]
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE])
def test_what_is_not_durable_is_not_acknowledged(scp: Running, effect: str, code: int) -> None:
    def fail(name: str, path: str) -> None:
        if name == effect:
            raise OSError(code, os.strerror(code), path)

    with durable.observe(fail):
        assert sent(scp, OBJECT) == 0xA700
        scp.wait_until_empty()
    assert nothing_kept(scp)
    assert sent(scp, OBJECT) == 0x0000


def test_disk_full_in_the_middle_of_a_large_object(scp: Running) -> None:
    writes = []

    def fail(name: str, path: str) -> None:
        if name == "write":
            writes.append(path)
            if len(writes) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with durable.observe(fail):
        assert sent(scp, OBJECT + bytes(8 * 2**20)) == 0xA700
    assert len(writes) == 3
    assert nothing_kept(scp)


# ------------------------------------------------------------------ associations


def rejected(scp: Running, **how: Any) -> tuple[int, int, int] | None:
    """Ask for an association; return (result, source, reason) where it is rejected."""
    with Raw(scp.port) as peer:
        peer.send(associate_rq(**how))
        kind, body = peer.read()
        if kind == 2:
            return None
        assert kind == 3
        return body[1], body[2], body[3]


def test_the_called_ae_title_counts_where_it_must(start: Start) -> None:
    scp = start(require_called_ae_title=True)
    assert rejected(scp, called=b"OTHER") == (1, 1, 7)
    assert rejected(scp, called=b" INGESTER") is None


@pytest.mark.parametrize(
    ("allow", "is_admitted"),
    [
        ((), True),
        (("RAW",), True),
        (("CT1", "RAW@127.0.0.0/8"), True),
        (("127.0.0.1",), True),
        (("raw",), False),
        (("RAW@10.0.0.0/8", "10.0.0.0/8"), False),
        (("tls:ct1",), False),
    ],
)
def test_the_allow_list(start: Start, allow: tuple[str, ...], is_admitted: bool) -> None:
    assert rejected(start(allow=allow)) == (None if is_admitted else (1, 1, 3))


def test_protocol_version_and_application_context(scp: Running) -> None:
    assert rejected(scp, version=2) == (1, 2, 2)
    assert rejected(scp, application="1.2.3") == (1, 1, 2)


def test_limits_of_associations(start: Start) -> None:
    scp = start(max_associations=3, max_associations_per_address=2)
    with Raw(scp.port) as one, Raw(scp.port) as two:
        one.associate()
        two.associate()
        assert rejected(scp) == (2, 3, 2)
    scp.wait_until_empty()
    assert rejected(scp) is None


def test_no_room_no_association(start: Start) -> None:
    assert rejected(start(min_free_share=1.0)) == (2, 3, 1)


def test_other_services_are_refused_by_context(scp: Running, associate: Associate) -> None:
    finds = [PatientRootQueryRetrieveInformationModelFind, ModalityWorklistInformationFind]
    association = associate(
        scp.port,
        [(each, ImplicitVRLittleEndian) for each in finds]
        + [(Verification, ImplicitVRLittleEndian)],
    )
    assert [each.abstract_syntax for each in association.accepted_contexts] == [Verification]
    assert {each.result for each in association.rejected_contexts} == {3}


@pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010, 0x0100, 0x0130, 0x0140, 0x7777])
def test_other_operations_are_refused_cleanly(scp: Running, field: int) -> None:
    with Raw(scp.port) as peer:
        peer.associate(contexts=[(1, CT, (EXPLICIT,)), (3, VERIFICATION, (EXPLICIT,))])
        peer.send(p_data((1, 3, store_rq(field=field))) + p_data((1, 2, OBJECT)))
        assert peer.status() == 0x0211
        peer.send(p_data((3, 3, store_rq(field=0x30, data_set_type=0x0101))))
        assert peer.status() == 0x0000
    assert nothing_kept(scp)


# --------------------------------------------------------------------------- TLS


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the server's and one of the client's, each by an authority of its own."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client"):
        authority = trustme.CA()
        made = authority.issue_cert(
            "127.0.0.1",
            common_name=name,
            organization_name="Clinic",
            organization_unit_name="Radiology",
        )
        made.private_key_pem.write_to_path(folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        authority.cert_pem.write_to_path(folder / f"{name}-authority.pem")
    return folder


def with_tls(certificates: Path, **changes: Any) -> dict[str, Any]:
    return {
        "tls_certificate": str(certificates / "server.pem"),
        "tls_key": str(certificates / "server.key"),
        **changes,
    }


def client_context(certificates: Path, *, is_known: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "server-authority.pem"))
    if is_known:
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


def test_storing_over_tls(start: Start, associate: Associate, certificates: Path) -> None:
    scp = start(**with_tls(certificates))
    with Raw(scp.port):  # connects and says nothing: holds up nobody but itself
        ds = factory.instance(rows=800, columns=800)
        ds.file_meta = dcmread(BytesIO(factory.encoded(ds))).file_meta
        association = associate(
            scp.port,
            [(CTImageStorage, ExplicitVRLittleEndian)],
            tls_args=(client_context(certificates), "127.0.0.1"),
        )
        assert association.send_c_store(ds).Status == 0x0000
        association.release()
    assert dcmread(scp.received("CT1")[0]) == ds


def test_a_client_is_known_by_its_certificate(
    start: Start, associate: Associate, certificates: Path
) -> None:
    known = with_tls(certificates, tls_client_ca=str(certificates / "client-authority.pem"))
    contexts = [(Verification, ImplicitVRLittleEndian)]
    whole = "O=Clinic,OU=Radiology,CN=client"
    for name, is_admitted in (("client", True), (whole, True), ("other", False)):
        scp = start(**known, allow=(f"tls:{name}",))
        tls = (client_context(certificates), "127.0.0.1")
        association = associate(scp.port, contexts, tls_args=tls)
        assert association.is_established == is_admitted


def test_plain_text_to_tls_is_not_served(start: Start, certificates: Path) -> None:
    scp = start(**with_tls(certificates))
    with Raw(scp.port) as peer:
        peer.send(associate_rq())
        assert peer.read()[0] not in (2, 3, 4)


def test_settings_cross_the_border_whole() -> None:
    settings = ScpSettings(allow=("CT1", "10.0.0.0/8"), port=104, min_free_share=0.05)
    assert ScpSettings.from_json(settings.to_json()) == settings
