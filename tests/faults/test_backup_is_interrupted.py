"""A backup that is killed, stopped or let down by its disk: whole before, whole after.

Whatever happens in the middle, the former backup still verifies (its index, and a file
for every row of it), nothing has a final name that is not whole, and running it again
ends where no interruption would have.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ingester import durable
from ingester.errors import Fatal
from tests.factory import drop, instance
from tests.faults.killed import KILLED, dying_at
from tests.site import Site
from tests.unit.backup.conftest import Backup, fill, tie

FEWEST_EFFECTS = 40
#: What an older index beside newer files, and files on their way, are called.
LATER = {
    "object-without-row", "derivative-without-row", "quarantined-without-row", "leftover",
}  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with a backup that is behind it and has lost an object's bytes."""
    root = tmp_path_factory.mktemp("template")
    site = Site(root / "site")
    site.spool.make_folders()
    fill(site)
    tie(site)
    backed = Backup(site, root / "backup")
    backed.run()
    damaged = backed.dest / min(site.objects())
    damaged.chmod(0o640)
    damaged.write_bytes(b"short")
    (site.archive.root / min(site.objects())).with_suffix(".jpg").write_bytes(b"again")
    drop(site.spool.root / "new" / "a", instance(8))
    drop(site.spool.root / "new" / "b", b"not an image\n" * 20)
    site.ingest_all()
    return root


def copied(template: Path, to: Path, *, is_first: bool) -> Backup:
    """Return a copy of the template; *is_first* without its backup."""
    shutil.copytree(template / "site", to / "site", symlinks=True)
    if is_first:
        shutil.rmtree(to / "site" / "archive" / ".backups")
    else:
        shutil.copytree(template / "backup", to / "backup", symlinks=True)
        shutil.rmtree(to / "site" / "archive" / ".backups")
    return Backup(Site(to / "site"), to / "backup")


def assert_former_is_whole(backed: Backup, *, is_damaged: bool) -> None:
    """Assert that the index there, if any, has all its files, and that no file is half."""
    good = set(backed.site.objects().values())
    for path, sha256 in backed.as_site().objects().items():
        assert sha256 in good or (is_damaged and path == min(backed.site.objects())), path
    if not (backed.dest / "index.db").exists():
        return
    kinds = {kind for kind, _ in backed.findings()} - LATER
    assert kinds <= ({"wrong-size", "missing-object"} if is_damaged else set())


@pytest.mark.timeout(600)
def test_killed_before_any_effect_it_is_whole_and_goes_on(template: Path, tmp_path: Path) -> None:
    _kill_at_every_effect(lambda: copied(template, tmp_path / "x", is_first=False), is_damaged=True)


@pytest.mark.timeout(600)
def test_killed_in_the_first_one_it_is_whole_and_goes_on(tmp_path: Path) -> None:
    site = Site(tmp_path / "small" / "site")
    drop(site.spool.root / "a", instance())
    drop(site.spool.root / "b", b"not an image\n" * 20)
    site.ingest_all()
    tie(site)
    (site.archive.root / ".backups").mkdir()
    _kill_at_every_effect(
        lambda: copied(tmp_path / "small", tmp_path / "x", is_first=True), is_damaged=False
    )


def _died(n: int, backed: Backup) -> bool:
    """Back up in a forked process that dies before its n-th effect; True if it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            with durable.observe(dying_at(n)):
                backed.run()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), f"it failed by itself before effect {n}"
    return code == KILLED


def _kill_at_every_effect(prepared: Callable[[], Backup], *, is_damaged: bool) -> None:
    n = 0
    is_dead = True
    while is_dead:
        n += 1
        backed = prepared()
        is_dead = _died(n, backed)
        assert_former_is_whole(backed, is_damaged=is_damaged)
        backed.run()
        backed.check()
        shutil.rmtree(backed.dest.parent)
    assert n > FEWEST_EFFECTS


class Stop:
    """Says so from the n-th question on."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __call__(self) -> bool:
        self._left -= 1
        return self._left <= 0


@pytest.mark.parametrize("is_first", [False, True])
def test_stopped_at_any_question_it_is_whole_and_goes_on(
    template: Path, tmp_path: Path, is_first: bool
) -> None:
    stopped = 0
    for n in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        backed = copied(template, tmp_path / "x", is_first=is_first)
        try:
            backed.run(is_stopped=Stop(n))
        except KeyboardInterrupt:
            stopped += 1
        assert list((backed.dest / ".staging").iterdir()) == []
        assert_former_is_whole(backed, is_damaged=not is_first)
        backed.run()
        backed.check()
        shutil.rmtree(tmp_path / "x")
    assert stopped >= 5


def failing(effect: str, code: int, nth: int, part: str = "") -> Callable[[str, str], None]:
    """Return an observer that lets the n-th effect of a kind fail, and all after it."""
    seen = [0]

    def observer(name: str, path: str) -> None:
        if name == effect and part in path:
            seen[0] += 1
            if seen[0] >= nth:
                raise OSError(code, os.strerror(code), path)

    return observer


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(
    "effect",
    ["create", "write", "seal", "fsync-file", "mkdir", "rename", "replace", "fsync-folder"],
)
@pytest.mark.parametrize("nth", [1, 3])
def test_a_disk_that_fails_leaves_the_former_backup(
    template: Path, tmp_path: Path, effect: str, code: int, nth: int
) -> None:
    backed = copied(template, tmp_path, is_first=False)
    with (
        durable.observe(failing(effect, code, nth, "/backup/")),
        pytest.raises(OSError, match=re.escape(os.strerror(code))),
    ):
        backed.run()
    assert_former_is_whole(backed, is_damaged=True)
    backed.run()
    backed.check()


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_copied(
    template: Path, tmp_path: Path
) -> None:
    backed = copied(template, tmp_path, is_first=True)
    path = max(backed.site.objects())
    with durable.observe(failing("read", errno.EIO, 1, path)):
        made = backed.run()
    assert [(each.kind, each.path) for each in made.findings] == [("unreadable", path)]
    assert made.copied > 5
    assert backed.findings() == [("missing-object", path)]
    assert backed.run().findings == []
    backed.check()


def test_a_disk_that_gives_back_other_bytes_is_not_believed(template: Path, tmp_path: Path) -> None:
    backed = copied(template, tmp_path, is_first=True)

    def rot(name: str, path: str) -> None:
        if name == "fsync-file" and path.endswith("/.staging/2"):
            with open(path, "r+b") as file:
                file.write(b"X")

    with durable.observe(rot), pytest.raises(Fatal, match="gives back other bytes"):
        backed.run()
    assert_former_is_whole(backed, is_damaged=False)
    backed.run()
    backed.check()


def test_a_disk_without_modes_and_owners_will_do(template: Path, tmp_path: Path) -> None:
    backed = copied(template, tmp_path, is_first=True)
    with durable.observe(failing("seal", errno.EPERM, 1)):
        made = backed.run()
    assert any("keeps no modes" in note for note in made.notes)
    assert backed.findings() == []
    for path in backed.site.objects():
        there, here = (backed.dest / path).stat(), (backed.site.archive.root / path).stat()
        assert there.st_mtime_ns == here.st_mtime_ns
    assert backed.run().copied == 0


def test_a_name_that_the_disk_cannot_hold_is_a_finding(template: Path, tmp_path: Path) -> None:
    backed = copied(template, tmp_path, is_first=True)
    with durable.observe(failing("replace", errno.EINVAL, 1, "/readme.txt")):
        made = backed.run()
    (finding,) = made.findings
    assert finding.path.endswith("/readme.txt")
    assert "cannot hold a file of this name" in finding.message
    assert backed.run().findings == []
    backed.check()


def test_an_archive_that_goes_away_is_no_archive_without_objects(
    template: Path, tmp_path: Path
) -> None:
    backed = copied(template, tmp_path, is_first=True)
    archive = backed.site.archive.root

    def unplug(name: str, path: str) -> None:
        if name == "read" and archive.exists():
            os.rename(archive, tmp_path / "unplugged")

    with durable.observe(unplug), pytest.raises(Fatal, match="unmounted"):
        backed.run()
    os.rename(tmp_path / "unplugged", archive)
    backed.run()
    backed.check()
