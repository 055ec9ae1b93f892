"""The threads of all workers: one for each that the applied revision names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from reconciler.actual.store import Store
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import AppliedConfig
from reconciler.watch.worker_thread import WorkerThread

Hire = Callable[[str, AppliedConfig], WorkerThread]


class Crew:
    """Keeps a thread for each worker; ``hire`` makes one. Only the main thread calls :meth:`adjust`."""

    def __init__(self, store: Store, hire: Hire) -> None:
        self._store = store
        self._hire = hire
        self._threads: dict[str, WorkerThread] = {}
        self._made_for: dict[str, tuple[WorkerSpec, object]] = {}
        self._lock = threading.Lock()

    def adjust(self) -> bool:
        """Let the crew be what the applied configuration says; return whether it is so already.

        A changed worker gets a new thread once the old one has ended its step: never two at a time, which
        would submit the same jobs.
        """
        with self._store.read() as view:
            config = view.config()
        wanted = config.workers if config is not None else {}
        complete = True
        for name, thread in list(self._threads.items()):
            if self._made_for[name] != _made_for(name, config):
                thread.end()
            if not thread.is_alive():
                self._dismiss(name)
        for name in wanted:
            if name in self._threads:
                complete &= self._made_for[name] == _made_for(name, config)
                continue
            assert config is not None
            thread = self._hire(name, config)
            with self._lock:
                self._threads[name] = thread
            self._made_for[name] = (config.workers[name], config.jobstore)
            thread.start()
        return complete

    def _dismiss(self, name: str) -> None:
        with self._lock:
            del self._threads[name]
        del self._made_for[name]

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


def _made_for(name: str, config: AppliedConfig | None) -> tuple[WorkerSpec, object] | None:
    """Return what a thread was made for: the worker, and where outputs go."""
    if config is None or name not in config.workers:
        return None
    return config.workers[name], config.jobstore
