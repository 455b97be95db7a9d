"""The systemd unit for a site: as little as possible may be written, run or reached.

Pure: settings and paths in, text and commands out.  `setup.py` prints or runs them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingester.config import Settings

NAME = "ingester.service"
UNIT_PATH = Path("/etc/systemd/system") / NAME

_UNIT = """\
# Made by `ingester service` from {config}; make it again when that changes.
[Unit]
Description=DICOM archive at {archive}
After=network.target
# never ingest into an unmounted mount point; never give up
RequiresMountsFor={mounts}
StartLimitIntervalSec=0

[Service]
# ready once the spool is watched; alive while the loop turns
Type=notify
WatchdogSec=60
# an index may have to be made again, or filled with new columns, first
TimeoutStartSec=infinity
User={user}
Group={group}
# drop folders are 2770; archive folders are 2750, files 0640 and 0440
UMask=0007
WorkingDirectory={folder}
ExecStart={program} --config {config} run
Restart=always
RestartSec=2
TimeoutStopSec=30
KillMode=mixed
# a worker may die, the service stays
OOMPolicy=continue
OOMScoreAdjust=-200

NoNewPrivileges=yes
{capabilities}
ProtectSystem=strict
ReadWritePaths={writable}
NoExecPaths={site}
ProtectHome={home}
# receivers write to the spool, never to the private temporary folder
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
# workers may shut themselves off from the network
RestrictNamespaces=user net
RestrictRealtime=yes
# the setgid bit is set on the roots at installation and inherited, never set by the service
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @mount @debug @obsolete
# the workers' limits and politeness
SystemCallFilter=prlimit64 setrlimit setpriority ioprio_set
SystemCallErrorNumber=EPERM
{network}
LimitNOFILE=4096
LimitCORE=0
TasksMax=256
MemoryHigh={memory_high}M
MemoryMax={memory_max}M

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a site and its program are, and who runs it."""

    config: Path
    program: Path
    user: str
    group: str


def unit(settings: Settings, place: Place) -> str:
    """Return the text of the unit."""
    spool, archive = settings.spool.path, settings.archive.path
    shares = [share.path for share in settings.receiver.share]
    writable = [spool, archive, *shares]
    if not settings.index.path.is_relative_to(archive):
        writable.append(settings.index.path.parent)
    if settings.log.file is not None:
        writable.append(settings.log.file.parent)
    workers = settings.workers.prepare_count + settings.workers.derive_count
    memory = 400 + 1024 * workers
    return _UNIT.format(
        config=place.config,
        archive=archive,
        mounts=_paths([spool, archive, *shares]),
        user=place.user,
        group=place.group,
        folder=place.config.parent,
        program=place.program,
        capabilities=_capabilities(settings),
        writable=_paths(writable),
        site=_paths([spool, archive]),
        home=_home([*writable, place.config, place.program]),
        network="\n".join(_network(settings)),
        memory_high=memory,
        memory_max=memory * 5 // 4,
    )


def _paths(paths: list[Path]) -> str:
    return " ".join(f'"{path}"' if " " in str(path) else str(path) for path in paths)


def _home(paths: list[Path]) -> str:
    """Return ProtectHome: a site or a program below /home must stay reachable."""
    homes = (Path("/home"), Path("/root"), Path("/run/user"))
    return "no" if any(path.is_relative_to(home) for path in paths for home in homes) else "yes"


def _capabilities(settings: Settings) -> str:
    scp, dcmtk = settings.receiver.scp, settings.receiver.dcmtk
    ports = [r.port for r in (scp, dcmtk) if r.enabled and r.port]
    needed = "CAP_NET_BIND_SERVICE" if any(port < 1024 for port in ports) else ""
    return f"CapabilityBoundingSet={needed}\nAmbientCapabilities={needed}"


def _network(settings: Settings) -> Iterator[str]:
    scp, dcmtk, hooks = settings.receiver.scp, settings.receiver.dcmtk, settings.hooks
    has_hooks = bool(hooks.study_complete or hooks.batch_complete or hooks.quarantined)
    if not (scp.enabled or dcmtk.enabled or has_hooks):
        yield "RestrictAddressFamilies=AF_UNIX"
        yield "PrivateNetwork=yes"
        return
    yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"
    networks = [entry.rpartition("@")[2] for entry in scp.allow if "/" in entry]
    is_closed = len(networks) == len(scp.allow) and (networks or scp.host in ("127.0.0.1", "::1"))
    if has_hooks or dcmtk.enabled or not is_closed:
        yield "# whom it speaks with is not limited: hooks, or receivers open to every address"
        return
    peers = [peer.host for peer in scp.peers.values() if peer.host]
    yield "IPAddressDeny=any"
    yield "IPAddressAllow=" + " ".join(["localhost", *networks, *peers])


def installation(settings: Settings, place: Place, *, has_user: bool) -> list[list[str]]:
    """Return the commands that install the unit, in order; the unit is written first."""
    spool, archive = str(settings.spool.path), str(settings.archive.path)
    drops = [spool, *(str(settings.spool.path / name) for name in settings.sources)]
    owner = f"{place.user}:{place.group}"
    commands = []
    if not has_user:
        commands.append(
            ["useradd", "--system", "--user-group", "--no-create-home",
             "--shell", "/usr/sbin/nologin", place.user]
        )  # fmt: skip
    commands.append(["chown", "--recursive", owner, spool, archive])
    commands.append(["chown", f"root:{place.group}", str(place.config)])
    commands.append(["chmod", f"{settings.spool.mode:o}", *drops])
    commands.append(["chmod", f"{settings.archive.mode:o}", archive])
    # Whoever may drop a file, the service may take it away.
    commands.append(["setfacl", "-d", "-m", f"u:{place.user}:rwX,g:{place.group}:rwX", *drops])
    commands.append(["systemctl", "daemon-reload"])
    commands.append(["systemctl", "enable", "--now", NAME])
    return commands


def shown(command: list[str]) -> str:
    """Return a command as one would type it."""
    return shlex.join(command)
