"""What a thread waits for: that somebody calls it, or that a time has come."""

from __future__ import annotations

from queue import Empty, SimpleQueue


class Wake:
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
