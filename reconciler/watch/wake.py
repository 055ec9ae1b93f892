"""What a thread waits for: that somebody calls it, or that a time has come."""

from __future__ import annotations

import threading
from collections import deque


class Wake:
    """A bell for one thread. A call that comes while the thread is at work is heard at its next wait."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._reasons: deque[str] = deque()  # appending is atomic: a signal handler may do it at any moment

    def call(self, reason: str = "") -> None:
        """Ring; may be called by any thread, and by a signal handler."""
        if reason:
            self._reasons.append(reason)
        self._rung.set()

    def wait(self, seconds: float | None) -> frozenset[str]:
        """Wait for a call, at most so long (None: for ever); return the reasons of all that came."""
        self._rung.wait(seconds)
        self._rung.clear()
        reasons = set()
        while self._reasons:
            reasons.add(self._reasons.popleft())
        return frozenset(reasons)
