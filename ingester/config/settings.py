"""The sections and keys of `ingest.toml`, with their defaults and their meaning.

This is the one place where a key, its default and its comment stand: the text of
`ingest.toml` is written from it (`text.py`), and the documentation is held to it by
a test.  Defaults are written as a person would write them ("30s", "2 GiB").
"""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingester.config.values import (
    AeTitle,
    Allowed,
    Argument,
    CharacterSet,
    ColumnKeyword,
    Count,
    Duration,
    DurationOrNever,
    FilePath,
    MinFree,
    Mode,
    OptionalAeTitle,
    OptionalPath,
    OptionalSourceName,
    Port,
    Positive,
    Size,
    SourceName,
)


def setting(default: Any, description: str) -> Any:
    """Declare a key: its default as written in the file, and its comment."""
    return Field(default=default, description=description)


def section() -> Any:
    """Declare a section within: left out, it is validated as if it stood there empty."""
    return Field(default={})


class Section(BaseModel):
    """A section of the file: frozen, without unknown keys, defaults validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class SpoolSettings(Section):
    """Where files arrive."""

    path: FilePath = setting("spool", "the drop folder")
    default_source: SourceName = setting(
        "MANUAL", "the source of a file that lies in no declared source's folder"
    )
    watch: Literal["auto", "native", "poll"] = setting(
        "auto",
        "how new files are noticed: native (by the kernel), poll, auto (poll on network mounts)",
    )
    rescan: Duration = setting("30s", "how often everything is listed, whatever the watcher says")
    quiet: Duration = setting(
        "2s", "how long a file must be still where it cannot be told who writes"
    )
    network_quiet: Duration = setting(
        "10s", "the same on network mounts, whose clocks and sizes lag"
    )
    ignore: tuple[str, ...] = setting(
        (), 'more names to leave alone, as shell patterns: ["*.lock", "backup*"]'
    )
    incomplete_after: Duration = setting(
        "15m", "how long a file that is cut short may still grow before it is quarantined"
    )
    mode: Mode = setting(0o2770, "the mode of folders in the spool (files are 0640)")
    group: str = setting("", 'the group of folders in the spool ("" = leave it)')
    min_free: MinFree = setting(
        "1 GiB", 'senders are asked to wait below this much free space (a size, or "5 %")'
    )


class SourceSettings(Section):
    """A declared source: a drop folder of its own, `spool/X`, and what its files leave out."""

    character_set: CharacterSet = setting(
        "", 'read text by this where a file names none, such as "ISO_IR 100" ("" = ASCII)'
    )
    issuer_of_patient_id: str = setting(
        "", "whose patient IDs these are, where a file does not say"
    )


class ArchiveSettings(Section):
    """Where files live, for ever."""

    path: FilePath = setting("archive", "the archive's folder")
    intake: Literal["auto", "link", "copy"] = setting(
        "auto",
        "auto (hard link where nobody else can still write to the file, else copy), link, copy",
    )
    mode: Mode = setting(0o2750, "the mode of folders in the archive (objects are 0440)")
    min_free: MinFree = setting("1 GiB", "files wait in the spool below this much free space")


class IndexSettings(Section):
    """The SQLite index."""

    path: FilePath = setting("archive/index.db", "the index, on a local disk")
    columns: tuple[ColumnKeyword, ...] = setting(
        (),
        "DICOM keywords that get a typed, indexed column of their own in `instances`: "
        '["SliceThickness", "KVP"]',
    )
    snapshot: DurationOrNever = setting(
        "1h", 'how often archive/index-snapshot.db is made, for shares and notebooks ("" = never)'
    )


class LimitSettings(Section):
    """What is too much: such a file goes to quarantine, whole."""

    object: Size = setting("8 GiB", "the largest object")
    archive_members: Positive = setting(100_000, "the most files in one zip or tar")
    archive_bytes: Size = setting("64 GiB", "the most bytes that one zip or tar may unpack to")
    archive_ratio: Positive = setting(
        200, "how many times larger than packed a member may unpack to"
    )
    nesting: Positive = setting(64, "the deepest nesting of sequences")
    elements: Positive = setting(500_000, "the most data elements in one object")
    header: Size = setting("16 MiB", "the largest header (all but the pixels)")


class WorkerSettings(Section):
    """How much work is done at once."""

    prepare: Count = setting(0, "processes that read and hash arriving files (0 = one per core)")
    derive: Count = setting(0, "processes that make thumbnails and videos (0 = one per core)")
    engine: Literal["processes"] = setting("processes", "where they run: processes on this machine")

    @property
    def prepare_count(self) -> int:
        """Return the number of preparing processes, cores counted."""
        return self.prepare or len(os.sched_getaffinity(0))

    @property
    def derive_count(self) -> int:
        """Return the number of deriving processes, cores counted."""
        return self.derive or len(os.sched_getaffinity(0))


class TlsSettings(Section):
    """Encryption of our own receiver: on where a certificate is named."""

    certificate: OptionalPath = setting("", 'the certificate chain, PEM ("" = no TLS)')
    key: OptionalPath = setting("", "its private key, PEM")
    client_ca: OptionalPath = setting("", "the authority that signs the clients' certificates, PEM")
    require_client_certificate: bool = setting(False, "refuse clients without a certificate")

    @model_validator(mode="after")
    def _is_complete(self) -> TlsSettings:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("name both `certificate` and `key`, or neither")
        if self.require_client_certificate and not (self.certificate and self.client_ca):
            raise ValueError("`require_client_certificate` needs `certificate` and `client_ca`")
        return self


class PeerSettings(Section):
    """Where storage commitment results for this peer go."""

    ae_title: OptionalAeTitle = setting("", "its AE title")
    host: str = setting("", "its address")
    port: Port = setting(0, "its port")


class ScpSettings(Section):
    """Our own receiver, a Storage SCP."""

    enabled: bool = setting(True, "whether it runs")
    host: str = setting(
        "127.0.0.1", 'the address it listens on ("0.0.0.0" = every network; then see `allow`)'
    )
    port: Port = setting(11112, "the port it listens on")
    ae_title: AeTitle = setting("INGESTER", "its AE title")
    require_called_ae_title: bool = setting(
        False, "refuse associations that call another AE title than ours"
    )
    allow: tuple[Allowed, ...] = setting(
        (),
        'who may send: "AE", "ADDRESS/BITS", "AE@ADDRESS/BITS" or "tls:SUBJECT" '
        "([] = everybody who reaches the port)",
    )
    processes: Positive = setting(2, "processes that receive")
    max_associations: Positive = setting(64, "associations at once")
    max_associations_per_address: Positive = setting(16, "associations at once from one address")
    max_pdu: Positive = setting(131072, "the largest PDU we take, in bytes")
    acse_timeout: Duration = setting("10s", "how long an association request may take")
    dimse_timeout: Duration = setting("60s", "how long the next message may take")
    network_timeout: Duration = setting("60s", "how long a peer may be silent")
    tls: TlsSettings = section()
    peers: dict[str, PeerSettings] = Field(default_factory=dict)


class DcmtkSettings(Section):
    """DCMTK's storescp, started and watched by us, for who prefers it."""

    enabled: bool = setting(False, "whether it runs")
    port: Port = setting(11113, "the port it listens on")
    ae_title: AeTitle = setting("INGESTER", "its AE title")
    source: SourceName = setting("DCMTK", "the source of files that do not name their sender")
    program: str = setting("storescp", "the program: a name on the PATH, or a path")
    arguments: tuple[str, ...] = setting((), "more arguments for it")
    certificate: OptionalPath = setting("", 'the certificate chain, PEM ("" = no TLS)')
    key: OptionalPath = setting("", "its private key, PEM")
    client_ca: OptionalPath = setting("", "the authority that signs the clients' certificates, PEM")


class ShareSettings(Section):
    """A folder elsewhere, usually a mount, that is a drop folder too."""

    path: FilePath = setting("", "the folder")
    source: OptionalSourceName = setting(
        "", 'the source of its files ("" = [spool] default_source)'
    )
    poll: Duration = setting("30s", "how often it is listed")


class ReceiverSettings(Section):
    """Everything that brings files into the spool."""

    scp: ScpSettings = section()
    dcmtk: DcmtkSettings = section()
    share: tuple[ShareSettings, ...] = ()


class ThumbnailSettings(Section):
    """The JPEG beside every object."""

    documents: Literal["render", "card"] = setting(
        "render", "PDF, SR, ECG and the like: render (a picture of the content), card (its kind)"
    )
    prefer_voi_lut: tuple[str, ...] = setting(
        ("MG", "DX", "CR"), "modalities whose VOI LUT goes before their window"
    )
    pet_inverse: bool = setting(False, "show PET dark on white")
    overlays: bool = setting(False, "burn overlays in")


class VideoSettings(Section):
    """The MP4 beside every multi-frame object."""

    scroll: bool = setting(True, "make videos of volumes too, which have no time")
    hevc: Literal["transcode", "copy"] = setting(
        "transcode", "HEVC streams: transcode (plays everywhere), copy (as they are)"
    )
    audio: Literal["drop", "copy"] = setting("drop", "sound: drop (a voice may identify), copy")
    trim: bool = setting(False, "apply Start Trim and Stop Trim")
    sweep: bool = setting(False, "apply Preferred Playback Sequencing (forth and back)")
    prefer_recommended_rate: bool = setting(
        False, "Recommended Display Frame Rate goes before the frames' own times"
    )
    min_seconds: float = setting(0, "repeat shorter videos until they last this long (0 = off)")
    max_edge: Positive = setting(1920, "the longest edge, in pixels")
    max_frames: Positive = setting(5000, "objects with more frames get no video")


class HookSettings(Section):
    """Programs of yours, told when something happened (argument lists, no shell)."""

    study_quiet: Duration = setting("60s", "how long nothing must come before a study is complete")
    study_complete: tuple[Argument, ...] = setting(
        (), 'a study is complete: ["/usr/local/bin/notify", "{study_instance_uid}", "{folder}"]'
    )
    batch_complete: tuple[Argument, ...] = setting(
        (), 'a batch is complete: ["/usr/local/bin/notify", "{source}", "{batch}"]'
    )
    quarantined: tuple[Argument, ...] = setting((), "a file was quarantined")


class LogSettings(Section):
    """What the service says; never a patient's data."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "debug, info, warning or error"
    )
    format: Literal["text", "json"] = setting("text", "text or json")
    file: OptionalPath = setting("", 'also write to this file ("" = standard error only)')


class Settings(Section):
    """All of `ingest.toml`; paths are absolute once loaded."""

    spool: SpoolSettings = section()
    sources: dict[SourceName, SourceSettings] = Field(default_factory=dict)
    archive: ArchiveSettings = section()
    index: IndexSettings = section()
    limits: LimitSettings = section()
    workers: WorkerSettings = section()
    receiver: ReceiverSettings = section()
    thumbnails: ThumbnailSettings = section()
    videos: VideoSettings = section()
    hooks: HookSettings = section()
    log: LogSettings = section()
