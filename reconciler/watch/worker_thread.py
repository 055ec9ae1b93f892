"""One worker's thread. Whatever hangs or fails there hurts no other worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.executor import WorkerRunner
from reconciler.watch.file_notices import FileNotices
from reconciler.watch.log import log_bug, log_event
from reconciler.watch.signals import WakeUp

Clock = Callable[[], float]

_LONGEST_PAUSE = 30.0
"""Seconds. A pass that finds nothing costs two look-ups; so no lost call and no jump of the clock matters."""

_UNWATCHED_PAUSE = 0.2
"""Seconds between two looks at an outbox of this machine whose file system gives no notices."""

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 1.0, 300.0


class WorkerThread(threading.Thread):
    """Makes passes over the jobs of one worker: when called, and when the worker itself is to be looked at.

    ``moved`` is called after each pass that moved a job: it may have made jobs of other workers ready.
    """

    def __init__(
        self, lane: WorkerRunner, clock: Clock, notices: FileNotices, moved: Callable[[], None]
    ) -> None:
        super().__init__(name=f"worker {lane.name}", daemon=True)
        self.lane = lane
        self.wake = WakeUp()
        self._clock = clock
        self._notices = notices
        self._moved = moved
        self._ending = False
        self._failures = 0
        self._rest_ends = 0.0
        self._outage: str | None = None

    def end(self) -> None:
        """Let the thread end after its present step."""
        self._ending = True
        self.wake.call()

    def run(self) -> None:
        """Make passes until told to end."""
        while not self._ending:
            if self._rests() or not self.step():
                self.wake.wait(self.pause())
        self._notices.forget(self.wake.call)
        if not self._failures:
            self.lane.tidy_up()

    def step(self) -> bool:
        """Make one pass; return whether any job has moved. What goes wrong is told, and tried again later."""
        try:
            moved = self.lane.advance(self._clock())
            self._failures = 0
        except ReconcilerError as error:
            self._failed()
            log_event(
                "worker-failed", error.message, level=logging.ERROR, worker=self.lane.name, hint=error.hint
            )
            return False
        except Exception as error:
            self._failed()
            self._bug(error)
            return False
        self._tell_news()
        if moved:
            self._moved()
        return moved

    def pause(self) -> float:
        """Return for how many seconds there is nothing to do unless somebody calls."""
        if self._rests():
            return self._rest_ends - time.monotonic()
        try:
            due = self.lane.due(self._clock())
        except ReconcilerError:  # the store cannot be read: the next step says so
            return _FIRST_BACK_OFF
        if due is None:
            return _LONGEST_PAUSE
        longest = _LONGEST_PAUSE if self._is_watched() else _UNWATCHED_PAUSE
        return min(longest, max(0.0, due - self._clock()))

    def _rests(self) -> bool:
        return bool(self._failures) and time.monotonic() < self._rest_ends

    def _failed(self) -> None:
        self._failures = min(self._failures + 1, 16)
        back_off = _FIRST_BACK_OFF * 2.0 ** (self._failures - 1)
        self._rest_ends = time.monotonic() + min(_LONGEST_BACK_OFF, back_off)

    def _bug(self, error: Exception) -> None:
        """Say what is wrong, also to who looks at the worker."""
        log_bug("worker-bug", error, worker=self.lane.name)
        why = TransientError(f"a bug in reconciler: {type(error).__name__}: {error}", hint="see the log")
        try:
            self.lane.health.failed(why, self._clock())
        except ReconcilerError as worse:
            log_event("worker-failed", worse.message, level=logging.ERROR, worker=self.lane.name)

    def _is_watched(self) -> bool:
        """Whether a marker that a local job drops is a call; on another host there is nothing to watch."""
        access = self.lane.access
        if not access.host.is_local:
            return True
        return self._notices.watch(Path(access.paths.outbox), self.wake.call)

    def _tell_news(self) -> None:
        for warning in self.lane.warnings():
            log_event("worker-warning", warning, level=logging.WARNING, worker=self.lane.name)
        outage = self.lane.health.outage
        if outage != self._outage:
            self._outage = outage
            if outage is None:
                log_event("worker-reachable", f"worker {self.lane.name} answers again", worker=self.lane.name)
            else:
                log_event(
                    "worker-unreachable",
                    f"worker {self.lane.name}: {outage}; its jobs stay as they are",
                    level=logging.WARNING,
                    worker=self.lane.name,
                )
