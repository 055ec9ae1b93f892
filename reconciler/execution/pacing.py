"""When a worker is contacted: how often it is polled, and when it is tried again after an outage."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.errors import TransientError
from reconciler.model.manifests import PollInterval
from reconciler.model.records import WorkerStatus
from reconciler.model.retries import back_off

_SHARE = 0.2
"""The poll interval as a share of the time since the last job moved."""
_LOCAL_QUEUE_FACTOR, _URGENT_FACTOR = 4, 4
"""The queue of this machine is polled less often than the outbox of another one, unless a job is starting."""
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 2.0, 300.0


class PollSchedule:
    """When to poll one worker. All times are seconds since the epoch.

    The interval is a fixed share of the time since any job moved. So the end of a job of one minute is
    noticed within some seconds, and a job of hours causes at most six polls per minute, or as many as the
    worker's ``poll_interval`` allows. The outbox of this machine costs nothing and is listed in every pass.
    """

    def __init__(self, bounds: PollInterval, *, local: bool) -> None:
        self._bounds = bounds
        self._local = local
        self._moved = self._polled = self._queue_asked = 0.0

    def due(self, now: float) -> bool:
        """Return whether to list the outbox."""
        return self._local or _has_passed(self._polled, self._interval(now), now)

    def queue_due(self, now: float, *, urgent: bool) -> bool:
        """Return whether to ask the queue too; on another host both are one command."""
        return not self._local or _has_passed(self._queue_asked, self._queue_interval(now, urgent), now)

    def next_poll(self, now: float, *, urgent: bool) -> float:
        """Return when :meth:`due` or :meth:`queue_due` is true next.

        On this machine only the queue counts: file notices report what arrives in the outbox.
        """
        if self._local:
            before, interval = self._queue_asked, self._queue_interval(now, urgent)
        else:
            before, interval = self._polled, self._interval(now)
        return before + interval if before <= now else now  # later only if the clock was set back

    def polled(self, now: float, *, asked: bool) -> None:
        """Note a poll; ``asked`` tells whether it included the queue."""
        self._polled = now
        if asked:
            self._queue_asked = now

    def moved(self, now: float) -> None:
        """Note that a job on the worker moved, so that the next poll is soon."""
        self._moved = now

    def ask_queue_soon(self) -> None:
        """Include the queue in the next poll."""
        self._queue_asked = 0.0

    def _interval(self, now: float, factor: int = 1) -> float:
        bounds = self._bounds
        return min(bounds.longest, max(bounds.shortest * factor, _SHARE * (now - self._moved)))

    def _queue_interval(self, now: float, urgent: bool) -> float:
        return self._interval(now, _LOCAL_QUEUE_FACTOR) / (_URGENT_FACTOR if urgent else 1)


def _has_passed(before: float, interval: float, now: float) -> bool:
    return not 0 <= now - before < interval  # true also if the clock was set back


class WorkerHealth:
    """Whether one worker answers. It is in the store, so that the next process knows it too.

    Times are seconds since the epoch.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._last_seen: float | None = None

    @property
    def status(self) -> WorkerStatus:
        """The stored status; a worker without one is assumed to answer."""
        with self._store.read() as view:
            return view.worker_status(self._name) or WorkerStatus(reachable=True)

    @property
    def outage(self) -> str | None:
        """Why the worker cannot be used now and what to do about it, or None."""
        status = self.status
        return None if status.reachable else " - ".join(filter(None, (status.reason, status.fix)))

    def backs_off(self, now: float) -> bool:
        """Return whether it is too early for the next try; false if the clock was set back."""
        return 0 < self.status.next_try - now <= _LONGEST_BACK_OFF

    def answered(self, now: float) -> None:
        """Note that the worker answered; written to the store only if that is new."""
        self._last_seen = now
        status = self.status
        if not status.reachable or status.last_seen is None:
            self._put(reachable=True, last_seen=now, reason="", fix="", failures=0, next_try=0.0)

    def failed(self, error: TransientError, now: float) -> None:
        """Note an outage; the back-off doubles with each one."""
        status = self.status
        failures = status.failures + 1
        self._put(
            reachable=False,
            last_seen=self._last_seen or status.last_seen,
            reason=error.message,
            fix=error.hint or "",
            failures=failures,
            next_try=now + back_off(failures, _FIRST_BACK_OFF, _LONGEST_BACK_OFF),
        )

    def _put(self, **fields: Any) -> None:
        status = msgspec.structs.replace(self.status, **fields)
        self._store.write(lambda writer: writer.put_worker_status(self._name, status))
