"""The daemon: a thread for the source, a thread for each worker, and the main thread, which never blocks.

The main thread starts and ends the others, handles signals, and logs what happened. The daemon can die at any
line without loss: everything that matters is in the store, and the next daemon carries on from there.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from reconciler.actual.daemon_requests import Answer, Requests
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.errors import ExitCode, ReconcilerError, RefusedError
from reconciler.execution.executor import WorkerRunner
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.hosts.local import kill_running
from reconciler.execution.worker.access import Accesses
from reconciler.execution.worker.remote_cache import RemoteCaches
from reconciler.jobs.outputs import OpenedLater
from reconciler.jobs.restarts import begin_due
from reconciler.loop import open_outputs, worker_runner
from reconciler.model.applied import AppliedConfig
from reconciler.model.health import many_jobs
from reconciler.model.records import Event
from reconciler.model.states import ACTIVE, JobState
from reconciler.watch.file_notices import FileNotices
from reconciler.watch.log import log_bug, log_event
from reconciler.watch.notify_thread import NotifyThread
from reconciler.watch.signals import Signals
from reconciler.watch.source_pass import DaemonReporter
from reconciler.watch.source_thread import REQUESTED, SourceSettings, SourceThread
from reconciler.watch.systemd import ServiceManager
from reconciler.watch.worker_pool import WorkerPool
from reconciler.watch.worker_thread import WorkerThread

_LEASE_INTERVAL = 0.5
"""Seconds between two tries to acquire the lease."""

_TICK = 1.0
"""Seconds between two rounds of the main thread when nothing wakes it."""

_SHORT_TICK = 0.05
"""Seconds between them while the thread of a changed worker ends its last step."""

_STATUS_INTERVAL = 5.0
"""Seconds between two status reports to the service manager."""

_GRACE = 8.0
"""Seconds that the threads get to end their current step."""

_EVENTS_AT_ONCE = 500


def acquire_lease(lease: Lease, signals: Signals, manager: ServiceManager, *, standby: bool) -> bool:
    """Acquire the lease; return False if a signal came first.

    The caller opens the store only afterwards: the holder before may have replaced it (``restore``, a
    migration).

    Raises
    ------
    RefusedError
        Another process holds the lease, and ``standby`` is False.
    """
    logged = ""
    while not signals.number:
        try:
            lease.acquire(time.time(), role="watch")
        except RefusedError as error:
            if not standby:
                raise
            if error.message != logged:
                logged = error.message
                log_event("standby", f"waiting: {logged}")
                manager.status(f"waiting: {logged}")
            manager.send("WATCHDOG=1")
            signals.wake.wait(_LEASE_INTERVAL)
        else:
            return True
    return False


class Daemon:
    """Reconciles until a signal ends it. The caller holds the lease.

    ``place`` names the branch and repository for the log.
    """

    def __init__(
        self,
        settings: SourceSettings,
        store: Store,
        reporter: DaemonReporter,
        signals: Signals,
        manager: ServiceManager,
        *,
        place: str = "the source",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._place = place
        self._store = store
        self._signals = signals
        self._manager = manager
        self._clock = clock
        self._hosts = Hosts()
        self._caches = RemoteCaches()
        self._notices = FileNotices()
        self._wake = signals.wake
        self._requests = Requests(store.path)
        self._workers = WorkerPool(store, self._hosts, self._new_thread)
        self._source = SourceThread(
            settings, store, self._hosts, reporter, clock, self._notices, self._wake.call
        )
        self._notifier = NotifyThread(store, clock)
        self._last_event = 0
        self._next_status = 0.0
        self._pool_is_complete = False
        self._errors: dict[str, str] = {}
        self._known_requests: set[str] = set()

    def run(self) -> None:
        """Reconcile until SIGTERM or SIGINT.

        If a thread hangs then, the process ends here, with the exit code that it would have had.

        Raises
        ------
        RefusedError
            The state belongs to another repository.
        """
        self._signals.leave = lambda code: leave_now(code, self._source)
        self._signals.hang_up = lambda: self._source.wake.call(REQUESTED)
        threading.excepthook = self._on_thread_death
        self._begin()
        while not self._signals.number and self._source.foreign is None:
            self._tend()
        self._end()
        if self._source.foreign is not None:
            raise self._source.foreign

    # beginning ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        # Requests to a daemon that died are refused, not carried out hours later: one may ask for a prune.
        began = self._clock()
        self._requests.open()
        old = [request for request in self._requests.pending() if request.time < began]
        again = Answer(code=ExitCode.WORLD, error="the daemon died before it answered", hint="ask again")
        self._requests.answer(old, again)

        with self._store.read() as view:
            self._last_event = view.last_event()
        self._source.start()
        self._notifier.start()
        log_event("begun", f"watching {self._place}; the state is in {self._store.path}")
        self._manager.send("READY=1")

    def _new_thread(self, name: str, config: AppliedConfig) -> WorkerThread:
        accesses = Accesses(config.workers, self._source.repository, self._hosts, self._caches)
        # Opened by the worker's own thread on first use, because it may have to ask another machine.
        outputs = OpenedLater(lambda: open_outputs(self._store, config))
        runner = worker_runner(name, self._store, outputs, accesses)
        return WorkerThread(runner, self._clock, self._notices, lambda: self._on_moved(runner))

    def _on_moved(self, runner: WorkerRunner) -> None:
        """A job has changed state: others may be ready now, on any worker."""
        self._workers.call(but=runner.name)
        self._wake.call()

    # at work ------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Carry out each duty, even if others fail; then wait."""
        self._manager.send("WATCHDOG=1")
        if not self._source.is_alive() and self._source.foreign is None:
            raise RuntimeError("the thread of the source has died")  # nothing would ever bring it back
        duties = [self._adjust_workers, self._begin_retries, self._forward_requests]
        for duty in [*duties, self._log_events, self._send_status]:
            self._try(duty)
        self._wake.wait(_TICK if self._pool_is_complete else _SHORT_TICK)

    def _try(self, duty: Callable[[], None]) -> None:
        """Carry out a duty that needs the store and can fail, for example on a full disk; log that once."""
        name, message = duty.__name__, ""
        try:
            duty()
        except ReconcilerError as error:
            message = error.message
            if message != self._errors.get(name):
                log_event("store-failed", message, level=logging.ERROR, hint=error.hint)
        self._errors[name] = message

    def _adjust_workers(self) -> None:
        self._pool_is_complete = True  # in case adjusting fails: then there is no hurry
        self._pool_is_complete = self._workers.adjust()

    def _begin_retries(self) -> None:
        if begin_due(self._store, self._clock()):
            self._workers.call()

    def _forward_requests(self) -> None:
        """Wake the source for new requests, because file notices may be unavailable.

        Once for each request: one that cannot be answered, as on a full disk, is tried again with a back-off.
        """
        waiting = self._requests.names()
        if waiting - self._known_requests:
            self._source.wake.call()
        self._known_requests = waiting

    def _log_events(self) -> None:
        """Log the events since the last time, including those that other programs caused."""
        with self._store.read() as view:
            events = view.events_after(self._last_event, _EVENTS_AT_ONCE)
        for number, event in events:
            self._last_event = number
            log_event(event.type, f"{event.about}: {event.message}", level=_level(event), **_fields(event))
        if len(events) == _EVENTS_AT_ONCE:
            self._wake.call()
        elif events:  # an operation of another program may have made jobs ready
            self._workers.call()

    def _send_status(self) -> None:
        if not self._manager.listens or time.monotonic() < self._next_status:
            return
        self._next_status = time.monotonic() + _STATUS_INTERVAL  # counting costs more the more jobs there are
        with self._store.read() as view:
            config = view.config()
            active = sum(view.count_in_state(state) for state in ACTIVE)
            ready = view.count_in_state(JobState.READY)
        revision = config.revision if config is not None else "nothing applied yet"
        self._manager.status(f"{revision}; {many_jobs(active)} on workers, {ready} ready")

    # ending -------------------------------------------------------------------------------------------

    def _on_thread_death(self, death: threading.ExceptHookArgs) -> None:
        """Log why a thread died. Workers get a new thread; the thread of the file notices is not replaced."""
        self._notices.give_up()
        name = death.thread.name if death.thread is not None else "?"
        log_bug("thread-bug", death.exc_value or death.exc_type(), thread=name)
        self._wake.call()

    def _end(self) -> None:
        """End the threads after their current step. Jobs keep running; a thread that hangs is abandoned."""
        self._manager.send("STOPPING=1")
        log_event(
            "ending",
            "stopping; jobs keep running and are picked up at the next start. Ctrl-C again to stop now",
        )
        deadline = time.monotonic() + _GRACE
        self._notifier.end()  # a message that is on its way is sent again at the next start
        self._source.end()
        hung = [f"worker {name}" for name in self._workers.end(_GRACE)]
        for thread in (self._source, self._notifier):
            thread.join(max(0.1, deadline - time.monotonic()))
            if thread.is_alive():
                hung.append(thread.name)
        if hung:
            log_event("hung", f"not waiting for {', '.join(hung)}", level=logging.WARNING)
            interrupted = self._signals.number == signal.SIGINT
            leave_now(ExitCode.INTERRUPTED if interrupted else ExitCode.OK, self._source)
        self._notices.close()
        self._hosts.close()
        log_event("ended", "stopped")


def leave_now(code: int, source: SourceThread) -> None:
    """End this process and all commands that it runs; there is no other way to end threads that hang."""
    source.kill()
    kill_running()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


_ENDINGS = ("-> COMPLETED", "-> FAILED", "-> REMOTE_ERROR")


def _level(event: Event) -> int:
    """Return INFO for the end of a job, DEBUG for the other events of perhaps ten thousand jobs."""
    is_end = event.type == "State" and any(end in event.message for end in _ENDINGS)
    return logging.INFO if is_end or event.type in ("Stuck", "Unstuck") else logging.DEBUG


def _fields(event: Event) -> dict[str, object]:
    return {"about": event.about, "revision": event.revision, "attempt": event.attempt, "by": event.by}
