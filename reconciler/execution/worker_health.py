"""Whether a worker answers, and when it is tried again: in the store, for the next process to know, too."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.errors import TransientError
from reconciler.model.records import WorkerStatus

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 2.0, 300.0


class WorkerHealth:
    """How one worker stands. Times are seconds since the epoch."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._seen_at: float | None = None

    @property
    def status(self) -> WorkerStatus:
        """What is written down; a worker of which nothing is known is taken to answer."""
        with self._store.read() as view:
            return view.worker_status(self._name) or WorkerStatus(reachable=True)

    @property
    def outage(self) -> str | None:
        """Why this worker cannot be used now, and what to do about it, if so."""
        status = self.status
        return None if status.reachable else " - ".join(filter(None, (status.reason, status.fix)))

    def rests(self, now: float) -> bool:
        """Whether it is too early for the next try; a clock that was set back makes it wait no longer."""
        return 0 < self.status.next_try - now <= _LONGEST_BACK_OFF

    def answered(self, now: float) -> None:
        """The worker did what it was asked for; written down when that is news."""
        self._seen_at = now
        status = self.status
        if not status.reachable or status.last_seen is None:
            self._put(reachable=True, last_seen=now, reason="", fix="", failures=0, next_try=0.0)

    def failed(self, error: TransientError, now: float) -> None:
        """The worker cannot be used now; the next try is the later the more often that was so."""
        status = self.status
        failures = status.failures + 1
        wait = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** (failures - 1))
        self._put(
            reachable=False,
            last_seen=self._seen_at or status.last_seen,
            reason=error.message,
            fix=error.hint or "",
            failures=failures,
            next_try=now + wait,
        )

    def _put(self, **fields: Any) -> None:
        status = msgspec.structs.replace(self.status, **fields)
        self._store.write(lambda writer: writer.put_worker_status(self._name, status))
