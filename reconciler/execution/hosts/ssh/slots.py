"""How many commands run at the same time on one connection: as many as the server allows."""

from __future__ import annotations

import threading
import time


class Slots:
    """Places for commands. There is no limit until the server refuses one (its ``MaxSessions``)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._limit: int | None = None

    def take(self, due: float) -> bool:
        """Wait for a free place, at most until ``due`` (monotonic seconds); False if there was none."""
        with self._changed:
            free = self._changed.wait_for(self._is_free, timeout=max(0.0, due - time.monotonic()))
            if free:
                self._taken += 1
            return free

    def give_back(self) -> None:
        """Leave a place."""
        with self._changed:
            self._taken -= 1
            self._changed.notify()

    def refused(self) -> bool:
        """Leave a place that the server refused; False if no other command held one."""
        with self._changed:
            self._taken -= 1
            others = self._taken
            self._limit = max(1, min(others, self._limit or others))
            return others > 0

    def forget_limit(self) -> None:
        """It is another connection now."""
        with self._changed:
            self._limit = None
            self._changed.notify_all()

    def _is_free(self) -> bool:
        return self._limit is None or self._taken < self._limit
