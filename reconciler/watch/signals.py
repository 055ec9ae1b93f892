"""Signals to the daemon: to end, to end at once, to look now."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from reconciler.watch.wake import Wake


class Signals:
    """What signals have asked for so far. ``wake`` rings at each of them.

    SIGTERM and SIGINT ask this process to end; ``number`` is the first that came, 0 until then. A second one
    calls ``leave`` with an exit code. SIGHUP calls ``hang_up``.
    """

    def __init__(self) -> None:
        self.number = 0
        self.wake = Wake()
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
