from __future__ import annotations

import os
import signal
import threading
import time

from ingester.wake import Wake


def test_a_ring_before_the_wait_is_heard_once() -> None:
    with Wake() as wake:
        wake.set()
        wake.set()
        assert wake.wait(10)
        assert not wake.wait(0)


def test_a_ring_from_a_thread_ends_the_wait() -> None:
    with Wake() as wake:
        started = time.monotonic()
        ringer = threading.Thread(target=wake.set)
        ringer.start()
        assert wake.wait(60)
        ringer.join()
        assert time.monotonic() - started < 30


def test_more_rings_than_a_pipe_holds_never_block() -> None:
    with Wake() as wake:
        for _ in range(200_000):
            wake.set()
        assert wake.wait(0)
        assert not wake.wait(0)


def test_a_signal_rings() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with Wake() as wake:
            wake.hear_signals()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert wake.wait(60)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_ring_after_the_end_goes_nowhere() -> None:
    wake = Wake()
    wake.close()
    wake.set()
    wake.close()
