"""The threads of the workers: one for each worker of the applied revision."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from reconciler.actual.store import Store
from reconciler.execution.hosts.choice import Hosts
from reconciler.model.applied import AppliedConfig
from reconciler.watch.worker_thread import WorkerThread

NewThread = Callable[[str, AppliedConfig], WorkerThread]


class WorkerPool:
    """Keeps a thread for each worker; ``new_thread`` makes one. Only the main thread calls :meth:`adjust`."""

    def __init__(self, store: Store, hosts: Hosts, new_thread: NewThread) -> None:
        self._store = store
        self._hosts = hosts
        self._new_thread = new_thread
        self._threads: dict[str, WorkerThread] = {}
        self._made_for: dict[str, object] = {}
        self._config: AppliedConfig | None = None
        self._lock = threading.Lock()

    def adjust(self) -> bool:
        """Start and end threads as the applied configuration requires; return whether that is complete.

        A changed worker gets a new thread once the old one has ended its step: two at a time would submit the
        same jobs.
        """
        with self._store.read() as view:
            config = view.config()
        if config is None or (config is self._config and all(t.is_alive() for t in self._threads.values())):
            return True
        wanted: dict[str, object] = {name: (spec, config.jobstore) for name, spec in config.workers.items()}
        for name, thread in list(self._threads.items()):
            if self._made_for[name] != wanted.get(name):
                thread.end()
            if not thread.is_alive():
                with self._lock:
                    del self._threads[name]
                del self._made_for[name]
        for name in wanted.keys() - self._threads.keys():
            thread = self._new_thread(name, config)
            with self._lock:
                self._threads[name] = thread
            self._made_for[name] = wanted[name]
            thread.start()
        complete = self._made_for == wanted
        self._config = config if complete else None
        if complete:
            workers = config.workers.values()
            self._hosts.keep(way for spec in workers for way in (spec.connection, spec.transfer_connection))
        return complete

    def call(self, but: str | None = None) -> None:
        """Wake all threads because jobs may be ready now; ``but`` names one that knows already."""
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            if thread.runner.name != but:
                thread.wake.call()

    def end(self, seconds: float) -> list[str]:
        """End all threads after their current step; return the names of those that take longer."""
        deadline = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.end()
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return [name for name, thread in self._threads.items() if thread.is_alive()]
