"""The daemon: one thread for the source, one for each worker, and this one, which does nothing that can hang.

Whoever holds it before may put another store there (``restore``, a migration): one that was opened earlier
would be that of yesterday.

It starts and ends the others, hears signals, and tells what has happened. Nothing is lost if it dies at any
line: all that matters is in the store, and the next one goes on from there.
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
from reconciler.model.health import many_jobs
from reconciler.model.records import AppliedConfig, Event
from reconciler.model.states import ACTIVE, JobState
from reconciler.watch.file_notices import FileNotices
from reconciler.watch.log import log_bug, log_event
from reconciler.watch.signals import Signals
from reconciler.watch.source_thread import REQUESTED, DaemonReporter, SourceSettings, SourceThread
from reconciler.watch.systemd import ServiceManager
from reconciler.watch.worker_pool import WorkerPool
from reconciler.watch.worker_thread import WorkerThread

# Whose turn it is to write: the daemon takes the lease before it opens the state.


_AGAIN = 0.5
"""Seconds between two looks whether the lease is free."""


def acquire_lease(lease: Lease, signals: Signals, manager: ServiceManager, *, standby: bool) -> bool:
    """Take the lease; return False if a signal came while it was waited for.

    Raises
    ------
    RefusedError
        Another process holds it, and this one is not to wait.
    """
    told = ""
    while not signals.number:
        try:
            lease.acquire(time.time(), role="watch")
        except RefusedError as error:
            if not standby:
                raise
            if error.message != told:
                told = error.message
                log_event("standby", f"waiting: {told}")
                manager.status(f"waiting: {told}")
            manager.tell("WATCHDOG=1")
            signals.wake.wait(_AGAIN)
        else:
            return True
    return False


_TICK = 1.0
"""Seconds between two looks of the main thread when nothing happens."""

_HURRIED_TICK = 0.05
"""Seconds between them while a worker that was changed still ends its last step."""

_REPORT = 5.0
"""Seconds between two reports of how it goes to the one who started this process."""

_LAST_STEP = 8.0
"""Seconds that the threads have to end their present step."""

_TOLD_AT_ONCE = 500


class Daemon:
    """Reconciles until a signal ends it. Whoever starts it holds the lease."""

    def __init__(
        self,
        settings: SourceSettings,
        store: Store,
        teller: DaemonReporter,
        signals: Signals,
        manager: ServiceManager,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._signals = signals
        self._manager = manager
        self._clock = clock
        self._hosts = Hosts()
        self._shelves = RemoteCaches()
        self._notices = FileNotices()
        self._news = signals.wake
        self._requests = Requests(store.path)
        self._crew = WorkerPool(store, self._hosts, self._hire)
        self._source = SourceThread(
            settings, store, self._hosts, teller, clock, self._notices, self._news.call
        )
        self._event = 0
        self._report_at = 0.0
        self._complete = False
        self._troubles: dict[str, str] = {}
        self._heard: set[str] = set()

    def run(self) -> None:
        """Reconcile until SIGTERM or SIGINT.

        If a thread hangs then, the process ends here instead, with the exit code that it would have had.

        Raises
        ------
        RefusedError
            The state belongs to another repository.
        """
        self._signals.leave = lambda code: leave_now(code, self._source)
        self._signals.hang_up = lambda: self._source.wake.call(REQUESTED)
        threading.excepthook = self._hear_of_a_death
        self._begin()
        while not self._signals.number and self._source.foreign is None:
            self._tend()
        self._end()
        if self._source.foreign is not None:
            raise self._source.foreign

    # beginning ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._refuse_old_requests()
        with self._store.read() as view:
            self._event = view.last_event()
        self._source.start()
        log_event("begun", f"watching; the state is in {self._store.path}")
        self._manager.tell("READY=1")

    def _refuse_old_requests(self) -> None:
        """What was asked of a daemon that died is not done unasked hours later, least of all a prune."""
        began = self._clock()
        self._requests.open()
        old = [request for request in self._requests.pending() if request.time < began]
        again = Answer(code=ExitCode.WORLD, error="the daemon died before it answered", hint="ask again")
        self._requests.answer(old, again)

    def _hire(self, name: str, config: AppliedConfig) -> WorkerThread:
        accesses = Accesses(config.workers, self._source.repository, self._hosts, self._shelves)
        # By its own thread, when it needs them: another machine may have to be asked for them.
        outputs = OpenedLater(lambda: open_outputs(self._store, config))
        lane = worker_runner(name, self._store, outputs, accesses)
        return WorkerThread(lane, self._clock, self._notices, lambda: self._moved(lane))

    def _moved(self, lane: WorkerRunner) -> None:
        """A job has moved: others may be ready now, on any worker."""
        self._crew.call(but=lane.name)
        self._news.call()

    # at work ------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Do each duty, whatever becomes of the others; then wait."""
        self._manager.tell("WATCHDOG=1")
        self._keep_source()
        duties = [self._adjust_crew, self._begin_retries, self._hear_requests]
        for duty in [*duties, self._tell_events, self._report]:
            self._try(duty)
        self._news.wait(_TICK if self._complete else _HURRIED_TICK)

    def _try(self, duty: Callable[[], None]) -> None:
        """Do something that needs the store, which may fail, as on a full disk; say so once."""
        name, trouble = duty.__name__, ""
        try:
            duty()
        except ReconcilerError as error:
            trouble = error.message
            if trouble != self._troubles.get(name):
                log_event("store-failed", trouble, level=logging.ERROR, hint=error.hint)
        self._troubles[name] = trouble

    def _adjust_crew(self) -> None:
        self._complete = True  # if it fails there is no hurry
        self._complete = self._crew.adjust()

    def _begin_retries(self) -> None:
        if begin_due(self._store, self._clock()):
            self._crew.call()

    def _hear_requests(self) -> None:
        """Whoever asks must not depend on notices of the file system, of which there may be none."""
        waiting = self._requests.names()
        if waiting - self._heard:  # once each: one that cannot be answered, on a full disk, has its back-off
            self._source.wake.call()
        self._heard = waiting

    def _keep_source(self) -> None:
        """A thread that ended although nobody told it to would never come back: then the process must."""
        if not self._source.is_alive() and self._source.foreign is None:
            raise RuntimeError("the thread of the source has died")

    def _tell_events(self) -> None:
        """Log what has happened to jobs and flows since the last time; also what other programs did."""
        with self._store.read() as view:
            events = view.events_after(self._event, _TOLD_AT_ONCE)
        for number, event in events:
            self._event = number
            log_event(event.type, f"{event.about}: {event.message}", level=_level(event), **_fields(event))
        if len(events) == _TOLD_AT_ONCE:
            self._news.call()
        elif events:  # a verb of another program may have made jobs ready
            self._crew.call()

    def _report(self) -> None:
        if not self._manager.listens or time.monotonic() < self._report_at:
            return
        self._report_at = time.monotonic() + _REPORT  # it counts jobs, which costs more the more there are
        with self._store.read() as view:
            config = view.config()
            active = sum(view.count_in_state(state) for state in ACTIVE)
            ready = view.count_in_state(JobState.READY)
        revision = config.revision if config is not None else "nothing applied yet"
        self._manager.status(f"{revision}; {many_jobs(active)} on workers, {ready} ready")

    # ending -------------------------------------------------------------------------------------------

    def _hear_of_a_death(self, death: threading.ExceptHookArgs) -> None:
        """Log why a thread died. Those of workers are started anew; that of the notices cannot be."""
        self._notices.give_up()
        name = death.thread.name if death.thread is not None else "?"
        log_bug("thread-bug", death.exc_value or death.exc_type(), thread=name)
        self._news.call()

    def _end(self) -> None:
        """Let every thread finish its step; jobs run on. One that hangs is left behind."""
        self._manager.tell("STOPPING=1")
        log_event("ending", "ending: jobs run on, the next start takes them in; once more to end at once")
        deadline = time.monotonic() + _LAST_STEP
        self._source.end()
        hung = [f"worker {name}" for name in self._crew.end(_LAST_STEP)]
        self._source.join(max(0.1, deadline - time.monotonic()))
        if self._source.is_alive():
            hung.append("source")
        if hung:
            log_event("hung", f"not waiting for {', '.join(hung)}", level=logging.WARNING)
            interrupted = self._signals.number == signal.SIGINT
            leave_now(ExitCode.INTERRUPTED if interrupted else ExitCode.OK, self._source)
        self._notices.close()
        self._hosts.close()
        log_event("ended", "ended")


def leave_now(code: int, source: SourceThread) -> None:
    """End this process with all commands that it runs; threads that hang cannot be ended in any other way."""
    source.kill()
    kill_running()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


_TOLD = ("-> COMPLETED", "-> FAILED", "-> REMOTE_ERROR")


def _level(event: Event) -> int:
    """Ends are told to everybody; the rest of ten thousand jobs only to who wants all."""
    is_end = event.type == "State" and any(end in event.message for end in _TOLD)
    return logging.INFO if is_end or event.type in ("Stuck", "Unstuck") else logging.DEBUG


def _fields(event: Event) -> dict[str, object]:
    return {"about": event.about, "revision": event.revision, "attempt": event.attempt, "by": event.by}
