"""The threads of all workers: one for each that the applied revision names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from reconciler.actual.store import Store
from reconciler.execution.hosts.choice import Hosts
from reconciler.model.connections import Connection
from reconciler.model.records import AppliedConfig
from reconciler.watch.worker_thread import WorkerThread

StartThread = Callable[[str, AppliedConfig], WorkerThread]


class WorkerPool:
    """Keeps a thread for each worker; ``hire`` makes one. Only the main thread calls :meth:`adjust`."""

    def __init__(self, store: Store, hosts: Hosts, hire: StartThread) -> None:
        self._store = store
        self._hosts = hosts
        self._hire = hire
        self._threads: dict[str, WorkerThread] = {}
        self._made_for: dict[str, object] = {}
        self._config: AppliedConfig | None = None
        self._lock = threading.Lock()

    def adjust(self) -> bool:
        """Let the crew be what the applied configuration says; return whether it is so already.

        A changed worker gets a new thread once the old one has ended its step: never two at a time, which
        would submit the same jobs.
        """
        with self._store.read() as view:
            config = view.config()
        if config is None or (config is self._config and all(t.is_alive() for t in self._threads.values())):
            return True
        wanted: dict[str, object] = {name: (spec, config.jobstore) for name, spec in config.workers.items()}
        self._part_with(wanted)
        for name in wanted.keys() - self._threads.keys():
            self._add(name, config, wanted[name])
        complete = self._made_for == wanted
        self._config = config if complete else None
        if complete:
            self._hosts.keep(_connections(config))
        return complete

    def _part_with(self, wanted: dict[str, object]) -> None:
        """Let those go that the revision has changed or removed, and those that died."""
        for name, thread in list(self._threads.items()):
            if self._made_for[name] != wanted.get(name):
                thread.end()
            if not thread.is_alive():
                with self._lock:
                    del self._threads[name]
                del self._made_for[name]

    def _add(self, name: str, config: AppliedConfig, made_for: object) -> None:
        thread = self._hire(name, config)
        with self._lock:
            self._threads[name] = thread
        self._made_for[name] = made_for
        thread.start()

    def call(self, but: str | None = None) -> None:
        """Wake all threads: jobs may be ready that were not before. ``but`` is the one that knows already."""
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            if thread.lane.name != but:
                thread.wake.call()

    def end(self, seconds: float) -> list[str]:
        """Let all threads end after their present step; return the names of those that did not in time."""
        deadline = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.end()
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return [name for name, thread in self._threads.items() if thread.is_alive()]


def _connections(config: AppliedConfig) -> Iterator[Connection | None]:
    for spec in config.workers.values():
        yield spec.connection
        yield spec.transfer_connection
