from __future__ import annotations

import json
import logging
import os
import stat
import time
from pathlib import Path

import pytest

from ingester.hooks import Hooks
from ingester.wake import Wake

SCRIPT = """#!/bin/sh
cat > "$1/event.json"
shift
printf '%s\\n' "$@" > "$OUT"
"""


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def run_to_the_end(hooks: Hooks, wake: Wake) -> None:
    hooks.step(time.monotonic())
    while hooks.is_busy:
        deadline = hooks.next_deadline()
        assert deadline is not None
        wake.wait(min(1.0, max(0.0, deadline - time.monotonic())))
        hooks.step(time.monotonic())


def test_a_hook_gets_its_arguments_and_the_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "arguments"))
    script = program(tmp_path / "hook", SCRIPT)
    words = (script, str(tmp_path), "--study={study_instance_uid}", "{folder}", "{batch}", "{x}")
    with Wake() as wake:
        hooks = Hooks({"study.complete": words}, on_end=wake.set)
        event = {"kind": "study.complete", "study_instance_uid": "1.2.3"}
        places = {"study_instance_uid": "1.2.3", "folder": "/a b; rm -rf $HOME", "batch": "$(id)"}
        hooks.tell("study.complete", event, places)
        assert hooks.is_busy
        run_to_the_end(hooks, wake)
    assert json.loads((tmp_path / "event.json").read_text()) == event
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["--study=1.2.3", "/a b; rm -rf $HOME", "$(id)", "{x}"]


def test_no_hook_for_this_kind_does_nothing() -> None:
    hooks = Hooks({"study.complete": ()}, on_end=lambda: None)
    hooks.tell("study.complete", {}, {})
    hooks.tell("batch.complete", {}, {})
    assert not hooks.is_busy


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("/nowhere/at/all",), "cannot be started: No such file or directory"),
        (("/bin/sh", "-c", "exit 3"), "ended with exit code 3"),
    ],
)
def test_a_hook_that_fails_is_said(
    words: tuple[str, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Wake() as wake:
        hooks = Hooks({"quarantined": words}, on_end=wake.set)
        hooks.tell("quarantined", {}, {})
        run_to_the_end(hooks, wake)
    assert said in caplog.text


def test_a_hook_that_hangs_is_killed_with_its_children(caplog: pytest.LogCaptureFixture) -> None:
    with Wake() as wake:
        hooks = Hooks({"x": ("/bin/sh", "-c", "sleep 600 & wait")}, on_end=wake.set, timeout=0.2)
        hooks.tell("x", {}, {})
        run_to_the_end(hooks, wake)
        assert wake.wait(30)  # its output has ended: nobody holds it open any more
    assert "did not end within 0.2 s and was killed" in caplog.text


def test_a_hook_that_talks_without_end_blocks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ingester.hooks")
    with Wake() as wake:
        talk = "i=0; while [ $i -lt 20000 ]; do echo talking talking talking; i=$((i+1)); done"
        hooks = Hooks({"x": ("/bin/sh", "-c", talk)}, on_end=wake.set)
        hooks.tell("x", {}, {})
        run_to_the_end(hooks, wake)
    assert max(len(each.getMessage()) for each in caplog.records) < 6000


def test_many_events_run_a_few_at_a_time_and_leave_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Wake() as wake:
        hooks = Hooks({"x": ("/bin/true",)}, on_end=wake.set)
        for _ in range(20):
            hooks.tell("x", {}, {})
        run_to_the_end(hooks, wake)
        for _ in range(20):
            wake.wait(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before
