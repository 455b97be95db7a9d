"""The receivers as the service sees them: begun together, looked after, ended.

A receiver that cannot start is down and says why; everything else goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ingester.completion import Key, StudyKey
from ingester.config import Settings
from ingester.control import Document
from ingester.model import Origin
from ingester.spool import Spool

if TYPE_CHECKING:
    from ingester.receivers.dcmtk import DcmtkSettings
    from ingester.receivers.settings import ScpSettings
    from ingester.receivers.supervise import ReceiverState


class Receiver(Protocol):
    """What every receiver offers to the loop; see `receivers.supervise`."""

    state: ReceiverState

    def start(self) -> None:
        """Begin; never raises for the world's reasons."""
        ...

    def poll(self) -> bool:
        """Restart what died; True where files have landed."""
        ...

    def next_poll_in(self) -> float:
        """Return the seconds until `poll` has something to do by itself."""
        ...

    def stop(self, timeout: float) -> None:
        """Let what is coming in finish, then end."""
        ...


class Receivers:
    """All receivers of a site.

    Parameters
    ----------
    on_change : told (name, sentence, is_up=...) when one goes down or comes up
    wake : rung from any thread when `poll` has something to do
    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        on_change: Callable[..., None],
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._on_change = on_change
        self._wake = wake
        self._receivers: list[Receiver] = []
        self._was_up: dict[str, bool] = {}

    def start(self) -> None:
        """Start every receiver that is enabled."""
        self._receivers = list(self._made())
        for receiver in self._receivers:
            receiver.start()
        self._tell_changes()

    def _made(self) -> list[Receiver]:
        made: list[Receiver] = []
        if self._settings.receiver.scp.enabled:
            from ingester.receivers.supervise import ScpReceiver

            made.append(ScpReceiver(scp_settings(self._settings), self._spool.root, self._wake))
        dcmtk = self._settings.receiver.dcmtk
        if dcmtk.enabled:
            from ingester.receivers.dcmtk import DcmtkReceiver

            folder = self._spool.root / dcmtk.source
            made.append(DcmtkReceiver(dcmtk_settings(self._settings), folder, self._wake))
        return made

    def poll(self) -> bool:
        """Look after all; True where files have landed."""
        landed = [receiver.poll() for receiver in self._receivers]
        self._tell_changes()
        return any(landed)

    def next_at(self, now: float) -> float | None:
        """Return when `poll` has something to do by itself (monotonic)."""
        return min((now + each.next_poll_in() for each in self._receivers), default=None)

    def stop(self, timeout: float) -> None:
        """End all."""
        for receiver in self._receivers:
            receiver.stop(timeout)
        self._receivers = []

    def has_association(self, key: Key, origin: Origin) -> bool:
        """Return whether an association is open over which more of *key* may come.

        A study's later objects often come over another association of the same sender,
        so for a study any of its source's counts; a batch is one association.
        """
        is_study = isinstance(key, StudyKey)
        return any(
            each == origin[0] if is_study else (each, batch) == origin
            for receiver in self._receivers
            for each, batch in receiver.state.open
        )

    def as_document(self) -> list[Document]:
        """Return the receivers' states for `status`."""
        return [dataclasses.asdict(receiver.state) for receiver in self._receivers]

    def _tell_changes(self) -> None:
        for receiver in self._receivers:
            state = receiver.state
            if self._was_up.get(state.name) is not state.is_up:
                self._was_up[state.name] = state.is_up
                where = f"listens on {state.host} port {state.port}"
                self._on_change(
                    state.name, where if state.is_up else state.message, is_up=state.is_up
                )


def scp_settings(settings: Settings) -> ScpSettings:
    """Translate `[receiver.scp]` for its processes."""
    from ingester.receivers.settings import ScpSettings

    scp, tls, room = settings.receiver.scp, settings.receiver.scp.tls, settings.spool.min_free
    return ScpSettings(
        host=scp.host,
        port=scp.port,
        ae_title=scp.ae_title,
        require_called_ae_title=scp.require_called_ae_title,
        allow=scp.allow,
        processes=scp.processes,
        max_associations=scp.max_associations,
        max_associations_per_address=scp.max_associations_per_address,
        max_pdu=scp.max_pdu,
        acse_timeout=scp.acse_timeout,
        dimse_timeout=scp.dimse_timeout,
        network_timeout=scp.network_timeout,
        object_bytes=settings.limits.object,
        min_free_bytes=room.size_bytes,
        min_free_share=room.share,
        folder_mode=settings.spool.mode & 0o777,
        tls_certificate=str(tls.certificate or ""),
        tls_key=str(tls.key or ""),
        tls_client_ca=str(tls.client_ca or ""),
        tls_require_client_certificate=tls.require_client_certificate,
    )


def dcmtk_settings(settings: Settings) -> DcmtkSettings:
    """Translate `[receiver.dcmtk]` for its receiver."""
    from ingester.receivers.dcmtk import DcmtkSettings

    dcmtk = settings.receiver.dcmtk
    return DcmtkSettings(
        port=dcmtk.port,
        ae_title=dcmtk.ae_title,
        program=dcmtk.program,
        arguments=dcmtk.arguments,
        certificate=str(dcmtk.certificate or ""),
        key=str(dcmtk.key or ""),
        client_ca=str(dcmtk.client_ca or ""),
    )
