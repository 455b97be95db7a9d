"""`ingester doctor`: what is wrong here, and the fix in one line each."""

from __future__ import annotations

import grp
import locale
import os
import resource
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

import ingester
from ingester import site as ties
from ingester.claims import count_claimed
from ingester.cli import screen, unit
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.setup import place_of
from ingester.cli.site import Site
from ingester.config import Settings
from ingester.control import Document, Refused
from ingester.doctor import (
    Check,
    State,
    database,
    disks,
    drops,
    leftovers,
    machine,
    network,
    people,
    pictures,
    programs,
)
from ingester.doctor.apart import DiedError, Person
from ingester.errors import Fatal
from ingester.polling import is_watched
from ingester.service.receiving import dcmtk_settings, scp_settings
from ingester.watch import mount_of, read_mounts, watches_left

_FOUND = 1
_MOST_FOLDERS = 200_000
_WORDS = {State.OK: "ok", State.NOTE: "note", State.PROBLEM: "PROBLEM"}


@click.command(epilog=example("ingester doctor", "sudo ingester doctor", "ingester doctor --json"))
@as_json
@pass_site
def doctor(site: Site, as_json: bool) -> None:
    """Look what is wrong with this machine or configuration.

    Each check says ok, note (it works, but know this) or PROBLEM, and the fix in one
    line. Nothing is changed: a trial file with a dot-name is dropped into each drop
    folder and taken away again. Works beside a running service and without a site; as
    root it sees more (it tries everything as the service's user). Exits with 1 where
    there is a problem.
    """
    found: list[Check] = []
    for check in checks(site):
        if check in found:
            continue  # the same of several folders
        found.append(check)
        if not as_json:
            _print(check)
    problems = sum(1 for check in found if check.state is State.PROBLEM)
    notes = sum(1 for check in found if check.state is State.NOTE)
    if as_json:
        screen.answer_json(
            {"problems": problems, "notes": notes, "checks": [asdict(each) for each in found]}
        )
    else:
        counted = f"{screen.plural(problems, 'problem')}, {screen.plural(notes, 'note')}"
        screen.answer(counted if problems or notes else "all is well")
    if problems:
        click.get_current_context().exit(_FOUND)


def _print(check: Check) -> None:
    line = f"{_WORDS[check.state]:<8} {check.name:<12} {check.message}"
    screen.answer(screen.printable(line))
    if check.fix:
        screen.answer(screen.printable(f"{'':<21} fix: {check.fix}"))


def checks(site: Site) -> Iterator[Check]:
    """Yield every check, the machine's first; without a configuration only those."""
    try:
        settings = site.settings
    except Fatal as error:
        settings = None
        yield Check.problem("configuration", str(error), "mend it, then ask again")
    else:
        yield Check.ok("configuration", str(site.file))
    yield machine.python(sys.version_info[:3], sys.executable)
    yield machine.text(sys.getfilesystemencoding(), sys.stdout.encoding or locale.getencoding())
    yield database.library(sqlite3.sqlite_version_info, database.compile_options())
    yield from pictures.codecs()
    yield pictures.ffmpeg()
    last_archived = None
    if settings is not None:
        dates: list[datetime] = []
        yield from _guarded("index", _index(settings, dates))
        last_archived = max(dates, default=None)
    yield machine.clock(
        datetime.now(UTC),
        installed=datetime.fromtimestamp(os.stat(ingester.__file__).st_mtime, UTC),
        last_archived=last_archived,
        is_synchronised=machine.is_synchronised(),
    )
    if settings is not None:
        yield from _guarded("site", _of_site(site, settings))


def _guarded(name: str, found: Iterator[Check]) -> Iterator[Check]:
    """Yield checks as far as this user can look; what is shut is a note, not the end."""
    try:
        yield from found
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield Check.note(
            name,
            f"not all could be looked at: {where}{error.strerror}",
            "run it as the service's user, or as root",
        )


def _index(settings: Settings, dates: list[datetime]) -> Iterator[Check]:
    check, last_archived = database.index(settings.index.path)
    yield check
    if last_archived is not None:
        dates.append(last_archived)


def _of_site(site: Site, settings: Settings) -> Iterator[Check]:
    archive, spool = settings.archive.path, settings.spool.path
    holder = ties.holder_of(archive)
    person = people.of_service(archive, holder)
    acting = person if os.geteuid() == 0 else people.me()
    told = None
    try:
        told = site.ask("status")
        yield _service(settings, told, holder, person)
    except (Refused, OSError) as error:
        is_shut = archive.is_dir() and not os.access(archive, os.X_OK)
        said = f"this user may not look into {archive}" if is_shut else str(error)
        yield Check.note("service", said, f"run it as {person.name}, or as root")
    yield from _guarded("site", _ties(spool, archive))
    yield from _guarded("inotify", _machine_for(settings))
    yield from _guarded("file-system", _disks(settings))
    yield from _guarded("folders", _folders(settings, person, acting))
    yield from _guarded("trial-drop", _trials(settings, person, acting))
    yield from _guarded("ports", _network(settings, told, person))
    yield from _guarded("program", _programs(site, settings, acting))
    is_stopped = told is None and holder is None
    yield from _guarded("leftovers", _leftovers(settings, is_stopped=is_stopped))


def _ties(spool: Path, archive: Path) -> Iterator[Check]:
    apart = ties.why_apart(spool, archive)
    if apart is not None:
        yield Check.problem("site", apart, "docs/recovery.md")
    else:
        yield Check.ok("site", f"{spool} and {archive} belong together")


def _leftovers(settings: Settings, *, is_stopped: bool) -> Iterator[Check]:
    archive, spool = settings.archive.path, settings.spool.path
    now = datetime.now(UTC)
    has_objects = settings.index.path.exists()
    yield leftovers.backups(archive, now, has_objects=has_objects)
    if spool.is_dir():
        yield leftovers.unfinished(spool, now)
        if is_stopped:
            yield leftovers.of_a_stopped_service(spool, archive, claimed=count_claimed(spool))


def _service(
    settings: Settings, told: Document | None, holder: int | None, person: Person
) -> Check:
    if told is not None:
        running = told["service"]
        return Check.ok("service", f"runs as {person.name}, process {running['process']}")
    if holder is not None:
        who = f"process {holder}" if holder else "a process of another container"
        return Check.ok("service", f"{who} holds {settings.archive.path}")
    return Check.ok("service", f"does not run; it would run as {person.name}")


def _machine_for(settings: Settings) -> Iterator[Check]:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = 256 + 4 * settings.receiver.scp.max_associations
    limit = float("inf") if soft == resource.RLIM_INFINITY else soft
    yield machine.open_files(limit, needed)
    if settings.spool.watch == "poll" or not settings.spool.path.is_dir():
        return
    yield machine.inotify(
        machine.InotifyLimits.read(),
        folders=_count_folders(settings.spool.path),
        has_watch=watches_left(settings.spool.path),
        has_instance=machine.has_inotify_instance(),
    )


def _count_folders(spool: Path) -> int:
    count = 0
    for here, folders, _ in os.walk(spool):
        if Path(here) == spool:
            folders[:] = [name for name in folders if is_watched(name)]
        count += len(folders)
        if count > _MOST_FOLDERS:
            break
    return count


def _places(settings: Settings) -> Iterator[tuple[str, Path]]:
    yield "spool", settings.spool.path
    yield "archive", settings.archive.path
    yield "index", settings.index.path.parent
    for name in settings.sources:
        yield "source", settings.spool.path / name
    for share in settings.receiver.share:
        yield "share", share.path


def _disks(settings: Settings) -> Iterator[Check]:
    mounts = read_mounts()
    said: set[tuple[Path, str]] = set()
    for place, path in _places(settings):
        if not path.is_dir():
            continue
        mount = mount_of(Path(os.path.realpath(path)), mounts)
        role = "index" if place == "index" else "source" if place in ("source", "share") else place
        if (mount.path, role) not in said and not (
            place == "source" and (mount.path, "spool") in said
        ):
            said.add((mount.path, role))
            yield disks.file_system(place, path, mount)
        if place == "spool" and settings.receiver.dcmtk.enabled:
            yield disks.receiver_durability(path, mount)
        if place in ("spool", "archive", "index"):
            mark = (settings.spool if place == "spool" else settings.archive).min_free
            space, found = ties.Space.of(path), os.statvfs(path)
            inodes = found.f_favail / found.f_files if found.f_files else 1.0
            yield disks.free_space(place, path, space, mark.of(space.total_bytes), inodes)


def _folders(settings: Settings, person: Person, acting: Person) -> Iterator[Check]:
    spool, archive = settings.spool, settings.archive
    yield drops.folder("spool", spool.path, spool.mode, person)
    for name in settings.sources:
        if (spool.path / name).is_dir():
            yield drops.folder("source", spool.path / name, spool.mode, person)
    for share in settings.receiver.share:
        yield drops.folder("share", share.path, 0, person)
    yield drops.folder("archive", archive.path, archive.mode, person)
    own = [spool.path / name for name in (".receiving", ".received", ".claimed", "quarantine")]
    own += [archive.path, archive.path / ".staging", archive.path / ".media"]
    own += [settings.index.path.parent]
    own += [settings.log.file.parent] if settings.log.file is not None else []
    if acting.uid == person.uid:
        yield drops.writable(list(dict.fromkeys([spool.path, *own])), acting)
    else:
        message = f"not tried: the service runs as {person.name}"
        yield Check.note("permissions", message, f"run it as {person.name}, or as root")
    if spool.group:
        members = [each.gr_name for each in grp.getgrall() if each.gr_gid in person.groups]
        known = [each.gr_name for each in grp.getgrall()]
        yield drops.group(spool.group, known, members, person)


def _trials(settings: Settings, person: Person, acting: Person) -> Iterator[Check]:
    spool, archive = settings.spool.path, settings.archive.path
    drop_folders = [(spool, spool)]
    for name in settings.sources:
        folder = spool / name
        if folder.is_dir():
            is_mount = folder.stat().st_dev != spool.stat().st_dev
            drop_folders.append((folder, folder if is_mount else spool))
    drop_folders += [(share.path, share.path) for share in settings.receiver.share]
    for folder, root in drop_folders:
        if not (folder.is_dir() and archive.is_dir()):
            continue
        roads = drops.Roads(folder, root, archive)
        try:
            tried = drops.try_drop(roads, acting)
            yield drops.trial(roads, person, tried)
            if tried.failed is None and folder == spool:
                yield drops.intake(spool, archive, tried, settings.archive.intake)
            if os.geteuid() == 0 and tried.failed is None and person.uid != 0:
                strangers = drops.try_strangers_drop(roads, person)
                check = drops.strangers_trial(roads, person, strangers)
                if check is not None:
                    yield check
        except DiedError as error:
            yield Check.note("trial-drop", f"{folder}: it could not be tried: {error}")


def _network(settings: Settings, told: Document | None, person: Person) -> Iterator[Check]:
    from ingester.receivers.scp import tls_context
    from ingester.receivers.supervise import listen

    scp, dcmtk = settings.receiver.scp, settings.receiver.dcmtk
    if told is not None:
        for receiver in told["receivers"]:
            yield network.running(receiver)
    else:
        low = network.LowPorts(
            is_root=os.geteuid() == 0 and person.uid != 0,
            is_granted="AmbientCapabilities=CAP_NET_BIND_SERVICE" in _installed_unit(),
        )
        if scp.enabled:
            yield network.port("scp", scp.host, scp.port, listen, low)
        if dcmtk.enabled:
            yield network.port("dcmtk", "0.0.0.0", dcmtk.port, listen, low)
    if scp.enabled:
        yield network.reach(scp.host, is_limited=bool(scp.allow))
        if scp.tls.certificate is not None:
            load = partial(tls_context, scp_settings(settings))
            yield network.tls("scp.tls", load, scp.tls.certificate, datetime.now(UTC))
    if dcmtk.enabled and dcmtk.certificate is not None:
        chain = dcmtk.certificate, dcmtk.key
        load_chain = partial(network.load_chain, *chain)
        yield network.tls("dcmtk", load_chain, dcmtk.certificate, datetime.now(UTC))


def _programs(site: Site, settings: Settings, acting: Person) -> Iterator[Check]:
    from ingester.receivers.dcmtk import find_program, refused_argument

    hooks = settings.hooks
    for name in ("study_complete", "batch_complete", "quarantined"):
        if arguments := getattr(hooks, name):
            yield programs.hook(name, arguments, acting)
    if settings.receiver.dcmtk.enabled:
        dcmtk = dcmtk_settings(settings)
        yield programs.storescp(
            dcmtk.program, find_program(dcmtk.program), refused_argument(dcmtk.arguments)
        )
    if not acting.is_me:
        paths = [Path(sys.executable), Path(ingester.__file__), site.file]
        yield programs.readable(paths, acting)
    text = _installed_unit()
    if f"--config {site.file} " in text:
        wanted = unit.unit(settings, place_of(site.file, settings))
        yield programs.installed_unit(unit.UNIT_PATH, text, wanted)


def _installed_unit() -> str:
    """Return the text of the unit that is installed; empty where none is."""
    try:
        return unit.UNIT_PATH.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
