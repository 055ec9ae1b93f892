"""Signals to the daemon: to end, to end at once, to look now."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType

# What a thread waits for: that somebody calls it, or that a time has come.


class WakeUp:
    """A bell for one thread. A call that comes while the thread is at work is heard at its next wait."""

    def __init__(self) -> None:
        # Its put is the one way to wake a thread that a signal handler may use in the very thread that waits.
        self._calls: SimpleQueue[str] = SimpleQueue()

    def call(self, reason: str = "") -> None:
        """Ring; may be called by any thread, and by a signal handler."""
        if reason or self._calls.empty():  # else it rings already
            self._calls.put(reason)

    def wait(self, seconds: float | None) -> frozenset[str]:
        """Wait for a call, at most so long (None: for ever); return the reasons of all that came."""
        reasons = set()
        try:
            reasons.add(self._calls.get(timeout=None if seconds is None else max(0.0, seconds)))
            while True:
                reasons.add(self._calls.get_nowait())
        except Empty:
            return frozenset(reasons - {""})


class Signals:
    """What signals have asked for so far. ``wake`` rings at each of them.

    SIGTERM and SIGINT ask this process to end; ``number`` is the first that came, 0 until then. A second one
    calls ``leave`` with an exit code. SIGHUP calls ``hang_up``.
    """

    def __init__(self) -> None:
        self.number = 0
        self.wake = WakeUp()
        self.leave: Callable[[int], None] = os._exit
        self.hang_up: Callable[[], None] = lambda: None

    def listen(self) -> None:
        """Hear signals from now on; to be called by the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.hang_up()
            return
        if self.number:
            self.leave(128 + number)
        self.number = number
        self.wake.call()
