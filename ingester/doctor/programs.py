"""Are the programs there that the configuration names: hooks, storescp; ourselves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ingester.doctor.apart import DiedError, Person, apart
from ingester.doctor.findings import Check


def hook(name: str, arguments: Sequence[str], person: Person) -> Check:
    """Say whether a hook's program is there, and the service's user may run it."""
    program = arguments[0]
    found = shutil.which(program)
    if found is None:
        why = "cannot be run" if os.path.exists(program) else "is not there"
        fix = f"chmod +x {program}" if os.path.exists(program) else f"[hooks] {name}: another path"
        return Check.problem("hooks", f"{name}: {program} {why}", fix)
    try:
        may_run = apart(lambda: os.access(found, os.X_OK), person=person)
    except DiedError as error:
        return Check.note("hooks", f"{name}: {found}; not tried as {person.name}: {error}")
    if not may_run:
        return Check.problem(
            "hooks", f"{name}: {person.name} may not run {found}", f"chmod o+rx {found}"
        )
    return Check.ok("hooks", f"{name}: {found}")


def storescp(program: str, found: str | None, refused: str | None) -> Check:
    """Say whether DCMTK's receiver can be started as it is configured."""
    if found is None:
        return Check.problem("dcmtk", f"{program} is not there", "apt install dcmtk")
    if refused is not None:
        return Check.problem(
            "dcmtk",
            f"storescp's {refused} would break a promise and is not passed on",
            f"take {refused} out of [receiver.dcmtk] arguments",
        )
    return Check.ok("dcmtk", found)


def readable(paths: Sequence[Path], person: Person) -> Check:
    """Say whether the service's user may read the program and the configuration."""
    try:
        shut = apart(
            lambda: [str(path) for path in paths if not os.access(path, os.R_OK)], person=person
        )
    except DiedError as error:
        return Check.note("program", f"it could not be tried as {person.name}: {error}")
    if shut:
        return Check.problem(
            "program",
            f"{person.name} may not read {', '.join(shut)}",
            "install the program where everybody can read it, such as /opt/ingester",
        )
    return Check.ok("program", f"{person.name} can read the program and the configuration")


def installed_unit(path: Path, text: str, wanted: str) -> Check:
    """Say whether the installed systemd unit is the one this configuration asks for."""
    if text.strip() != wanted.strip():
        return Check.note(
            "systemd",
            f"{path} is not what this configuration asks for",
            "ingester service --install (to see it first: ingester service)",
        )
    return Check.ok("systemd", f"{path} is up to date")
