"""What a Storage SCP must be told: values only, so that a child process can take them.

The configuration's sections become one flat `ScpSettings`; it crosses the border to
the receiving processes as JSON on their standard input.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScpSettings:
    """How the SCP listens, whom it lets in and what it takes.

    Durations are in seconds, sizes in bytes.  `min_free_share` is a share of the
    spool's disk (0 to 1); the larger of it and `min_free_bytes` counts.
    """

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "INGESTER"
    require_called_ae_title: bool = False
    allow: tuple[str, ...] = ()
    processes: int = 2
    max_associations: int = 64
    max_associations_per_address: int = 16
    max_pdu: int = 131072
    acse_timeout: float = 10.0
    dimse_timeout: float = 60.0
    network_timeout: float = 60.0
    object_bytes: int = 8 * 2**30
    min_free_bytes: int = 0
    min_free_share: float = 0.0
    folder_mode: int = 0o770
    file_mode: int = 0o640
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_require_client_certificate: bool = False
    log_level: int = 30  # of `logging`: WARNING

    def to_json(self) -> str:
        """Return the settings as JSON, for the child's standard input."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ScpSettings:
        """Build the settings from what `to_json` wrote."""
        values = json.loads(text)
        values["allow"] = tuple(values["allow"])
        return cls(**values)
