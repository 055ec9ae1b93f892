"""The thread of the notify rules: a target that hangs or fails holds up nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from reconciler.actual.store import Store
from reconciler.errors import ReconcilerError
from reconciler.notify.notifier import send_due
from reconciler.watch.log import bugs_logged, log_event
from reconciler.watch.signals import WakeUp

_INTERVAL = 2.0
"""Seconds between two looks at what is due; each costs a few reads of the store."""


class NotifyThread(threading.Thread):
    """Sends due messages until told to end."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        super().__init__(name="notify", daemon=True)
        self._store = store
        self._clock = clock
        self._wake = WakeUp()
        self._ending = False
        self._problems: dict[str, str] = {}

    def end(self) -> None:
        """End the thread after its current step."""
        self._ending = True
        self._wake.call()

    def run(self) -> None:
        """Look at intervals."""
        while not self._ending:
            self._step()
            self._wake.wait(_INTERVAL)

    def _step(self) -> None:
        """Make one round; log each problem once."""
        problems: dict[str, tuple[str, str | None]] = {}
        try:
            with bugs_logged("notify-bug"):
                for failure in send_due(self._store, self._clock()):
                    problems[failure.rule] = (failure.problem, failure.hint)
        except ReconcilerError as error:
            problems[""] = (error.message, error.hint)
        for rule, (message, hint) in problems.items():
            if self._problems.get(rule) != message:
                self._problems[rule] = message
                log_event("notify-failed", message, level=logging.WARNING, rule=rule, hint=hint)
