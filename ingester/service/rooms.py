"""The rooms of the house, furnished from the settings.

Only here, and in the command line, is the configuration read: what is built takes
plain values.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ingester import site
from ingester.archive import Archive
from ingester.config import Settings
from ingester.errors import Fatal
from ingester.ingest import IngestSettings, SourceDefaults
from ingester.orphans import begin_reading
from ingester.prepare import Limits
from ingester.spool import Share, Spool
from ingester.unpack import UnpackLimits
from ingester.watch import Folder, mount_of, read_mounts

_UMASK = 0o007
#: What may be done to a backup where it lies: nothing that brings files into it.
_ON_A_BACKUP = frozenset({"rebuild"})
_POLL_SECONDS = 5.0
_MOUNTS_SECONDS = 30.0


def make_spool(settings: Settings) -> Spool:
    """Build the spool; nothing is touched yet."""
    dcmtk = settings.receiver.dcmtk
    own = [dcmtk.source] if dcmtk.enabled else []
    default = settings.spool.default_source
    return Spool(
        settings.spool.path,
        sources=tuple(dict.fromkeys([*settings.sources, *own])),
        default_source=default,
        ignore=settings.spool.ignore,
        mode=settings.spool.mode,
        group=settings.spool.group,
        shares=tuple(
            Share(share.path, share.source or default) for share in settings.receiver.share
        ),
    )


def make_archive(settings: Settings) -> Archive:
    """Build the archive; nothing is touched yet."""
    return Archive(settings.archive.path, mode=settings.archive.mode)


def ingest_settings(settings: Settings, *, is_impatient: bool) -> IngestSettings:
    """Translate the configuration for the ingest."""
    limits = settings.limits
    dcmtk = settings.receiver.dcmtk
    return IngestSettings(
        intake=settings.archive.intake,
        limits=Limits(
            object_bytes=limits.object,
            nesting=limits.nesting,
            elements=limits.elements,
            header_bytes=limits.header,
        ),
        unpack_limits=UnpackLimits(
            members=limits.archive_members,
            total_bytes=limits.archive_bytes,
            ratio=limits.archive_ratio,
        ),
        quiet=settings.spool.quiet,
        network_quiet=settings.spool.network_quiet,
        incomplete_after=settings.spool.incomplete_after,
        is_impatient=is_impatient,
        sources={
            name: SourceDefaults(each.character_set, each.issuer_of_patient_id)
            for name, each in settings.sources.items()
        },
        named_by_file=frozenset([dcmtk.source] if dcmtk.enabled else []),
        is_network=_Networks(),
    )


def source_defaults(settings: Settings) -> Callable[[str], tuple[str, str]]:
    """Return what tells the character set and issuer of a source's files."""

    def defaults(source: str) -> tuple[str, str]:
        declared = settings.sources.get(source)
        if declared is None:
            return "", ""
        return declared.character_set, declared.issuer_of_patient_id

    return defaults


def watched_folders(settings: Settings) -> list[Folder]:
    """Return what the watcher shall watch, and how often to ask where it must poll."""
    shares = [Folder(share.path, share.poll) for share in settings.receiver.share]
    return [Folder(settings.spool.path, min(_POLL_SECONDS, settings.spool.rescan)), *shares]


class _Networks:
    """Tells which drop folders lie on network mounts; asked once per file."""

    def __init__(self) -> None:
        self._known: dict[Path, bool] = {}
        self._until = 0.0

    def __call__(self, root: Path) -> bool:
        now = time.monotonic()
        if now >= self._until:
            self._known.clear()
            self._until = now + _MOUNTS_SECONDS
        if root not in self._known:
            real = Path(os.path.realpath(root))
            self._known[root] = mount_of(real, read_mounts()).is_remote
        return self._known[root]


def pool_of(workers: int) -> Callable[[], ProcessPoolExecutor]:
    """Return what makes the pool of reading processes, when there is work for it.

    They are forked from a server that has imported everything once and has no
    threads; this process imports none of it.  A worker dies with that server, and the
    server with us.
    """

    def make() -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["ingester.orphans", "ingester.pool", "ingester.compare", "ingester.unpack"]
        )
        return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_reading)

    return make


@contextmanager
def held_site(settings: Settings, *, command: str) -> Iterator[tuple[Spool, Archive]]:
    """Hold the site for as long as the block runs: folders checked and tied, locks ours.

    Raises
    ------
    Fatal : the site cannot be used; the sentence says why
    """
    spool, archive = make_spool(settings), make_archive(settings)
    umask = os.umask(_UMASK)
    try:
        if site.is_backup(archive.root):
            if command not in _ON_A_BACKUP:
                raise Fatal(str(site.why_apart(spool.root, archive.root)))
            with site.held(archive.root, command=command):
                yield spool, archive
            return
        site.make_roots(
            spool.root,
            archive.root,
            spool_mode=settings.spool.mode,
            archive_mode=settings.archive.mode,
        )
        _check_index_path(settings)
        with site.held(spool.root, archive.root, command=command):
            site.tie(spool.root, archive.root)
            yield spool, archive
    finally:
        os.umask(umask)


def _check_index_path(settings: Settings) -> None:
    path = settings.index.path
    if path.is_symlink():
        raise Fatal(f"the index {path} is a symbolic link; write where it leads into [index] path")
    if not path.parent.is_dir():
        raise Fatal(f"the index's folder {path.parent} is not there; is a disk not mounted?")
    if path.is_dir():
        raise Fatal(f"the index {path} is a folder; name a file in [index] path")
    for each in (path.parent, path):
        # Waiting would not help; and a person is there to be told.
        if each.exists() and not os.access(each, os.R_OK | os.W_OK):
            raise Fatal(
                f"{each} may not be read and written by this user; run as the user that owns the "
                f"archive ({_owner(path.parent)}), or give it the permission"
            )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)


def make_folders(settings: Settings, spool: Spool, archive: Archive) -> None:
    """Make our own folders, wipe what an earlier run left unfinished; locks are held.

    Raises
    ------
    Fatal : the group of `[spool] group` does not exist, or we may not give it files
    """
    try:
        spool.make_folders()
    except LookupError:
        raise Fatal(f"[spool] group: there is no group {settings.spool.group}") from None
    archive.make_folders()
