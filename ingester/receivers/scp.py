"""The Storage SCP: a process that accepts associations from an inherited socket.

    python -m ingester.receivers.scp LISTENER REPORTS CENSUS ROW PARENT SPOOL  < settings

Several such processes may accept from the same listening socket; each serves its
associations in threads and answers 0x0000 only for what is durable in the spool
(`landing`).  It knows a folder and nothing else: no index, no archive, no
configuration file.  It dies with its parent, and on SIGTERM it stops accepting, lets
the objects that are coming in finish for at most five seconds, and exits 0.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from ingester.model import SystemClock, new_id
from ingester.receivers.admission import Admission, Census, Room
from ingester.receivers.association import Association, House
from ingester.receivers.flusher import FolderFlusher
from ingester.receivers.landing import Shelf
from ingester.receivers.settings import ScpSettings
from ingester.receivers.tally import Reporter, Tally, log_through

_log = logging.getLogger(__name__)

#: Connections that have not become associations yet; the oldest gives way.
MOST_WAITING = 64
#: How long objects that are coming in may take after SIGTERM.
STOP_SECONDS = 5.0
_REPORT_SECONDS = 0.02
_BREATH_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


def tls_context(settings: ScpSettings) -> ssl.SSLContext | None:
    """Build what TLS needs; None where no certificate is configured.

    Raises
    ------
    OSError : a file cannot be read or is not what it should be (`ssl.SSLError` too)
    """
    if not settings.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    if settings.tls_client_ca:
        context.load_verify_locations(settings.tls_client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    if settings.tls_require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Server:
    """Accepts connections and gives each a thread, until told to stop."""

    def __init__(
        self,
        settings: ScpSettings,
        listener: socket.socket,
        spool: Path,
        census: Census,
        reporter: Reporter,
    ) -> None:
        """Serve from *listener*, tell *reporter* what happens."""
        self._settings = settings
        self._listener = listener
        self._reporter = reporter
        self._bell_reader, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_changed = threading.Event()
        self._is_stopping = False
        self._live: dict[Association, None] = {}
        self._lock = threading.Lock()
        self._room = Room(spool, settings.min_free_bytes, settings.min_free_share)
        self._tally = Tally(self._ring)
        clock = SystemClock()
        self._house = House(
            settings=settings,
            shelf=Shelf(
                spool,
                FolderFlusher(),
                folder_mode=settings.folder_mode,
                file_mode=settings.file_mode,
            ),
            admission=Admission(settings.allow),
            census=census,
            room=self._room,
            tally=self._tally,
            tls=tls_context(settings),
            new_id=lambda: new_id(clock.now()),
        )

    def stop(self) -> None:
        """Stop accepting; safe in a signal handler and in any thread."""
        self._is_stopping = True
        self._ring_always()

    def _ring(self) -> None:
        if not self._is_changed.is_set():
            self._is_changed.set()
            self._ring_always()

    def _ring_always(self) -> None:
        try:
            os.write(self._bell, b"\0")
        except BlockingIOError:
            return  # it rings already

    # ------------------------------------------------------------------------ serving

    def serve(self) -> None:
        """Accept until stopped, then let the objects that are coming in finish."""
        self._listener.setblocking(False)
        poll = select.poll()
        poll.register(self._bell_reader, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        self._is_changed.set()
        reported_at = -_REPORT_SECONDS
        while not self._is_stopping:
            timeout = 1.0
            if self._is_changed.is_set():
                timeout = max(0.0, reported_at + _REPORT_SECONDS - time.monotonic())
            ready = {descriptor for descriptor, _ in poll.poll(timeout * 1000)}
            if self._bell_reader in ready:
                _empty(self._bell_reader)
            if self._listener.fileno() in ready and not self._accept():
                # No descriptor or thread to be had: breathe, others accept meanwhile.
                select.select([], [], [], _BREATH_SECONDS)
            if self._room.trouble_has_changed():
                self._is_changed.set()
            now = time.monotonic()
            if self._is_changed.is_set() and now - reported_at >= _REPORT_SECONDS:
                reported_at = now
                self._report()
        self._finish()

    def _accept(self) -> bool:
        """Accept one connection; False where the machine has nothing left to serve it."""
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return True  # another process was faster, or the peer has left
        except OSError as error:
            _log.warning("no connection can be accepted: %s", error.strerror)
            return False
        host = str(address[0]) if isinstance(address, tuple) else ""
        association = Association(self._house, connection, host)
        thread = threading.Thread(
            target=self._run, args=(association,), name="association", daemon=True
        )
        with self._lock:
            waiting = [each for each in self._live if each.gives_way]
            self._live[association] = None
        if len(waiting) >= MOST_WAITING:
            waiting[0].give_way()
        try:
            thread.start()
        except RuntimeError:
            _log.warning("no thread for another connection")
            self._forget(association)
            connection.close()
            return False
        return True

    def _run(self, association: Association) -> None:
        try:
            association.run()
        finally:
            self._forget(association)

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._live.pop(association, None)
        if self._is_stopping:
            self._ring_always()

    def _finish(self) -> None:
        self._listener.close()
        with self._lock:
            live = list(self._live)
        for association in live:
            association.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            with self._lock:
                if not self._live:
                    break
            select.select([self._bell_reader], [], [], left)
            _empty(self._bell_reader)
        self._report()

    def _report(self) -> None:
        """Write one line; a full pipe drops it, the next line tells the same."""
        self._is_changed.clear()
        try:
            if not self._reporter.write(self._tally.line(self._room.trouble or "")):
                self._is_changed.set()
        except BrokenPipeError:
            self._is_stopping = True  # the parent is gone

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._bell_reader)
        os.close(self._bell)


def _empty(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        return


def run_scp(
    settings: ScpSettings,
    listener: socket.socket,
    spool: Path,
    census: Census,
    reporter: Reporter,
) -> None:
    """Serve associations until SIGTERM: the whole life of a receiving process."""
    server = Server(settings, listener, spool, census, reporter)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    server.serve()


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends.

    SIGKILL, so that no orphan goes on receiving into a folder that the next service
    wipes; what it had not acknowledged is sent again.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we could ask


def main() -> None:
    """Be a receiving process: descriptors as arguments, settings on standard input."""
    listener, reports, census, row, parent = map(int, sys.argv[1:6])
    die_with(parent)
    # Ctrl-C reaches the whole group; when to stop is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = ScpSettings.from_json(sys.stdin.read())
    reporter = Reporter(reports)
    log_through(reporter, settings.log_level)
    run_scp(
        settings,
        socket.socket(fileno=listener),
        Path(sys.argv[6]),
        Census(census, row, settings.max_associations),
        reporter,
    )
    # Threads of peers that never answer must not hold the end up.
    os._exit(0)


if __name__ == "__main__":
    main()
