"""Waking threads, and the signals that the daemon handles: stop, stop now, check the source."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType


class WakeUp:
    """Wakes one thread. A call that comes while the thread works takes effect at its next wait."""

    def __init__(self) -> None:
        # SimpleQueue.put is the only wake-up that a signal handler may use in the very thread that waits.
        self._calls: SimpleQueue[str] = SimpleQueue()

    def call(self, reason: str = "") -> None:
        """Wake the thread. Any thread and any signal handler may call this."""
        if reason or self._calls.empty():  # one call without a reason is enough
            self._calls.put(reason)

    def wait(self, seconds: float | None) -> frozenset[str]:
        """Wait for a call, for at most ``seconds`` (None: no limit); return the reasons of all calls."""
        reasons = set()
        try:
            reasons.add(self._calls.get(timeout=None if seconds is None else max(0.0, seconds)))
            while True:
                reasons.add(self._calls.get_nowait())
        except Empty:
            return frozenset(reasons - {""})


class Signals:
    """The signals received. ``wake`` is called at each of them.

    SIGTERM and SIGINT ask this process to stop: ``number`` is the first one, 0 until then. A second one calls
    ``leave`` with an exit code. SIGHUP calls ``hang_up``.
    """

    def __init__(self) -> None:
        self.number = 0
        self.wake = WakeUp()
        self.leave: Callable[[int], None] = os._exit
        self.hang_up: Callable[[], None] = lambda: None

    def listen(self) -> None:
        """Handle signals from now on. The main thread must call this."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.hang_up()
            return
        if self.number:
            self.leave(128 + number)
        self.number = number
        self.wake.call()
