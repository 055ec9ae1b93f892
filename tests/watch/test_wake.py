"""The bell that a thread waits for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from reconciler.watch.signals import WakeUp
from tests.support import ROOT

SECONDS = 3


def test_a_call_before_the_wait_is_heard_once() -> None:
    wake = WakeUp()
    wake.call()
    wake.call("asked")
    wake.call()
    assert wake.wait(10) == {"asked"}
    began = time.monotonic()
    assert wake.wait(0.05) == frozenset()
    assert time.monotonic() - began >= 0.05


def test_a_call_of_another_thread_ends_the_wait() -> None:
    wake = WakeUp()
    threading.Timer(0.05, wake.call, ["asked"]).start()
    assert wake.wait(None) == {"asked"}


def test_a_time_that_is_over_is_no_wait() -> None:
    assert WakeUp().wait(-1.0) == frozenset()


def test_calls_that_nobody_hears_do_not_pile_up() -> None:
    wake = WakeUp()
    for _ in range(10_000):
        wake.call()
    assert wake._calls.qsize() == 1


FLOOD = f"""
import signal, time
from reconciler.watch.signals import WakeUp
wake = WakeUp()
signal.signal(signal.SIGALRM, lambda number, frame: wake.call())
signal.setitimer(signal.ITIMER_REAL, 0.00005, 0.00005)
end = time.monotonic() + {SECONDS}
while time.monotonic() < end:
    wake.call()
    wake.wait(0)
    wake.wait(0.0002)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_signal_may_ring_it_in_the_thread_that_waits() -> None:
    """At whatever instant it comes: also while the bell itself is at work."""
    subprocess.run([sys.executable, "-c", FLOOD], cwd=ROOT, timeout=20 * SECONDS, check=True)
