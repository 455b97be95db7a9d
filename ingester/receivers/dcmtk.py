"""DCMTK's storescp, started and watched by us, for who prefers it.

It writes into a drop folder, where its files are settled, checked and taken like any
other dropped file; each keeps its sender in (0002,0016).  What it acknowledges is
safe against a killed process, not against a power cut: it never flushes.

`+uf` (unique file names) is not a matter of taste: without it storescp names files by
SOP Instance UID, and when a UID is sent again over an association that breaks, it
deletes the earlier file, which it has acknowledged.  `-uf` is its opposite; `-xcr` and
`-xcs` run a shell with what a stranger sent.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingester.receivers.supervise import ReceiverState, is_settled, listen, longer_pause

_log = logging.getLogger(__name__)

#: Arguments that would break a promise or open a shell.
FORBIDDEN = ("-uf", "+B", "-xcr", "-xcs", "--exec-on-reception", "--exec-on-eostudy")
_OURS = ("-od", "--output-directory", "-ss", "-su", "-sp", "--sort-conc-studies")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class DcmtkSettings:
    """How storescp is run."""

    port: int = 11113
    ae_title: str = "INGESTER"
    program: str = "storescp"
    arguments: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    client_ca: str = ""


def refused_argument(arguments: Sequence[str]) -> str | None:
    """Return the first configured argument that we do not pass on, or None."""
    return next((each for each in arguments if each in FORBIDDEN or each in _OURS), None)


def command(settings: DcmtkSettings, folder: Path) -> list[str]:
    """Return the argument list of storescp.

    Raises
    ------
    ValueError : a configured argument would break a promise
    """
    refused = refused_argument(settings.arguments)
    if refused is not None:
        raise ValueError(f"storescp's {refused} is not passed on: see docs/receivers.md")
    # Every transfer syntax and unknown SOP classes too; a silent peer is given up.
    arguments = [settings.program, "--fork", "-aet", settings.ae_title]
    arguments += ["+xa", "-pm", "-ta", "30", "-td", "60"]
    if settings.certificate:
        arguments += ["+tls", settings.key, settings.certificate]
        if settings.client_ca:
            arguments += ["+cf", settings.client_ca]
        else:
            arguments += ["-ic"]
    arguments += settings.arguments
    # Ours come last, so that nothing configured undoes them.
    arguments += ["+uf", "-fe", ".dcm", "-od", os.fspath(folder), str(settings.port)]
    return arguments


class DcmtkReceiver:
    """storescp as the service sees it; all methods from the main thread."""

    def __init__(
        self,
        settings: DcmtkSettings,
        folder: Path,
        wake: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to write into the drop folder *folder*; the watcher sees the files."""
        self.settings = settings
        self.state = ReceiverState(name="dcmtk", host="0.0.0.0", port=settings.port)
        self._folder = folder
        self._wake = wake
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = 0.0
        self._start_at = 0.0
        self._is_stopped = False

    def start(self) -> None:
        """Start the program; where that fails, `poll` tries again."""
        try:
            arguments = command(self.settings, self._folder)
            program = find_program(arguments[0])
            if program is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            # A port that is taken shows here, as a sentence and not as its exit code.
            listen("0.0.0.0", self.settings.port).close()
            self._started_at = self._monotonic()
            self._process = subprocess.Popen(
                [program, *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # calls one function of libc, takes no lock
            )
        except (OSError, ValueError) as error:
            self._put_off(_explained(error, self.settings))
            return
        self.state.is_up = True
        self.state.processes = 1
        self.state.message = ""

    def poll(self) -> bool:
        """Restart the program where it has died; it never says that a file has landed."""
        if self._is_stopped:
            return False
        now = self._monotonic()
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return False
            _log.warning("storescp ended with code %d", code)
            self._process = None
            self.state.restarts += 1
            self._put_off(f"storescp ended with code {code}; it is started again")
        if now >= self._start_at:
            self.start()
        return False

    @property
    def process_id(self) -> int | None:
        """Return the id of the running program, or None."""
        return None if self._process is None else self._process.pid

    def next_poll_in(self) -> float:
        """Return the seconds until `poll` has something to do by itself."""
        if self._process is not None:
            return 5.0
        return max(0.0, self._start_at - self._monotonic())

    def _put_off(self, message: str) -> None:
        now = self._monotonic()
        self._pause = longer_pause(0.0 if is_settled(self._started_at, now) else self._pause)
        self._start_at = now + self._pause
        self.state.is_up = False
        self.state.processes = 0
        self.state.message = message

    def stop(self, timeout: float) -> None:
        """End the program and the processes it has forked, one for each association."""
        self._is_stopped = True
        self.state.is_up = False
        self.state.message = "stopped"
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # gone already


def _die_with_parent() -> None:
    """Ask the kernel to end storescp with us; between fork and exec, nothing else."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _explained(error: OSError | ValueError, settings: DcmtkSettings) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the program {settings.program} is not installed (Debian: dcmtk)"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"port {settings.port} is taken by another program"
    return str(error)


def find_program(program: str) -> str | None:
    """Return where a program is.

    pynetdicom brings a script `storescp` of its own, beside the Python that runs us:
    that one is not meant.
    """
    ours = Path(sysconfig.get_path("scripts"))
    folders = [each for each in os.get_exec_path() if Path(each) != ours]
    return shutil.which(program, path=os.pathsep.join(folders))
