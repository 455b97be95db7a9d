"""Sending quarantined files back: one or many, and interrupted anywhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ingester import durable
from ingester.errors import Retry
from ingester.index import Writer
from ingester.ingest.recovery import retry
from ingester.ingest.returning import Returned, send_back
from tests.factory import drop, encoded, instance
from tests.site import Site, digest


def fill(site: Site, count: int) -> list[str]:
    """Quarantine *count* files; returns their ids."""
    for number in range(count):
        cut = encoded(instance(1, 1, 1, number + 1))[:-40]
        drop(site.spool.root / f"CT1/cd {number % 3}/{number}", cut)
    site.ingest_all()
    return sorted(os.listdir(site.spool.quarantine_folder))


def sent_back(site: Site, *words: str, meanwhile: Callable[[], None] = lambda: None) -> Returned:
    with closing(Writer.open(site.index)) as writer:
        return send_back(site.spool, writer, words, site.clock, meanwhile=meanwhile)


def test_many_go_back_in_parts_and_keep_their_names(site: Site) -> None:
    ids = fill(site, 150)
    before = {digest(path) for path in site.spool.quarantine_folder.glob("*/[0-9]*")}
    turns: list[int] = []
    done = sent_back(site, *ids, meanwhile=lambda: turns.append(len(os.listdir(
        site.spool.quarantine_folder))))  # fmt: skip
    assert turns == [22, 0]  # others were served in between
    assert [old for old, _ in done.retried] == ids
    found = list(site.spool.look())
    assert {(each.source, each.batch) for each in found} == {("CT1", f"cd {n}") for n in range(3)}
    assert sorted(each.arrival_id or "" for each in found) == sorted(new for _, new in done.retried)
    assert {digest(each.root / each.relative) for each in found} == before
    assert site.rows("SELECT count(*) FROM arrivals WHERE retried_as IS NULL") == [0]
    site.ingest_all()
    assert site.rows("SELECT count(*) FROM arrivals WHERE retried_as IS NULL") == [150]
    site.check()


def test_what_cannot_go_back_is_said_and_the_rest_goes(site: Site) -> None:
    one, two, three, four = fill(site, 4)
    home = site.spool.quarantine_folder
    for path in (home / one).glob("[0-9]*"):
        path.unlink()
    (home / two / "reason.json").write_text("{}")
    done = sent_back(site, one, two, "nothing", three[:6], three, four)
    told = dict(done.failed)
    assert set(told) == {one, two, "nothing", three[:6]}
    assert "no file" in told[one]
    assert "reason.json" in told[two]
    assert "several quarantined files begin so" in told[three[:6]]
    assert [old for old, _ in done.retried] == [three, four]
    with closing(Writer.open(site.index)) as writer, pytest.raises(Retry, match="no such file"):
        retry(site.spool, writer, "nothing", site.clock)


def test_the_beginning_of_an_id_is_enough_and_twice_is_once(site: Site) -> None:
    (one,) = fill(site, 1)
    done = sent_back(site, one[:12], one)
    assert ([old for old, _ in done.retried], done.failed) == ([one], [])
    site.ingest_all()
    site.check()


class Killed(BaseException):
    """The power goes."""


@pytest.mark.timeout(300)
def test_a_kill_before_any_effect_loses_nothing_and_sends_each_once(tmp_path: Path) -> None:
    template = Site(tmp_path / "template")
    ids = fill(template, 3)
    contents = sorted(digest(p) for p in template.spool.quarantine_folder.glob("*/[0-9]*"))
    step = 0
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
                sent_back(site, *ids)
        except Killed:
            was_killed = True
        else:
            was_killed = False
        if was_killed:
            with site.ingesting():  # the next start finishes what was begun
                pass
            assert _lying(site) == contents, f"killed before effect {step}"
        site.ingest_all()
        newest = "SELECT count(*) FROM arrivals WHERE retried_as IS NULL"
        assert site.rows(newest) == [3], f"killed before effect {step}"
        assert _lying(site) == contents
        site.check()
        shutil.rmtree(site.root)
        if not was_killed:
            break
    assert step > 25


def _lying(site: Site) -> list[str]:
    """Return the digest of every file that is in quarantine or waits in the spool."""
    aside = [digest(path) for path in site.spool.quarantine_folder.glob("*/[0-9]*")]
    return sorted(aside + [digest(each.root / each.relative) for each in site.spool.look()])
