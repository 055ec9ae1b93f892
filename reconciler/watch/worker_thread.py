"""The thread of one worker. Whatever hangs or fails in it affects no other worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from reconciler.errors import BugError, ReconcilerError
from reconciler.execution.executor import WorkerRunner
from reconciler.model.retries import back_off
from reconciler.watch.file_notices import FileNotices
from reconciler.watch.log import bugs_logged, log_event
from reconciler.watch.signals import WakeUp

Clock = Callable[[], float]

_LONGEST_PAUSE = 30.0
"""Seconds. A pass without work costs two look-ups, so neither a lost wake-up nor a clock jump matters."""

_UNWATCHED_PAUSE = 0.2
"""Seconds between two checks of a local outbox whose file system gives no notices."""

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 1.0, 300.0


class WorkerThread(threading.Thread):
    """Advances the jobs of one worker: when woken, and when the worker is due for a poll.

    It calls ``moved`` after each pass that changed a job, because jobs of other workers may be ready now.
    """

    def __init__(
        self, runner: WorkerRunner, clock: Clock, notices: FileNotices, moved: Callable[[], None]
    ) -> None:
        super().__init__(name=f"worker {runner.name}", daemon=True)
        self.runner = runner
        self.wake = WakeUp()
        self._clock = clock
        self._notices = notices
        self._moved = moved
        self._ending = False
        self._failures = 0
        self._back_off_ends = 0.0
        self._outage: str | None = None

    def end(self) -> None:
        """End the thread after its current step."""
        self._ending = True
        self.wake.call()

    def run(self) -> None:
        """Make passes until told to end."""
        while not self._ending:
            if self._backs_off() or not self.step():
                self.wake.wait(self.pause())
        self._notices.forget(self.wake.call)
        if not self._failures:
            self.runner.tidy_up()

    def step(self) -> bool:
        """Make one pass; return whether any job has changed. Errors are logged, and tried again later."""
        try:
            with bugs_logged("worker-bug", worker=self.runner.name):
                moved = self.runner.advance(self._clock())
        except ReconcilerError as error:
            self._record_failure(error)
            return False
        self._failures = 0
        self._log_news()
        if moved:
            self._moved()
        return moved

    def pause(self) -> float:
        """Return the seconds until the next pass, unless something wakes this thread earlier."""
        if self._backs_off():
            return self._back_off_ends - time.monotonic()
        try:
            due = self.runner.due(self._clock())
        except ReconcilerError:  # the store cannot be read: the next step says so
            return _FIRST_BACK_OFF
        if due is None:
            return _LONGEST_PAUSE
        longest = _LONGEST_PAUSE if self._is_watched() else _UNWATCHED_PAUSE
        return min(longest, max(0.0, due - self._clock()))

    def _backs_off(self) -> bool:
        return bool(self._failures) and time.monotonic() < self._back_off_ends

    def _record_failure(self, error: ReconcilerError) -> None:
        """Back off. A bug also counts as an outage, so that listings of the worker show it."""
        self._failures += 1
        self._back_off_ends = time.monotonic() + back_off(self._failures, _FIRST_BACK_OFF, _LONGEST_BACK_OFF)
        if isinstance(error, BugError):
            try:
                self.runner.health.failed(error, self._clock())
                return
            except ReconcilerError as worse:
                error = worse
        log_event(
            "worker-failed", error.message, level=logging.ERROR, worker=self.runner.name, hint=error.hint
        )

    def _is_watched(self) -> bool:
        """Return whether file notices tell of ended jobs; a remote outbox is polled when it is due."""
        access = self.runner.access
        if not access.host.is_local:
            return True
        return self._notices.watch(Path(access.paths.outbox), self.wake.call)

    def _log_news(self) -> None:
        name = self.runner.name
        for warning in self.runner.warnings():
            log_event("worker-warning", warning, level=logging.WARNING, worker=name)
        outage = self.runner.health.outage
        if outage == self._outage:
            return
        self._outage = outage
        if outage is None:
            log_event("worker-reachable", f"worker {name} answers again", worker=name)
        else:
            text = f"worker {name}: {outage}; its jobs keep their state"
            log_event("worker-unreachable", text, level=logging.WARNING, worker=name)
