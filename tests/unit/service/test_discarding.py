"""`resolve --discard` interrupted anywhere: the row first, and then nothing is left."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from ingester import durable
from ingester.config import parse
from ingester.index import Writer
from ingester.service.answers import OpenSite, resolve
from tests.factory import drop, encoded, instance
from tests.site import Site


class Killed(BaseException):
    """The power goes."""


def discard(site: Site, ids: list[str]) -> None:
    settings = parse(b"", site.root / "ingest.toml")
    with closing(Writer.open(site.index)) as writer:
        opened = OpenSite(site.spool, site.archive, writer, site.clock, settings)
        told = resolve(opened, {"ids": ids, "discard": True, "by": "rao"})
    assert (sorted(told["resolved"]), told["failed"], told["stay"]) == (ids, [], [])


@pytest.mark.timeout(300)
def test_a_kill_before_any_effect_leaves_the_file_or_nothing(tmp_path: Path) -> None:
    template = Site(tmp_path / "template")
    drop(template.spool.root / "cut", encoded(instance(1))[:-40])
    drop(template.spool.root / "zz", encoded(instance(2))[:-40])  # sorts behind reason.json
    template.ingest_all()
    ids = sorted(os.listdir(template.spool.quarantine_folder))
    step = 0
    outcomes: set[str] = set()
    while True:
        step += 1
        site = Site(tmp_path / "site")
        shutil.copytree(template.root, site.root, dirs_exist_ok=True)
        left = step

        def kill(_effect: str, _path: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        try:
            with durable.observe(kill):
                discard(site, ids)
        except Killed:
            was_killed = True
        else:
            was_killed = False
        if was_killed:
            site.ingest_all()  # the next start finishes what was begun
        (outcome,) = set(site.rows("SELECT outcome FROM arrivals"))
        lying = sorted(os.listdir(site.spool.quarantine_folder))
        assert lying == ([] if outcome == "discarded" else ids), f"killed before effect {step}"
        outcomes.add(outcome)
        site.check()
        shutil.rmtree(site.root)
        if not was_killed:
            break
    assert outcomes == {"quarantined", "discarded"}
    assert step > 6
