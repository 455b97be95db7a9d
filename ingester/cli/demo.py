"""`ingester demo`: two made images through the receiver, and where they went."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ingester import service
from ingester.cli import logs, screen
from ingester.cli.options import as_json, example, pass_site
from ingester.cli.reading import open_index
from ingester.cli.site import Site
from ingester.config import Settings
from ingester.control import Document
from ingester.demo import Sent, cine, send, still
from ingester.errors import Fatal, IngesterError, Retry
from ingester.index.readers import Row
from ingester.model import moment

_WRONG = 1
_PATIENCE_SECONDS = 90.0
_POLL_SECONDS = 0.2
_QUERY = "SELECT modality, series_description, path, fps FROM images WHERE patient_id = 'DEMO-1'"

_ARRIVED = """
  SELECT count(DISTINCT i.sop_instance_uid)
  FROM arrivals AS a JOIN instances AS i USING (instance_id)
  WHERE a.arrived_at >= ? AND i.sop_instance_uid IN (?, ?)
  AND (SELECT count(*) FROM derivatives AS d WHERE d.instance_id = i.instance_id) = 2"""
_SHOWN = """
  SELECT sop_instance_uid, series_description, modality, path, thumbnail_path, video_path, fps,
    (SELECT a.outcome FROM arrivals AS a WHERE a.instance_id = images.instance_id
     ORDER BY a.arrival_id DESC LIMIT 1) AS outcome
  FROM images WHERE sop_instance_uid IN (?, ?) AND version = 'current' ORDER BY series_number"""


@click.command(epilog=example("ingester demo", "ingester demo --json"))
@as_json
@pass_site
def demo(site: Site, as_json: bool) -> None:
    """Send two made images through the receiver, and show what became of them.

    A CT-like still and an ultrasound-like cine, drawn by the program, sent by C-STORE to
    the running service, or to one that is started for the moment (which also takes what
    lies in the spool). A second demonstration is a duplicate.
    """
    logs.begin(site.settings, is_brief=True)
    told = site.ask("status")
    demonstration = _Demonstration(site.settings, is_quiet=as_json)
    if told is not None:
        demonstration.run(told)
    else:
        demonstration.run_with_service()
    _show(site, demonstration.shown, as_json=as_json)


class _Demonstration:
    """Sends, and waits until both images have their pictures."""

    def __init__(self, settings: Settings, *, is_quiet: bool) -> None:
        self._settings = settings
        self._is_quiet = is_quiet
        self._error: BaseException | None = None
        self.shown: list[Row] = []

    def _say(self, text: str) -> None:
        if not self._is_quiet:
            screen.say(text)

    def run(self, told: Document) -> None:
        """Send to the receiver that a status document names, and wait."""
        receivers = [each for each in told["receivers"] if each["name"] == "scp" and each["is_up"]]
        if not receivers:
            raise Fatal(
                "the service has no receiver to send to; see `ingester status`, and "
                "[receiver.scp] enabled"
            )
        host, port = _reachable(receivers[0]["host"]), receivers[0]["port"]
        began = moment(datetime.now(UTC))
        title = self._settings.receiver.scp.ae_title
        self._say(f"sending a still and a cine to {title} at {host} port {port}")
        sent = send([still(), cine()], host, port, title)
        self._say("both are acknowledged: they are complete and durable in the spool")
        self._await(began, sent)

    def _await(self, began: str, sent: list[Sent]) -> None:
        uids = [each.sop_instance_uid for each in sent]
        pause = threading.Event()
        end = time.monotonic() + _PATIENCE_SECONDS
        with open_index(self._settings) as index:
            while index.connection.execute(_ARRIVED, (began, *uids)).fetchone()[0] < len(uids):
                if time.monotonic() > end:
                    raise Retry("they have not arrived in the archive yet; see: ingester status")
                pause.wait(_POLL_SECONDS)
            self.shown = index.rows(_SHOWN, uids)

    def run_with_service(self) -> None:
        """Run a service of our own for as long as it takes, on a port of its own."""
        self._say("no service is running: one is started for the moment")
        receiver = self._settings.receiver
        changed = {"enabled": True, "host": "127.0.0.1", "port": 0, "allow": ()}
        receivers = receiver.model_copy(
            update={
                "scp": receiver.scp.model_copy(update=changed),
                "dcmtk": receiver.dcmtk.model_copy(update={"enabled": False}),
            }
        )
        settings = self._settings.model_copy(update={"receiver": receivers})
        service.run(settings, on_ready=self._begin)
        if self._error is not None:
            raise self._error

    def _begin(self, told: Document) -> None:
        threading.Thread(target=self._run_and_stop, args=(told,), name="demo").start()

    def _run_and_stop(self, told: Document) -> None:
        try:
            self.run(told)
        except (IngesterError, OSError) as error:
            self._error = error  # raised again on the main thread
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # the loop ends in order


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)


def _show(site: Site, shown: list[Row], *, as_json: bool) -> None:
    archive = site.settings.archive.path
    for each in shown:
        for name in ("path", "thumbnail_path", "video_path"):
            each[name] = _near(archive / each[name]) if each[name] else None
    query = f'{site.command} sql "{_QUERY}"'
    if as_json:
        screen.answer_json({"instances": shown, "query": query})
    else:
        for each in shown:
            _show_one(each)
        screen.answer("Ask the index:")
        screen.answer(f"  {query}")
    if not all(_is_whole(each) for each in shown) or len(shown) != 2:
        click.get_current_context().exit(_WRONG)


def _near(path: Path) -> str:
    """Return a path as short as it can be typed here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _show_one(each: dict[str, Any]) -> None:
    screen.answer(f"{each['series_description']} ({each['modality']}): {each['outcome']}")
    screen.answer(f"  object     {each['path']}")
    screen.answer(f"  thumbnail  {each['thumbnail_path']}")
    if each["video_path"]:
        screen.answer(f"  video      {each['video_path']} ({each['fps']:g} frames/s)")
    screen.answer()


def _is_whole(each: dict[str, Any]) -> bool:
    needed = ["path", "thumbnail_path"] + (["video_path"] if each["modality"] == "US" else [])
    return all(each[name] and os.path.exists(each[name]) for name in needed)
